"""Tasks about clips of two shots with a cut between them: to film them, to describe them, to say what comes when."""

from __future__ import annotations

import numpy as np

from mmcore.document import Text
from mmcore.training.world.language import definite, pick, say
from mmcore.training.world.meaning import Thing
from mmcore.training.world.sampling import sample_shots
from mmcore.training.world.scene import Scene
from mmcore.training.world.shown import Line, Lines, Shown, given_with, user, with_sentence

SHOTS = ("the first", "the second")


def write_shots(rng: np.random.Generator, _: bool) -> Lines:
    """Words to a clip of two shots."""
    sized = bool(rng.random() < 0.3)
    shown = Shown(sample_shots(rng), True, (sized,) * 4, bool(rng.random() < 0.7))
    return (user(rng, say(rng, "film", scene=shown.request)), *with_sentence(shown)), (shown,)


def describe_shots(rng: np.random.Generator, _: bool) -> Lines:
    """A clip of two shots to words."""
    shown = Shown(sample_shots(rng), True)
    return (*given_with(rng, shown.given(rng), say(rng, "caption")), Text(shown.caption, True)), ()


def answer_shots(rng: np.random.Generator, _: bool) -> Lines:
    """One or two questions about a clip of two shots."""
    shown = Shown(sample_shots(rng), True)
    asked, said = question(rng, shown.scene)
    segments: list[Line] = [*given_with(rng, shown.given(rng), asked), Text(said, True)]
    for _turn in range(int(rng.integers(2))):
        asked, said = question(rng, shown.scene)
        segments += [user(rng, asked), Text(said, True)]
    return tuple(segments), ()


def question(rng: np.random.Generator, scene: Scene) -> tuple[str, str]:
    """A question about the shots of a scene that has two, and its answer."""
    once = [[s for s in shot.solids if all(s.name != o.name for o in other.solids)] for shot, other in _each(scene)]
    kind = pick(rng, ("which shot", "which shot", "which first", "which first", "shots")) if all(once) else "shots"
    if kind == "shots":
        return say(rng, kind), "two"
    first, second = (solids[int(rng.integers(len(solids)))] for solids in once)
    things = [Thing(solid.colour, solid.shape) for solid in (first, second)]
    which = int(rng.integers(2))
    if kind == "which shot":
        return say(rng, kind, thing=things[which]), SHOTS[which]
    return say(rng, kind, thing=things[which], other=things[1 - which]), definite(first)


def _each(scene: Scene) -> tuple[tuple[Scene, Scene], ...]:
    """Each shot with the other one."""
    first, second = scene.shots
    return (first, second), (second, first)
