"""Scenes, drawn at random: on one side of the split, or on the other (see `heldout`).

sample_scene(Dice(0), moving=True)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmcore.training.world.heldout import Dice, draws_pairs, holds_pair, is_held_out
from mmcore.training.world.paths import CHECKED, Path, clear, fits, goes, path
from mmcore.training.world.scene import (
    ALONE,
    BACKDROPS,
    CAMERAS,
    COLOURS,
    HEIGHTS,
    ROOM,
    SHAPES,
    SIZES,
    SLIDES,
    SPINNING,
    Scene,
    Solid,
)

COUNTS = {1: 0.36, 2: 0.33, 3: 0.23, 4: 0.08}
"""How often a scene has so many solids."""

CAMERA_MOVES = 0.12
"""How often the camera moves in a clip."""

TOGETHER = 0.12
"""How often two solids that move do something with each other."""

SMALL = {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.8}
"""How often a solid is a small one where there are so many."""

TRIES = 20
"""Places that are tried for a solid before a scene is begun anew."""

PACES = 0.6, 1.2
"""The slowest and the fastest slide."""


def sample_scene(rng: np.random.Generator, moving: bool, solids: int | None = None) -> Scene:
    """Draw a scene.

    Args:
        rng: decides everything. Scenes hold a pair that training never shows if it is a `Dice` that draws these, and
            none otherwise.
        moving: whether solids have motions (at least one of them, as a rule); else all are still.
        solids: how many, 1 to 4; drawn where it is None.
    """
    count = int(rng.choice(list(COUNTS), p=list(COUNTS.values()))) if solids is None else solids
    count = min(count, rng.most) if isinstance(rng, Dice) else count
    backdrop = str(rng.choice(BACKDROPS))
    light, gain = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.9, 1.08))
    height = round(float(rng.uniform(*HEIGHTS)), 2)
    camera = pick_camera(rng) if moving else "still"
    together = ("orbit", "hit")[int(rng.integers(2))] if moving and count == 2 and rng.random() < TOGETHER else ""
    while True:
        drawn = _sample_pair(rng, together) if together else _sample_row(rng, moving, count)
        if len({solid.name for solid in drawn}) < count:
            continue
        scene = Scene(tuple(drawn), backdrop, light, gain, height, camera).in_order
        if holds_pair(scene) == draws_pairs(rng) and fits(scene):
            return scene


def pick_camera(rng: np.random.Generator) -> str:
    """What the camera does: mostly nothing."""
    return str(rng.choice(CAMERAS[1:])) if rng.random() < CAMERA_MOVES else "still"


def sample_shots(rng: np.random.Generator) -> Scene:
    """Draw a scene with a second shot, before another backdrop; one or two solids in each."""
    first, second = (sample_scene(rng, moving=True, solids=int(rng.integers(1, 3))) for _ in range(2))
    backdrop = str(rng.choice([other for other in BACKDROPS if other != first.backdrop]))
    return replace(first, then=replace(second, backdrop=backdrop))


def _sample_row(rng: np.random.Generator, moving: bool, count: int) -> list[Solid]:
    """Draw solids, one or two of them moving, each where those before it leave room; fewer where they leave none."""
    drawn: list[tuple[Solid, Path]] = []
    for mover in rng.permutation(count) < rng.choice((1, 2), p=(0.7, 0.3)):
        for _ in range(TRIES):
            solid = _sample_solid(rng, bool(moving and mover), SMALL[count])
            way = path(solid, CHECKED)
            if all(clear(way, other, (SIZES[solid.size], SIZES[known.size])) for known, other in drawn):
                drawn.append((solid, way))
                break
        else:
            break
    return [solid for solid, _ in drawn]


def _sample_solid(rng: np.random.Generator, mover: bool, small: float) -> Solid:
    """Draw one solid, small with this probability, its place such that a slide has somewhere to go."""
    while True:
        shape, colour, motion = str(rng.choice(SHAPES)), str(rng.choice(tuple(COLOURS))), "still"
        if mover:
            motion = str(rng.choice([m for m in ALONE if m != "spin" or shape in SPINNING]))
        if draws_pairs(rng) or not is_held_out(shape, colour, motion):
            break
    pace = float(rng.uniform(*PACES)) if motion in SLIDES else 1.0
    (left, right), (near, far) = ROOM
    dx, dz = goes(motion, pace)
    x = rng.uniform(left - min(dx, 0), right - max(dx, 0))
    z = rng.uniform(near - min(dz, 0), far - max(dz, 0))
    return Solid(shape, colour, "small" if rng.random() < small else "large", x, z, motion, pace)


def _sample_pair(rng: np.random.Generator, together: str) -> list[Solid]:
    """Draw one solid that circles another, or a ball that hits another."""
    a, b = _sample_solid(rng, False, SMALL[2]), _sample_solid(rng, False, SMALL[2])
    if together == "orbit":
        way, angle = rng.uniform(0.75, 0.95), rng.uniform(0, 2 * np.pi)
        b = replace(b, x=rng.uniform(-0.3, 0.3), z=rng.uniform(0.3, 0.4))
        return [replace(a, x=b.x + way * np.cos(angle), z=b.z + way * np.sin(angle), motion="orbit"), b]
    a = replace(a, shape="ball", motion="hit", pace=float(rng.uniform(0.8, PACES[1])))
    return [a, replace(b, shape="ball", z=a.z + rng.uniform(-0.12, 0.12), motion="be hit")]
