"""The solids of one frame, peeled off one after another, by silhouettes and then by the renderer. See `readout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np

from mmcore.training.world.backdrops import (
    GRAYS_NEAR,
    GRAYSCALE,
    PIXELS,
    SKETCH,
    Empty,
    closeness,
    comparable,
    shrunk,
)
from mmcore.training.world.blocks import colours_of
from mmcore.training.world.camera import View, view
from mmcore.training.world.render import Light, Placed, sprite
from mmcore.training.world.scene import COLOURLESS, COLOURS, EYE, GROWN, SHAPES, SHRUNK, SIZES
from mmcore.training.world.studio import OWN
from mmcore.training.world.styles import in_blocks, spread

SPARED = 0.02
"""A solid that brings a sketch no closer than this, of 255, is none."""

EDGE = 0.04
EDGES = {SKETCH: 0.12, PIXELS: 0.1}
"""How far a solid's soft edge reaches beyond it, and in some styles its lines or blocks."""

GRAYS = ("blue", "green", "orange", "yellow")
"""Colours from dark to bright, tried where one sees none."""

ALIKE = 0.8
"""Colours that as much of a solid has as this share of what has its likeliest are tried too."""

UNSURE = 0.5
"""How far a solid's silhouette may mislead about its size, as the logarithm of a ratio."""

SMALLEST = 0.11
"""Solids are larger than this, in units of the scene."""

LEAST = 6
"""A solid explains at least so many pixels more than it covers wrongly."""

MOST = 4
"""Solids in a scene."""

LIGHTS = (-0.7, -0.25, 0.25, 0.7)
STRIDES = ((0.1, 0.2, 0.05), (0.04, 0.08, 0.02), (0.015, 0.03, 0.008))
"""How far (x, z, radius) are moved while a solid is fitted, coarse to fine."""


def covered(solid: Placed, seen: View) -> np.ndarray:
    """(Y, X) share of each pixel that a solid covers."""
    full = np.zeros(seen.ground.shape, np.float32)
    if (drawn := sprite(solid, Light(0, 1), seen)) is not None:
        full[drawn.where] = drawn.mask
    return shrunk(full)


@lru_cache(maxsize=8)
def bank(size: tuple[int, int], height: float) -> tuple[list[Placed], np.ndarray]:
    """Solids at many places and sizes, and what each covers, (K, Y X), seen from so high."""
    seen = view(size, height)
    places = product(
        SHAPES, np.linspace(-1.4, 1.4, 15), np.linspace(-0.6, 1.4, 8), (0.12, 0.18, 0.24, 0.32, 0.42, 0.55, 0.66)
    )
    solids = [Placed(shape, "red", x, 0.0, z, radius) for shape, x, z, radius in places]
    return solids, np.stack([covered(solid, seen).ravel() for solid in solids])


def in_front_of(seen: View, solid: Placed) -> Placed:
    """What looks to a camera that has turned or zoomed as a solid does to one that looks straight ahead."""
    zoom, (c, _, s) = seen.half / OWN.half, seen.axes[0]
    x, z = zoom * solid.x, solid.z + EYE
    return replace(solid, x=c * x - s * z, z=s * x + c * z - EYE, radius=zoom * solid.radius)


def read_colours(frame: np.ndarray, left: np.ndarray, empty: Empty) -> np.ndarray:
    """For each colour the pixels that most look like it under some light: (C, Y, X), as far as they are left.

    A lit pixel is its colour times (ambient + diffuse) plus white shine: two unknowns, solved for each colour.
    """
    if empty.style == PIXELS:
        return spread(colours_of(in_blocks(frame[None])[0] / empty.gain), left.shape) * left
    pixels = frame.astype(np.float32) / 255 / empty.gain
    errors = []
    for rgb in COLOURS.values():
        base = np.array(rgb, np.float32) / 255
        grey = base.mean()
        hue = base - grey
        lit = ((pixels - pixels.mean(-1, keepdims=True)) @ hue) / (hue @ hue)
        lit = np.clip(lit, OWN.ambient, OWN.ambient + OWN.diffuse)
        shine = np.clip(pixels.mean(-1) - lit * grey, 0, 0.5)
        errors.append(np.abs(pixels - lit[..., None] * base - shine[..., None]).sum(-1))
    best = np.argmin(errors, 0)
    return np.stack([(best == c) & left for c in range(len(COLOURS))])


def climb(
    start: Placed, score: Callable[[Placed], float], strides: Sequence[tuple[float, float, float]] = STRIDES
) -> tuple[float, Placed]:
    """Move a solid about, coarse to fine, for as long as its score rises."""
    best = (score(start), start)
    for stride in strides:
        moved = True
        while moved:
            moved = False
            for axis, sign in product(range(3), (1, -1)):
                step = [sign * stride[axis] if i == axis else 0.0 for i in range(3)]
                solid = best[1]
                if solid.radius + step[2] < SMALLEST:
                    continue
                tried = replace(solid, x=solid.x + step[0], z=solid.z + step[1], radius=solid.radius + step[2])
                if (value := score(tried)) > best[0] + 1e-6:
                    best, moved = (value, tried), True
    return best


def peel(frame: np.ndarray, empty: Empty, left: np.ndarray, known: Sequence[Placed] = ()) -> list[Placed]:
    """Solids in a frame, beyond those known, one after another."""
    seen = empty.seen
    colourless = empty.style in COLOURLESS
    edge = EDGES.get(empty.style, EDGE)
    colours = left[None] if colourless else read_colours(frame, left, empty)
    solids, masks = bank((frame.shape[0], frame.shape[1]), round(empty.height, 1))
    area = masks.sum(1)
    found: list[Placed] = []
    for solid in known:
        colours = colours * (covered(solid, seen) < 0.2)
    while len(found) + len(known) < MOST:
        flat = colours.reshape(len(colours), -1).astype(np.float32)
        others = flat.max(0)[:, None] - flat.T  # (Y X, C): what another solid may hide
        scores = masks @ (2 * flat.T + 0.6 * others) - area[:, None]
        k, c = np.unravel_index(scores.argmax(), scores.shape)
        if scores[k, c] < LEAST:
            break
        colour = list(COLOURS)[int(c)]
        own, other = flat[c], others[:, c]

        def overlap(solid: Placed, own: np.ndarray = own, other: np.ndarray = other) -> float:
            mask = covered(solid, seen).ravel()
            return float(mask @ (2 * own + 0.6 * other - 1))

        tried = []
        for shape in SHAPES:
            of_shape = [i for i, solid in enumerate(solids) if solid.shape == shape]
            start = solids[of_shape[int(scores[of_shape, c].argmax())]]
            tried.append(climb(in_front_of(seen, replace(start, colour=colour)), overlap))
        if max(tried, key=lambda t: t[0])[0] <= 0:
            break
        likely = [way for _, solid in tried for way in (solid, *of_true_size(solid, empty.height))]
        if colourless:
            tints = GRAYS
        else:
            alike = flat @ covered(max(tried, key=lambda t: t[0])[1], seen).ravel()
            tints = tuple(name for name, share in zip(COLOURS, alike, strict=True) if share >= ALIKE * alike[c])
        likely = [replace(solid, colour=colour) for solid in likely for colour in tints]
        solid = fit_one(frame, empty, [*known, *found], likely)
        found.append(solid)
        colours = colours * (covered(grown(solid, edge), seen) < 0.1)
        if empty.style == GRAYSCALE:
            colours = colours * (np.abs(frame - best_lit(frame, empty, [*known, *found])[0]).max(-1) > GRAYS_NEAR)
    return fit_again(frame, empty, known, found)


def of_true_size(solid: Placed, height: float) -> list[Placed]:
    """The same solid, about where it is in a picture from so high, of those sizes that are not far from its own."""
    sizes = [size * scale for size in SIZES.values() for scale in (SHRUNK, 1.0, GROWN)]
    near = [size for size in sizes if abs(np.log(size / solid.radius)) < UNSURE]
    depths = [(solid.z + EYE) * (height - size) / (height - solid.radius) for size in near]
    return [replace(solid, radius=size, z=depth - EYE) for size, depth in zip(near, depths, strict=True)]


def fit_again(frame: np.ndarray, empty: Empty, known: Sequence[Placed], found: Sequence[Placed]) -> list[Placed]:
    """Fit once more what touches another solid in the picture, which may not have been known yet."""
    seen = empty.seen
    for i, solid in enumerate(found):
        others = [*known, *found[:i], *found[i + 1 :]]
        own = covered(grown(solid), seen)
        touches = any((own * covered(grown(other), seen)).any() for other in others)
        if touches or empty.style == SKETCH:
            tints = GRAYS if empty.style in COLOURLESS else (solid.colour,)
            alike = [replace(solid, shape=shape, colour=colour) for shape in SHAPES for colour in tints]
            again = fit_one(frame, empty, others, [w for a in alike for w in (a, *of_true_size(a, empty.height))])
            found = [*found[:i], again, *found[i + 1 :]]
    return needed(frame, empty, known, found) if empty.style in COLOURLESS else list(found)


def best_lit(frame: np.ndarray, empty: Empty, solids: Sequence[Placed]) -> tuple[np.ndarray, float]:
    """A frame of these solids, (Y, X, 3) of 255, under the light that brings it closest to another; and how close."""
    soft, ways = comparable(frame[None], empty.style), []
    for azimuth in np.linspace(-0.9, 0.9, 7).tolist():
        light = Light(azimuth, empty.gain)
        drawn = empty.draw(solids, [sprite(solid, light, empty.seen) for solid in solids], light)
        ways.append((drawn.astype(np.float32), closeness(soft, comparable(drawn[None], empty.style), empty.style)))
    return max(ways, key=lambda way: way[1])


def needed(frame: np.ndarray, empty: Empty, known: Sequence[Placed], found: Sequence[Placed]) -> list[Placed]:
    """Those solids without which a frame is less well explained; the others were shadows."""

    def score(solids: Sequence[Placed]) -> float:
        return best_lit(frame, empty, [*known, *solids])[1]

    kept = list(found)
    for solid in sorted(found, key=lambda solid: solid.radius):
        rest = [other for other in kept if other is not solid]
        if score(rest) > score(kept) - SPARED:
            kept = rest
    return kept


def grown(solid: Placed, edge: float = EDGE) -> Placed:
    """The same solid a little larger, to cover its edge."""
    return replace(solid, radius=solid.radius + edge, y=solid.y - edge)


def fit_one(frame: np.ndarray, empty: Empty, others: Sequence[Placed], likely: Sequence[Placed]) -> Placed:
    """The likeliest of several solids, moved about until frame and render are closest."""
    seen, soft = empty.seen, comparable(frame[None], empty.style)

    def under(azimuth: float) -> Callable[[Placed], float]:
        light = Light(azimuth, empty.gain)
        rest = [sprite(other, light, seen) for other in others]

        def score(solid: Placed) -> float:
            drawn = empty.draw([*others, solid], [*rest, sprite(solid, light, seen)], light)
            return closeness(soft, comparable(drawn[None], empty.style), empty.style)

        return score

    ahead, lights, ways = under(0.0), [under(azimuth) for azimuth in LIGHTS], []
    for shape in sorted({solid.shape for solid in likely}):
        start = max((solid for solid in likely if solid.shape == shape), key=ahead)
        score = max(lights, key=lambda score: score(start))
        ways.append((*climb(start, score, STRIDES[:-1]), score))
    ways.sort(key=lambda way: -way[0])
    return max((climb(solid, score, STRIDES[-1:]) for _, solid, score in ways[:2]), key=lambda way: way[0])[1]
