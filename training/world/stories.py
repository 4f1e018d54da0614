"""Tasks that tell on: a clip that goes on where another ends, and stories told in sentences, pictures and clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmcore.document import Video
from mmcore.training.world.language import DOES, caption, pick
from mmcore.training.world.render import render
from mmcore.training.world.scene import MOTIONS, Scene, fits, sample_scene
from mmcore.training.world.shown import (
    FIRST,
    FPS,
    FRAMES,
    LAST,
    SIZE,
    THEN,
    Lines,
    Shown,
    draw,
    given_with,
    user,
    with_sentence,
)
from mmcore.training.world.wear import worn

GO_ON = (
    "what happens next?",
    "go on",
    "continue this clip",
    "continue.",
    "how does it go on?",
    "film the rest",
    "show me what comes next",
    "and then?",
)

TELL = (
    "tell a story: first {}, then {}, at last {}",
    "a story in three pictures: {}; then {}; in the end {}",
    "show me this story: there is {}, then {}, and finally {}",
    "first {}, then {}, and then {}: tell it with pictures",
)

HAPPENINGS = tuple(motion for motion in MOTIONS if motion not in ("still", "appear"))
"""Motions of what was there before."""

ABRUPT = ("appear", "vanish")
"""Motions that the first half of a clip does not tell."""


def continuation(rng: np.random.Generator, _: bool) -> Lines:
    """The first half of a clip to the second."""
    while True:
        shown = replace(draw(rng, True), after=FRAMES // 2)
        if not any(solid.motion in ABRUPT for solid in shown.scene.solids):
            break
    first = Video(worn(rng, render(shown.scene, FRAMES, SIZE)[: shown.after]), FPS)
    return (*given_with(rng, first, pick(rng, GO_ON)), shown.written()), (shown,)


def story(rng: np.random.Generator, _: bool) -> Lines:
    """What happens, told in three parts, to a sentence and a picture or a clip for each."""
    start = sample_scene(rng, moving=False, solids=int(rng.integers(1, 3)))
    second, told_second = _happening(rng, start)
    third, told_third = _happening(rng, start)
    asked = pick(rng, TELL).format(caption(start, False), told_second, told_third)
    first = Shown(start, False)
    shown = (first, Shown(second, True, before=start), Shown(third, True, before=start))
    lines = [with_sentence(part, words) for part, words in zip(shown, (FIRST, THEN, LAST), strict=True)]
    return (user(rng, asked), *(segment for line in lines for segment in line)), shown


def _happening(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str]:
    """A scene with one of its solids set in motion, and how one tells that."""
    while True:
        i = int(rng.integers(len(scene.solids)))
        solid = replace(scene.solids[i], motion=pick(rng, HAPPENINGS))
        if fits(moved := scene.swap(i, solid)):
            return moved, f"the {solid.name} {DOES[solid.motion]}"
