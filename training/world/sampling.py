"""Scenes, drawn at random: on one side of the split, or on the other (see `heldout`).

sample_scene(Dice(0), moving=True)
"""

from __future__ import annotations

import numpy as np

from mmcore.training.world.heldout import Dice, draws_pairs, holds_pair
from mmcore.training.world.scene import (
    BACKDROPS,
    COLOURS,
    MOTIONS,
    ROOM,
    SHAPES,
    SIZES,
    SLIDES,
    Scene,
    Solid,
    fits,
)


def sample_scene(rng: np.random.Generator, moving: bool, solids: int | None = None) -> Scene:
    """Draw a scene.

    Args:
        rng: decides everything. Scenes hold a pair that training never shows if it is a `Dice` that draws these, and
            none otherwise.
        moving: whether solids have motions (at least one of them, as a rule); else all are still.
        solids: how many, 1 to 3; drawn where it is None.
    """
    count = int(rng.choice((1, 2, 3), p=(0.4, 0.35, 0.25))) if solids is None else solids
    count = min(count, rng.most) if isinstance(rng, Dice) else count
    backdrop = str(rng.choice(BACKDROPS))
    light, gain = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.9, 1.08))
    while True:
        movers = rng.permutation(count) < rng.choice((1, 2), p=(0.7, 0.3))
        drawn = [_sample_solid(rng, bool(moving and mover)) for mover in movers]
        if len({solid.name for solid in drawn}) < count:
            continue
        scene = Scene(tuple(sorted(drawn, key=lambda solid: solid.x)), backdrop, light, gain)
        if fits(scene) and holds_pair(scene) == draws_pairs(rng):
            return scene


def _sample_solid(rng: np.random.Generator, mover: bool) -> Solid:
    """Draw one solid, its place such that a slide has somewhere to go."""
    motion = str(rng.choice(MOTIONS)) if mover else "still"
    (left, right), (near, far) = ROOM
    dx, dz = SLIDES.get(motion, (0.0, 0.0))
    x = rng.uniform(left - min(dx, 0), right - max(dx, 0))
    z = rng.uniform(near - min(dz, 0), far - max(dz, 0))
    return Solid(str(rng.choice(SHAPES)), str(rng.choice(tuple(COLOURS))), str(rng.choice(tuple(SIZES))), x, z, motion)
