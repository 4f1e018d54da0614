"""Questions about a scene, and their answers in the model's own words."""

from __future__ import annotations

import numpy as np

from mmcore.training.world.language import OWN, article, definite, listed, pick, say, some_thing, things
from mmcore.training.world.meaning import Said, Thing, spot
from mmcore.training.world.scene import COLOURS, SHAPES, Scene

STILL_KINDS = (
    *("count", "count shape", "number", "colour", "shape", "exists", "place", "size", "style"),
    *("where", "where", "left", "right", "front", "behind"),
)
CLIP_KINDS = (*STILL_KINDS, *("what moves",) * 3, *("does",) * 3, *("which does",) * 2, "camera")

NUMBERS = ("zero", "one", "two", "three", "four")

APART = 0.4
"""Solids whose distances from the camera differ by less are neither in front of nor behind each other."""


def question(rng: np.random.Generator, scene: Scene, clip: bool) -> tuple[str, str]:
    """A question about a scene and its answer."""
    while True:
        answered = _question(rng, scene, pick(rng, CLIP_KINDS if clip else STILL_KINDS), clip)
        if answered is not None:
            return answered


def _question(rng: np.random.Generator, scene: Scene, kind: str, clip: bool) -> tuple[str, str] | None:
    """One kind of question; None where it cannot be asked of this scene."""
    solids = scene.solids
    i = int(rng.integers(len(solids)))
    solid, thing = solids[i], some_thing(rng, scene, i, it=False)
    if kind == "count":
        return say(rng, kind), NUMBERS[len(solids)]
    if kind in ("count shape", "number"):
        shape = pick(rng, (solid.shape, pick(rng, SHAPES)))
        count = sum(s.shape == shape for s in solids)
        if kind == "count shape":
            return say(rng, kind, shape=shape), NUMBERS[count]
        asked = count if rng.random() < 0.5 else int(rng.integers(1, 4))
        return say(rng, kind, number=NUMBERS[asked], shape=shape), _yes(asked == count)
    if kind == "colour":
        thing = Thing(None, solid.shape)
        return (say(rng, kind, thing=thing), solid.colour) if thing in things(scene, i) else None
    if kind == "shape":
        thing = Thing(solid.colour)
        return (say(rng, kind, thing=thing), article(solid.shape)) if thing in things(scene, i) else None
    if kind == "exists":
        asked = Said(solid.shape, solid.colour)
        if rng.random() < 0.5:
            asked = Said(pick(rng, SHAPES), pick(rng, tuple(COLOURS)))
        there = any((s.shape, s.colour) == (asked.shape, asked.colour) for s in solids)
        return say(rng, kind, solid=asked), _yes(there)
    if kind == "place":
        return say(rng, kind), OWN["place"][scene.backdrop]
    if kind == "where":
        return say(rng, kind, thing=thing), spot(solid.x, solid.z)
    if kind == "size":
        return None if solid.motion in ("grow", "shrink") else (say(rng, kind, thing=thing), solid.size)
    if kind == "what moves":
        movers = [definite(s) for s in solids if s.motion != "still"]
        return say(rng, kind), listed(movers) if movers else "nothing moves"
    if kind == "which does":
        return say(rng, kind, does=solid.motion), listed([definite(s) for s in solids if s.motion == solid.motion])
    if kind == "style":
        return say(rng, kind), OWN["style"][scene.style]
    if kind == "camera":
        return say(rng, kind), f"it {OWN['camera'][scene.camera]}"
    if kind == "does":
        return say(rng, kind, thing=thing), f"it {OWN['does'][solid.motion]}"
    return _relation(rng, scene, i, thing, kind, clip)


def _relation(
    rng: np.random.Generator, scene: Scene, i: int, thing: Thing, kind: str, clip: bool
) -> tuple[str, str] | None:
    """Whether one solid stands left or right of another, before or behind it, at the beginning."""
    solids = scene.solids
    if len(solids) == 1:
        return None
    j = (i + 1 + int(rng.integers(len(solids) - 1))) % len(solids)
    other = some_thing(rng, scene, j, it=False)
    if kind in ("front", "behind"):
        if abs(solids[i].z - solids[j].z) < APART or (clip and (solids[i].motion, solids[j].motion) != ("still",) * 2):
            return None
        true = (solids[i].z < solids[j].z) == (kind == "front")
    else:
        true = (i < j) == (kind == "left")
    return say(rng, kind, thing=thing, other=other), _yes(true)


def in_both(rng: np.random.Generator, one: Scene, other: Scene) -> tuple[str, str]:
    """Whether two scenes both show a solid, and the answer."""
    solids = (one if rng.random() < 0.5 else other).solids
    solid = solids[int(rng.integers(len(solids)))]
    there = all(any((s.shape, s.colour) == (solid.shape, solid.colour) for s in scene.solids) for scene in (one, other))
    return say(rng, "in both", solid=Said(solid.shape, solid.colour)), _yes(there)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
