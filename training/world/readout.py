"""From pixels back to a scene, by analysis and synthesis with the renderer. Nothing here is learnt.

    found = read_scene(frames)               # (T, Y, X, 3) uint8
    found.scene, found.error

The backdrop is the one that explains most pixels. What it does not explain is sorted by colour, and silhouettes of
solids at many places are laid over it: the best is taken, moved about until it fits, and taken out, until nothing is
left. A clip's first frame says where things are; what each does is the motion whose frames, drawn by the renderer, come
closest to the clip's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from mmcore.training.world.render import AMBIENT, DIFFUSE, background, draw, paint_mask, view
from mmcore.training.world.scene import BACKDROPS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, Solid, moments

NEAR = 22
"""Two colours are taken for the same when they are no further apart than this, of 255."""

LEAST = 10
"""Fewer pixels of a colour than this are no solid."""

STEPS = (0.12, 0.04, 0.015)
"""How far a solid is moved about while it is fitted, in units of the ground."""

LIGHTS = (-0.75, -0.25, 0.25, 0.75)


@dataclass(frozen=True)
class Found:
    """What a clip shows.

    Args:
        scene: the scene that explains it best.
        error: mean distance between the clip and the scene's render where solids are in either, of 255.
    """

    scene: Scene
    error: float


@dataclass(frozen=True)
class Placed:
    """A solid at one moment: `radius` is its size in units of the ground."""

    shape: str
    colour: str
    x: float
    z: float
    radius: float
