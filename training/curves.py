"""Curves as a picture, drawn with Pillow.

panel = Panel("text loss", [Curve("training", [(1, 3.2), (2, 2.9)]), Curve("held out", [(2, 3.0)], dots=True)])
draw([panel]).save("curves.png")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 560, 340
"""Pixels of a panel."""

LEFT, RIGHT, TOP, BOTTOM = 66, 16, 34, 34
"""Its margins."""

PAPER, INK, GRID = "white", "#222222", "#e4e4e4"
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#4a5568", "#b7791f", "#0987a0")

TICKS = 6
"""About so many on an axis."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One curve.

    Args:
        name: for the legend.
        points: (x, y), x rising; those that are not finite are left out.
        dots: whether each point is marked; else they are joined by a line.
        colour: its place among COLOURS; curves of one colour stand together in the legend under the first one's name.
    """

    name: str
    points: Sequence[Point]
    dots: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """Curves that share axes.

    Args:
        title: what y is.
        curves: at least one of them with a point.
        log_x: whether x is on a logarithmic axis; points with x <= 0 are left out then.
        log_y: the same of y.
    """

    title: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Axis:
    """Numbers to pixels.

    Args:
        low: the smallest number.
        high: the largest.
        begin: pixel of the smallest.
        end: pixel of the largest.
        log: whether it is logarithmic.
    """

    low: float
    high: float
    begin: float
    end: float
    log: bool

    @staticmethod
    def over(values: Sequence[float], begin: float, end: float, log: bool) -> Axis:
        """An axis that holds all values; one that stands still gets some room around it."""
        low, high = min(values), max(values)
        if low == high:
            low, high = (low / 1.1, high * 1.1) if log else (low - 0.5, high + 0.5)
        return Axis(low, high, begin, end, log)

    def __call__(self, value: float) -> float:
        """The pixel of a number."""
        low, high, value = map(math.log10, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round numbers within it, some TICKS of them."""
        if self.log and self.high / self.low >= 4:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1.0,) if len(decades) > TICKS else (1.0, 2.0, 5.0)
            return [t for d in decades for s in steps if self.low <= (t := s * 10.0**d) <= self.high]
        rough = (self.high - self.low) / TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """Numbers in few signs, each with as many digits as tell them all apart: 0.05, 300, 2k, 1.5M, 1e-07."""
    names: list[str] = []
    for digits in range(3, 12):
        names = [_label(value, digits) for value in values]
        if len(set(names)) == len(set(values)):
            break
    return names


def _label(value: float, digits: int) -> str:
    for size, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{sign}"
    return f"{value:.{digits}g}"


def shown(panel: Panel, curve: Curve) -> list[Point]:
    """The points of a curve that the panel's axes have a place for."""
    return [
        (x, y)
        for x, y in curve.points
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not panel.log_x) and (y > 0 or not panel.log_y)
    ]


def draw(panels: Sequence[Panel], columns: int = 2) -> Image.Image:
    """Panels side by side, `columns` in a row; those without any point are left out."""
    panels = [panel for panel in panels if any(shown(panel, curve) for curve in panel.curves)]
    across = min(columns, max(1, len(panels)))
    down = max(1, math.ceil(len(panels) / across))
    picture = Image.new("RGB", (across * WIDTH, down * HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    for i, panel in enumerate(panels):
        draw_panel(pen, panel, i % across * WIDTH, i // across * HEIGHT)
    return picture


def draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, left: int, top: int) -> None:
    """One panel with its corner at (left, top)."""
    font = ImageFont.load_default(12)
    points = [point for curve in panel.curves for point in shown(panel, curve)]
    x = Axis.over([p[0] for p in points], left + LEFT, left + WIDTH - RIGHT, panel.log_x)
    y = Axis.over([p[1] for p in points], top + HEIGHT - BOTTOM, top + TOP, panel.log_y)
    for tick, name in zip(x.ticks(), labels(x.ticks()), strict=True):
        pen.line([(x(tick), y.begin), (x(tick), y.end)], GRID)
        pen.text((x(tick), y.begin + 5), name, INK, font, anchor="mt")
    for tick, name in zip(y.ticks(), labels(y.ticks()), strict=True):
        pen.line([(x.begin, y(tick)), (x.end, y(tick))], GRID)
        pen.text((x.begin - 6, y(tick)), name, INK, font, anchor="rm")
    pen.text((left + LEFT, top + 10), panel.title, INK, ImageFont.load_default(14))
    at = float(left + WIDTH - RIGHT)
    for curve in reversed(panel.curves):
        colour, places = COLOURS[curve.colour % len(COLOURS)], [(x(a), y(b)) for a, b in shown(panel, curve)]
        if curve.dots or len(places) == 1:
            for a, b in places:
                pen.ellipse((a - 3, b - 3, a + 3, b + 3), colour)
        else:
            pen.line(places, colour, 2)
        if curve.name and places:
            pen.text((at, top + 11), curve.name, colour, font, anchor="rt")
            at -= font.getlength(curve.name) + 14
