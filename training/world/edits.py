"""Edits: an instruction, and the scene that it leads to. Whatever it does not name stays as it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmcore.training.world.language import DO, noun, pick, refer
from mmcore.training.world.scene import BACKDROPS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, Solid, fits

KINDS = ("recolour", "recolour", "reshape", "resize", "remove", "add", "backdrop")
CLIP_KINDS = (*KINDS, "motion", "motion", "stop")

BACKGROUND_FORMS = {
    "gray room": ("put it in a gray room", "change the background to a gray room"),
    "blue sky": ("put it under a blue sky", "change the background to a blue sky"),
    "night": ("make it night", "change the background to night"),
    "green field": ("put it in a green field", "change the background to a green field"),
}


@dataclass(frozen=True)
class Edit:
    """What was asked, and the scene that it leads to."""

    instruction: str
    scene: Scene


def sample_edit(rng: np.random.Generator, scene: Scene, clip: bool, only: str | None = None) -> Edit:
    """Draw an edit that this scene allows.

    Args:
        rng: decides everything.
        scene: what is to be edited.
        clip: whether it is seen as a clip, whose motions can be edited too.
        only: a kind of edit, where not any will do.
    """
    while True:
        kind = pick(rng, CLIP_KINDS if clip else KINDS) if only is None else only
        i = int(rng.integers(len(scene.solids)))
        edit = _edit(rng, scene, i, kind)
        if edit is None:
            continue
        names = [s.name for s in edit.scene.solids]
        if len(set(names)) == len(names) and fits(edit.scene) and edit.scene != scene:
            return edit


def animate(rng: np.random.Generator, scene: Scene) -> Edit | None:
    """An instruction that sets one solid of a scene at rest in motion; None where no motion has room."""
    for _ in range(8):
        i = int(rng.integers(len(scene.solids)))
        edit = _edit(rng, scene, i, "motion")
        if edit is not None and edit.scene.solids[i].motion not in ("still", "appear") and fits(edit.scene):
            return edit
    return None


def _edit(rng: np.random.Generator, scene: Scene, i: int, kind: str) -> Edit | None:
    """One kind of edit of solid i; None where it means nothing here."""
    solid, named = scene.solids[i], refer(rng, scene, i)
    if kind == "recolour":
        colour = pick(rng, tuple(COLOURS))
        form = pick(rng, ("make {} {}", "make {} {}", "paint {} {}", "turn {} {}", "change the colour of {} to {}"))
        return Edit(form.format(named, colour), scene.swap(i, replace(solid, colour=colour)))
    if kind == "reshape":
        shape = pick(rng, SHAPES)
        form = pick(rng, ("turn {} into a {}", "make {} a {}", "replace {} by a {}"))
        return Edit(form.format(named, shape), scene.swap(i, replace(solid, shape=shape)))
    if kind == "resize":
        if solid.motion in ("grow", "shrink"):
            return None
        size = "large" if solid.size == "small" else "small"
        word = pick(rng, (size, {"large": "bigger", "small": "smaller"}[size]))
        return Edit(f"make {named} {word}", scene.swap(i, replace(solid, size=size)))
    if kind == "remove":
        if len(scene.solids) == 1:
            return None
        return Edit(pick(rng, ("remove {}", "take {} away", "delete {}")).format(named), scene.without(i))
    if kind == "add":
        return _add(rng, scene)
    if kind == "backdrop":
        backdrop = pick(rng, BACKDROPS)
        return Edit(pick(rng, BACKGROUND_FORMS[backdrop]), replace(scene, backdrop=backdrop))
    motion = "still" if kind == "stop" else pick(rng, MOTIONS)
    return Edit(f"make {named} {pick(rng, DO[motion])}", scene.swap(i, replace(solid, motion=motion)))


def _add(rng: np.random.Generator, scene: Scene) -> Edit | None:
    """Add a solid at one end of the row; None where there is no room."""
    if len(scene.solids) == 3:
        return None
    side = pick(rng, ("left", "right"))
    x = rng.uniform(0.6, 1.3) * (-1 if side == "left" else 1)
    z = rng.uniform(-0.5, 1.2)
    new = Solid(pick(rng, SHAPES), pick(rng, tuple(COLOURS)), pick(rng, tuple(SIZES)), x, z)
    solids = (new, *scene.solids) if side == "left" else (*scene.solids, new)
    if [s.x for s in solids] != sorted(s.x for s in solids):
        return None
    form = pick(rng, ("add {} on the {}", "put {} on the {}"))
    return Edit(form.format(noun(new), side), replace(scene, solids=solids))
