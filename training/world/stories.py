"""Tasks that tell on: a clip that goes on where another ends, and stories told in sentences, pictures and clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmcore.training.world.heldout import draws_pairs, holds_pair, split
from mmcore.training.world.language import describe, name, pick, say
from mmcore.training.world.meaning import meaning
from mmcore.training.world.paths import fits
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import ALONE, Scene
from mmcore.training.world.shown import (
    FIRST,
    LAST,
    THEN,
    Lines,
    Shown,
    draw,
    given_with,
    user,
    with_sentence,
)
from mmcore.training.world.take import FRAMES, Take
from mmcore.training.world.wear import sample_wear

TELL = (
    "tell a story: first {}, then {}, at last {}",
    "a story in three pictures: {}; then {}; in the end {}",
    "show me this story: there is {}, then {}, and finally {}",
    "first {}, then {}, and then {}: tell it with pictures",
    "illustrate this: {}; after that {}; at the end {}",
    "draw and film a story: {}, then {}, and at last {}",
    "in the first picture {}, in the second {}, in the third {}",
    "draw {}, film how {}, and film how at last {}",
    "i want a story: {}, then {}, and finally {}",
    "make a story of this: {}; next {}; in the end {}",
    "show first {}, next how {} and in the end how {}",
    "with pictures: {}, then {}, and at last {}",
    "three pictures, please: first {}, second {}, third {}",
    "here is a story: {}, and then {}, and at last {}",
    "at first {}, then {}, and in the end {}: show it",
    "begin with {}, go on with {}, and end with {}",
    "a story with a clip in it: {}; then {}; and at last {}",
    "can you tell a story in which {}, then {}, and finally {}?",
    "tell me how {}, how then {} and how at last {}",
)

HAPPENINGS = tuple(motion for motion in ALONE if motion not in ("still", "appear"))
"""Motions of what was there before."""

ABRUPT = ("appear", "vanish")
"""Motions that the first half of a clip does not tell."""


def continuation(rng: np.random.Generator, _: bool) -> Lines:
    """The first half of a clip to the second."""
    while True:
        shown = draw(rng, True)
        if not any(solid.motion in ABRUPT for solid in shown.scene.solids):
            return _second_half(rng, shown)


def uniform_motion(rng: np.random.Generator, _: bool) -> Lines:
    """The first half of a slide to the left or right, to the second; see `physics`."""
    while True:
        scene = sample_scene(rng, moving=True, solids=1)
        if scene.solids[0].motion in ("left", "right"):
            return _second_half(rng, Shown(replace(scene, camera="still"), True))


def _second_half(rng: np.random.Generator, shown: Shown) -> Lines:
    """The first half of a clip, to be gone on with."""
    shown = replace(shown, after=FRAMES // 2)
    first = Take(shown.scene, True, frames=range(shown.after), wear=sample_wear(rng))
    return (*given_with(rng, first, say(rng, pick(rng, ("go on", "next")))), shown.take), (shown,)


def story(rng: np.random.Generator, _: bool) -> Lines:
    """What happens, told in three parts, to a sentence and a picture or a clip for each."""
    start = sample_scene(rng, moving=False, solids=int(rng.integers(1, 3)))
    second, told_second = _happening(rng, start)
    third, told_third = _happening(rng, start)
    told_first = describe(rng, meaning(start, False))
    asked = pick(rng, split(rng, TELL)).format(told_first, told_second, told_third)
    first = Shown(start, False)
    shown = (first, Shown(second, True, before=start), Shown(third, True, before=start))
    lines = [with_sentence(part, words) for part, words in zip(shown, (FIRST, THEN, LAST), strict=True)]
    return (user(rng, asked), *(segment for line in lines for segment in line)), shown


def _happening(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str]:
    """A scene with one of its solids set in motion, and how one tells that."""
    while True:
        i = int(rng.integers(len(scene.solids)))
        solid = replace(scene.solids[i], motion=pick(rng, HAPPENINGS))
        moved = scene.swap(i, solid)
        if fits(moved) and (draws_pairs(rng) or not holds_pair(moved)):
            return moved, f"the {solid.name} {name(rng, 'does', solid.motion)}"
