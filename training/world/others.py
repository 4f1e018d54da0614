"""Pictures and clips that are no scenes of solids, so that a model learns to tell them.

    name, frames = sample_other(np.random.default_rng(0), frames=1, size=(64, 64))

Shapes: `Y X` rows and columns; every maker returns (T, Y, X, 3) float in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from mmcore.training.world.photographs import photograph

Maker = Callable[[np.random.Generator, np.ndarray, tuple[int, int]], np.ndarray]
"""(rng, moments s (T,), size (Y, X)) -> (T, Y, X, 3)."""


def _plane(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (Y, X) in [-1, 1], to the right and down."""
    y, x = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    return x, y


def _mixed(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """Two colours mixed: share (...) in [0, 1] -> (..., 3)."""
    a, b = rng.random(3), rng.random(3)
    return a + (b - a) * share[..., None]


def _across(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int], angle: float | None = None) -> np.ndarray:
    """Distance along a direction (radians; any where it is None), drifting with time: (T, Y, X)."""
    x, y = _plane(size)
    angle, drift = rng.uniform(0, np.pi) if angle is None else angle, rng.uniform(-1, 1)
    return np.cos(angle) * x + np.sin(angle) * y + drift * s[:, None, None]


def noise(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every pixel for itself."""
    return rng.random((len(s), *size, 3))


def gradient(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One colour fading into another."""
    return _mixed(rng, np.clip(_across(rng, s, size) / 3 + 0.5, 0, 1))


def stripes(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bands of two colours."""
    return _mixed(rng, (np.sin(rng.uniform(6, 25) * _across(rng, s, size)) > 0).astype(float))


def checks(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A chessboard."""
    fine, angle = rng.uniform(6, 18), rng.uniform(0, np.pi)
    along, across = (np.sin(fine * _across(rng, s, size, turned)) for turned in (angle, angle + np.pi / 2))
    return _mixed(rng, (along * across > 0).astype(float))


def clouds(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Noise whose power falls with frequency as that of photographs does (Field 1987)."""
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    power = 1 / np.maximum(np.hypot(rows, columns), 1 / max(size)) ** rng.uniform(0.9, 1.4)
    waves = np.fft.rfft2(rng.standard_normal((3, *size))) * power
    drift = np.exp(-2j * np.pi * (rows * 12 + columns * 20) * s[:, None, None, None])
    grey = np.fft.irfft2(waves * drift, size)
    grey = (grey - grey.mean()) / grey.std()
    colour = grey.mean(1, keepdims=True) + rng.uniform(0.2, 0.8) * grey
    return np.moveaxis(0.5 + 0.2 * colour, 1, -1)


def fractal(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A Julia set, turning."""
    x, y = _plane(size)
    z = 1.4 * (x + 1j * y) * np.exp(1j * s[:, None, None])
    c = 0.7885 * np.exp(1j * rng.uniform(0, 2 * np.pi))
    steps = np.zeros(z.shape)
    for _ in range(24):
        inside = np.abs(z) < 4
        z = np.where(inside, z * z + c, z)
        steps += inside
    return _mixed(rng, steps / 24)


def _drawn(
    rng: np.random.Generator,
    s: np.ndarray,
    size: tuple[int, int],
    stroke: Callable[[ImageDraw.ImageDraw, np.ndarray, str], object],
    strokes: int,
) -> np.ndarray:
    """Strokes at random places on one ground, drifting together."""
    ground, drift = tuple(rng.integers(0, 256, 3).tolist()), rng.uniform(-0.3, 0.3, 2)
    places = rng.random((strokes, 2, 2))
    inks = ["#{:02x}{:02x}{:02x}".format(*rng.integers(0, 256, 3)) for _ in range(strokes)]
    clip = []
    for moment in s:
        picture = PILImage.new("RGB", (size[1], size[0]), ground)
        pen = ImageDraw.Draw(picture)
        for place, ink in zip(places, inks, strict=True):
            stroke(pen, (place + moment * drift) * (size[1], size[0]), ink)
        clip.append(np.asarray(picture) / 255)
    return np.stack(clip)


def writing(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Letters and digits."""
    words = ["".join(chr(c) for c in rng.integers(48, 91, rng.integers(2, 7))) for _ in range(8)]
    font, left = ImageFont.load_default(int(rng.integers(9, 18))), iter(words * len(s))

    def stroke(pen: ImageDraw.ImageDraw, place: np.ndarray, ink: str) -> None:
        pen.text(tuple(place[0].tolist()), next(left), ink, font)

    return _drawn(rng, s, size, stroke, len(words))


def drawing(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lines, boxes and arcs."""
    kinds = rng.integers(0, 3, 10).tolist()
    left = iter(kinds * len(s))

    def stroke(pen: ImageDraw.ImageDraw, place: np.ndarray, ink: str) -> None:
        box = (*place.min(0).tolist(), *place.max(0).tolist())
        match next(left):
            case 0:
                pen.line(box, ink, 2)
            case 1:
                pen.rectangle(box, None, ink)
            case _:
                pen.arc(box, 0, 270, ink)

    return _drawn(rng, s, size, stroke, len(kinds))


OTHERS: dict[str, Maker] = {
    "noise": noise,
    "a gradient": gradient,
    "stripes": stripes,
    "a checkerboard": checks,
    "clouds of colour": clouds,
    "a fractal": fractal,
    "writing": writing,
    "a drawing": drawing,
    "a photograph": photograph,
}
"""What each is called."""

SHARES = np.array([1 + 3 * (maker is photograph) for maker in OTHERS.values()])
SHARES = SHARES / SHARES.sum()
"""How often each is drawn: photographs are what people send."""


def sample_other(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> tuple[str, np.ndarray]:
    """Draw one.

    Args:
        rng: decides everything.
        frames: `T`.
        size: (Y, X) in pixels.
    Returns:
        Its name, of `OTHERS`, and (T, Y, X, 3) uint8.
    """
    name = str(rng.choice(list(OTHERS), p=SHARES))
    s = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    made = OTHERS[name](rng, s, size)
    return name, np.clip(made * 255 + 0.5, 0, 255).astype(np.uint8)
