"""From pixels back to a scene, by analysis and synthesis with the renderer. Nothing here is learnt.

    found = read_scene(frames)               # (T, Y, X, 3) uint8
    found.scene, found.error

1. The backdrop is the one that explains most pixels; what it leaves over is sorted by colour.
2. Silhouettes of solids at many places (`Bank`) are laid over what is left: the best is moved about until it fits, and
   taken out, until nothing is left. So the first frame says where things are.
3. What each does is the motion whose frames, drawn by the renderer, come closest to the clip's. What only the last
   frame shows has appeared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from mmcore.training.world.render import (
    AMBIENT,
    DIFFUSE,
    RAYS,
    SHADOW,
    Light,
    Placed,
    background,
    compose,
    placed,
    render_moments,
    sprite,
    view,
)
from mmcore.training.world.scene import BACKDROPS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, Solid, moments, path

NEAR = 24
"""Colours no further apart than this, of 255, are taken for the same."""

LEAST = 6
"""A solid explains at least so many pixels more than it covers wrongly."""

MOST = 3
"""Solids in a scene."""

FAR = 60
"""Errors of a pixel count no more than this, of 255."""

LIGHTS = (-0.7, -0.25, 0.25, 0.7)
STRIDES = ((0.1, 0.2, 0.05), (0.04, 0.08, 0.02), (0.015, 0.03, 0.008))
"""How far (x, z, radius) are moved while a solid is fitted, coarse to fine."""


@dataclass(frozen=True)
class Found:
    """What a clip shows.

    Args:
        scene: the scene that explains it best.
        error: mean distance between the clip and that scene's render, over the pixels of solids in either, of 255.
    """

    scene: Scene
    error: float


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Rays to pixels: (RAYS Y, RAYS X, ...) -> (Y, X, ...) means."""
    y, x = picture.shape[0] // RAYS, picture.shape[1] // RAYS
    return picture.reshape(y, RAYS, x, RAYS, *picture.shape[2:]).mean((1, 3))


def covered(solid: Placed, size: tuple[int, int]) -> np.ndarray:
    """(Y, X) share of each pixel that a solid covers."""
    seen = view(size)
    full = np.zeros(seen.ground.shape, np.float32)
    if (drawn := sprite(solid, Light(0, 1), seen)) is not None:
        full[drawn.where] = drawn.mask
    return shrunk(full)


@lru_cache(maxsize=2)
def bank(size: tuple[int, int]) -> tuple[list[Placed], np.ndarray]:
    """Solids at many places and sizes, and what each covers, (K, Y X)."""
    places = product(
        SHAPES, np.linspace(-1.4, 1.4, 15), np.linspace(-0.6, 1.4, 8), (0.12, 0.18, 0.24, 0.32, 0.42, 0.55, 0.66)
    )
    solids = [Placed(shape, "red", x, 0.0, z, radius) for shape, x, z, radius in places]
    return solids, np.stack([covered(solid, size).ravel() for solid in solids])


@dataclass(frozen=True)
class Empty:
    """A backdrop without solids: its name, its gain, and its pixels (RAYS Y, RAYS X, 3)."""

    backdrop: str
    gain: float
    back: np.ndarray


def read_backdrop(frame: np.ndarray) -> tuple[Empty, np.ndarray]:
    """The backdrop that explains most of a frame (Y, X, 3), and which pixels it leaves over, (Y, X) bool."""
    size = frame.shape[:2]
    seen = view((size[0], size[1]))
    pixels = frame.astype(np.float32) / 255
    found: list[tuple[int, Empty, np.ndarray]] = []
    for name in BACKDROPS:
        back = background(name, seen)
        small = shrunk(back)
        sky = slice(0, size[0] // 5)
        gain = float(np.median((pixels[sky] * small[sky]).sum(-1) / np.square(small[sky]).sum(-1)))
        expected = gain * small
        shade = (pixels * expected).sum(-1) / np.square(expected).sum(-1)
        shade = np.where(shrunk(seen.ground.astype(np.float32)) > 0.5, np.clip(shade, 1 - SHADOW, 1), 1)
        left = np.abs(pixels - shade[..., None] * expected).max(-1) > NEAR / 255
        found.append((int(left.sum()), Empty(name, gain, back * np.float32(gain)), left))
    _, empty, left = min(found, key=lambda f: f[0])
    return empty, left


def read_colours(frame: np.ndarray, left: np.ndarray, gain: float) -> np.ndarray:
    """For each colour the pixels that most look like it under some light: (C, Y, X) bool, within `left`.

    A lit pixel is its colour times (ambient + diffuse) plus white shine: two unknowns, solved for each colour.
    """
    pixels = frame.astype(np.float32) / 255 / gain
    errors = []
    for rgb in COLOURS.values():
        base = np.array(rgb, np.float32) / 255
        grey = base.mean()
        spread = base - grey
        lit = np.clip(
            ((pixels - pixels.mean(-1, keepdims=True)) @ spread) / (spread @ spread), AMBIENT, AMBIENT + DIFFUSE
        )
        shine = np.clip(pixels.mean(-1) - lit * grey, 0, 0.5)
        errors.append(np.abs(pixels - lit[..., None] * base - shine[..., None]).sum(-1))
    best = np.argmin(errors, 0)
    return np.stack([(best == c) & left for c in range(len(COLOURS))])


def climb(start: Placed, score: Callable[[Placed], float]) -> tuple[float, Placed]:
    """Move a solid about, coarse to fine, for as long as its score rises."""
    best = (score(start), start)
    for stride in STRIDES:
        moved = True
        while moved:
            moved = False
            for axis, sign in product(range(3), (1, -1)):
                step = [sign * stride[axis] if i == axis else 0.0 for i in range(3)]
                solid = best[1]
                if solid.radius + step[2] < 0.08:
                    continue
                tried = replace(solid, x=solid.x + step[0], z=solid.z + step[1], radius=solid.radius + step[2])
                if (value := score(tried)) > best[0] + 1e-6:
                    best, moved = (value, tried), True
    return best


def closeness(frame: np.ndarray, other: np.ndarray) -> float:
    """Minus the mean distance of two pictures or clips, of 255, no pixel counting for more than FAR."""
    far = np.abs(frame.astype(np.float32) - other.astype(np.float32)).mean(-1)
    return -float(np.minimum(far, FAR).mean())


def peel(frame: np.ndarray, empty: Empty, left: np.ndarray, known: Sequence[Placed] = ()) -> list[Placed]:
    """Solids in a frame, beyond those known, one after another."""
    size = (frame.shape[0], frame.shape[1])
    colours = read_colours(frame, left, empty.gain)
    solids, masks = bank(size)
    area = masks.sum(1)
    found: list[Placed] = []
    for solid in known:
        colours = colours & (covered(solid, size) < 0.2)
    while len(found) + len(known) < MOST:
        flat = colours.reshape(len(colours), -1).astype(np.float32)
        others = flat.sum(0)[:, None] - flat.T  # (Y X, C): what another solid may hide
        scores = 2 * masks @ flat.T + 0.6 * masks @ others - area[:, None]
        k, c = np.unravel_index(scores.argmax(), scores.shape)
        if scores[k, c] < LEAST:
            break
        colour = list(COLOURS)[int(c)]
        own, other = flat[c], others[:, c]

        def overlap(solid: Placed, own: np.ndarray = own, other: np.ndarray = other) -> float:
            mask = covered(solid, size).ravel()
            return float(2 * mask @ own + 0.6 * mask @ other - mask.sum())

        tried = []
        for shape in SHAPES:
            of_shape = [i for i, solid in enumerate(solids) if solid.shape == shape]
            start = of_shape[int(scores[of_shape, c].argmax())]
            tried.append(climb(replace(solids[start], colour=colour), overlap))
        best = max(tried, key=lambda t: t[0])[0]
        likely = [solid for value, solid in tried if value > 0.75 * best]
        solid = fit_one(frame, empty, [*known, *found], likely)
        found.append(solid)
        colours = colours & (covered(grown(solid), size) < 0.1)
    return found


def grown(solid: Placed) -> Placed:
    """The same solid a little larger, to cover its soft edge."""
    return replace(solid, radius=solid.radius + 0.04, y=solid.y - 0.04)


def fit_one(frame: np.ndarray, empty: Empty, others: Sequence[Placed], likely: Sequence[Placed]) -> Placed:
    """The likeliest of several solids, moved about until frame and render are closest."""
    size = (frame.shape[0], frame.shape[1])
    ways = []
    for solid, azimuth in product(likely, LIGHTS):
        light = Light(azimuth, empty.gain)
        rest = [sprite(other, light, view(size)) for other in others]

        def score(solid: Placed, light: Light = light, rest: list = rest) -> float:
            return closeness(
                frame, compose(empty.back, [*others, solid], [*rest, sprite(solid, light, view(size))], light)
            )

        ways.append((score(solid), solid, score))
    ways.sort(key=lambda way: -way[0])
    return max((climb(solid, score) for _, solid, score in ways[:2]), key=lambda t: t[0])[1]


def read_light(frame: np.ndarray, empty: Empty, solids: Sequence[Placed]) -> float:
    """The azimuth under which a frame's solids look most as they do."""

    def score(azimuth: float) -> float:
        light = Light(azimuth, empty.gain)
        seen = view((frame.shape[0], frame.shape[1]))
        return closeness(frame, compose(empty.back, solids, [sprite(s, light, seen) for s in solids], light))

    return max(np.linspace(-0.9, 0.9, 13).tolist(), key=score)


def nearest_size(radius: float) -> str:
    """The size whose radius is nearest, by ratio."""
    return min(SIZES, key=lambda name: abs(np.log(SIZES[name] / radius)))


def guesses(solid: Placed) -> Iterator[Solid]:
    """What a solid of a first frame may be: each motion, with the size that it then has."""
    for motion in MOTIONS:
        if motion == "appear":
            continue
        scale = {"grow": 0.45, "shrink": 1.2}.get(motion, 1.0)
        size = nearest_size(solid.radius / scale)
        if abs(np.log(SIZES[size] * scale / solid.radius)) < 0.25:
            yield Solid(solid.shape, solid.colour, size, solid.x, solid.z, motion)


def at_rest(solid: Placed, motion: str) -> Solid:
    """A solid of about this size."""
    return Solid(solid.shape, solid.colour, nearest_size(solid.radius), solid.x, solid.z, motion)


def read_scene(frames: np.ndarray) -> Found:
    """Read a still or a clip.

    Args:
        frames: (T, Y, X, 3) uint8; one frame is a still.
    """
    empty, left = read_backdrop(frames[0])
    first = peel(frames[0], empty, left)
    azimuth = read_light(frames[0], empty, first) if first else 0.0
    scene = Scene(tuple(at_rest(s, "still") for s in first), empty.backdrop, azimuth, empty.gain)
    if len(frames) > 1:
        scene = read_motions(frames, scene, first, empty)
    scene = replace(scene, solids=tuple(sorted(scene.solids, key=lambda s: s.x)))
    return Found(scene, distance(frames, scene, left))


def read_motions(frames: np.ndarray, scene: Scene, first: Sequence[Placed], empty: Empty) -> Scene:
    """What each solid of a clip's first frame does, and what has appeared by its last frame."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))
    s, size = moments(len(frames))[chosen], (frames.shape[1], frames.shape[2])

    def score(tried: Scene) -> float:
        return closeness(frames[chosen], render_moments(tried, s, size))

    for _round in range(2 if len(first) > 1 else 1):
        for i, solid in enumerate(first):
            tried = [scene.swap(i, guess) for guess in guesses(solid)] or [scene]
            scene = max(tried, key=score)
    last, left = frames[-1], read_backdrop(frames[-1])[1]
    there = [replace(p, radius=p.radius + 0.05) for p in last_places(scene)]
    new = peel(last, empty, left, there)
    return replace(scene, solids=(*scene.solids, *(at_rest(solid, "appear") for solid in new)))


def last_places(scene: Scene) -> list[Placed]:
    """Where a scene's solids are in a clip's last frame."""
    return [placed(solid, path(solid, np.ones(1)), 0) for solid in scene.solids]


def distance(frames: np.ndarray, scene: Scene, left: np.ndarray) -> float:
    """Mean distance between a clip and a scene's render over the pixels of solids in either."""
    size = (frames.shape[1], frames.shape[2])
    drawn = render_moments(scene, moments(len(frames)), size)
    empty = render_moments(replace(scene, solids=()), np.zeros(1), size)
    either = (np.abs(drawn.astype(int) - empty).max(-1) > NEAR) | (np.abs(frames.astype(int) - empty).max(-1) > NEAR)
    far = np.abs(drawn.astype(np.float32) - frames.astype(np.float32)).mean(-1)
    return float(far[either].mean()) if either.any() else 0.0
