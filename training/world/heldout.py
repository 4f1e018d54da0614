"""What is held out of training, all of it: pairs that no document shows or asks for, and one phrasing in ten.

Dice(seed)                  # draws what training sees
Dice(seed, "pairs")         # scenes, each with a pair that it never sees
Dice(seed, "phrasings")     # scenes that it might see, in words that it never reads
"""

from __future__ import annotations

import numpy as np

from mmcore.training.world.scene import Scene

SHAPE_COLOURS = frozenset(
    {
        ("cube", "cyan"),
        ("ball", "purple"),
        ("ball", "orange"),
        ("cone", "blue"),
        ("cylinder", "yellow"),
        ("cylinder", "pink"),
    }
)
MOTION_SHAPES = frozenset({("bounce", "cone"), ("grow", "cylinder"), ("vanish", "cube"), ("forward", "ball")})
EDITS = frozenset({("recolour", "pink"), ("reshape", "cone"), ("backdrop", "night")})
"""Kinds of edit, and what they lead to."""

SHARE = 10
"""One phrasing in so many is held out, the last ones of each list; one at least where there are half as many."""


class Dice(np.random.Generator):
    """A random generator that knows on which side of the split it draws, and how full scenes are to be.

    Args:
        seed: decides everything; >= 0.
        held_out: what to draw that training never sees: "pairs", "phrasings" or nothing.
        most: solids that a scene has at most, before anything is added to it.
    """

    def __init__(self, seed: int, held_out: str = "", most: int = 4) -> None:
        super().__init__(np.random.PCG64(seed))
        self.held_out, self.most = held_out, most


def draws_pairs(rng: np.random.Generator) -> bool:
    """Whether a generator draws pairs that training never sees; a plain one does not."""
    return isinstance(rng, Dice) and rng.held_out == "pairs"


def holds_pair(scene: Scene) -> bool:
    """Whether a scene shows a pair that is held out."""
    return any(is_held_out(s.shape, s.colour, s.motion) for shot in scene.shots for s in shot.solids)


def is_held_out(shape: str, colour: str, motion: str) -> bool:
    """Whether a solid shows a pair that is held out."""
    return (shape, colour) in SHAPE_COLOURS or (motion, shape) in MOTION_SHAPES


def split(rng: np.random.Generator, forms: tuple[str, ...]) -> tuple[str, ...]:
    """The phrasings of one kind that may be used."""
    held = len(forms) // SHARE or int(len(forms) >= SHARE // 2)
    if not held:
        return forms
    unseen = isinstance(rng, Dice) and rng.held_out == "phrasings"
    return forms[-held:] if unseen else forms[:-held]
