"""Edits: an instruction, and the scene that it leads to. Whatever it does not name stays as it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmcore.errors import MMCoreError
from mmcore.training.world.heldout import EDITS, draws_pairs, holds_pair
from mmcore.training.world.language import pick, say, some_thing
from mmcore.training.world.meaning import ACROSS, middle_of, said, spot
from mmcore.training.world.paths import fits, goes
from mmcore.training.world.scene import (
    ALONE,
    BACKDROPS,
    COLOURLESS,
    COLOURS,
    SHAPES,
    SIZES,
    STYLES,
    TOGETHER,
    Scene,
    Solid,
)
from mmcore.training.world.styles import stands_out

KINDS = ("recolour",) * 3 + ("reshape", "reshape", "resize", "remove", "add", "move", "backdrop", "restyle", "swap")
CLIP_KINDS = (*KINDS, *("motion",) * 3, "stop", "reverse")

REVERSED = {
    a: b
    for pair in (
        ("left", "right"),
        ("forward", "backward"),
        ("fly left", "fly right"),
        ("grow", "shrink"),
        ("appear", "vanish"),
    )
    for a, b in (pair, pair[::-1])
}
"""What each motion becomes when time runs backwards; the others look the same, but for ONE_WAY."""

ONE_WAY = ("spin", *TOGETHER)
"""Motions whose reverse has no name."""

TRIES = 500
"""So many edits are drawn before a scene is taken to allow none."""


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
    Raises:
        MMCoreError: no edit was found.
    """
    edit = find_edit(rng, scene, clip, only)
    if edit is None:
        raise MMCoreError(f"nothing can be changed about {scene}; draw another scene")
    return edit


def find_edit(rng: np.random.Generator, scene: Scene, clip: bool, only: str | None = None) -> Edit | None:
    """As `sample_edit`; None where nothing is found, as for balls that meet, in grayscale at night."""
    for _ in range(TRIES):
        kind = pick(rng, CLIP_KINDS if clip else KINDS) if only is None else only
        i = int(rng.integers(len(scene.solids)))
        edit = _edit(rng, scene, i, kind)
        if edit is not None and _allowed(rng, scene, edit):
            return edit
    return None


def animate(rng: np.random.Generator, scene: Scene) -> Edit | None:
    """An instruction that sets one solid of a scene at rest in motion; None where no motion has room."""
    for _ in range(8):
        i = int(rng.integers(len(scene.solids)))
        edit = _edit(rng, scene, i, "motion")
        moved = edit is not None and edit.scene.solids[i].motion not in ("still", "appear")
        if edit is not None and moved and _allowed(rng, scene, edit):
            return edit
    return None


def _allowed(rng: np.random.Generator, before: Scene, edit: Edit) -> bool:
    """Whether an edit changes something, leaves a scene that fits, and shows no pair that is held out."""
    names = [s.name for s in edit.scene.solids]
    whole = len(set(names)) == len(names) and stands_out(edit.scene) and fits(edit.scene) and edit.scene != before
    return whole and (draws_pairs(rng) or not holds_pair(edit.scene))


def _edit(rng: np.random.Generator, scene: Scene, i: int, kind: str) -> Edit | None:
    """One kind of edit of solid i; None where it means nothing here, or is held out."""
    solid, thing = scene.solids[i], some_thing(rng, scene, i)

    def to(kind: str, options: tuple[str, ...]) -> str:
        return pick(rng, [o for o in options if ((kind, o) in EDITS) == draws_pairs(rng)])

    if kind == "recolour":
        if scene.style in COLOURLESS:
            return None
        colour = to(kind, tuple(COLOURS))
        return Edit(say(rng, kind, thing=thing, colour=colour), scene.swap(i, replace(solid, colour=colour)))
    if kind == "reshape":
        shape = to(kind, SHAPES)
        return Edit(say(rng, kind, thing=thing, shape=shape), scene.swap(i, replace(solid, shape=shape)))
    if kind == "resize":
        if solid.motion in ("grow", "shrink"):
            return None
        size = "large" if solid.size == "small" else "small"
        words = say(rng, "enlarge" if size == "large" else "reduce", thing=thing)
        return Edit(words, scene.swap(i, replace(solid, size=size)))
    if kind == "remove":
        return None if len(scene.solids) == 1 else Edit(say(rng, kind, thing=thing), scene.without(i))
    if kind == "add":
        return _add(rng, scene)
    if kind == "move":
        part = pick(rng, ACROSS)
        moved = scene.swap(i, replace(solid, x=middle_of(part)))
        if spot(solid.x, solid.z).startswith(f"{part},"):
            return None
        return Edit(say(rng, kind, thing=thing, part=part), moved.in_order)
    if kind == "restyle":
        restyled = replace(scene, style=pick(rng, STYLES[1:]))
        if scene.style != "plain":
            return None
        return Edit(say(rng, kind, style=restyled.style), restyled)
    if kind == "swap":
        return _swap(rng, scene, i)
    if kind == "reverse":
        return _reverse(rng, scene)
    if kind == "backdrop":
        backdrop = to(kind, BACKDROPS)
        return Edit(say(rng, kind, place=backdrop), replace(scene, backdrop=backdrop))
    motion = "still" if kind == "stop" else pick(rng, (*ALONE, "orbit") if len(scene.solids) == 2 else ALONE)
    if motion == solid.motion:
        return None
    return Edit(say(rng, "motion", thing=thing, do=motion), scene.swap(i, replace(solid, motion=motion, pace=1.0)))


def _add(rng: np.random.Generator, scene: Scene) -> Edit | None:
    """Add a solid at one end of the row; None where there is no room."""
    if len(scene.solids) == 4:
        return None
    side = pick(rng, ("left", "right"))
    x = rng.uniform(0.6, 1.3) * (-1 if side == "left" else 1)
    z = rng.uniform(-0.5, 1.2)
    new = Solid(pick(rng, SHAPES), pick(rng, tuple(COLOURS)), pick(rng, tuple(SIZES)), x, z)
    solids = (new, *scene.solids) if side == "left" else (*scene.solids, new)
    if [s.x for s in solids] != sorted(s.x for s in solids):
        return None
    return Edit(say(rng, f"add {side}", solid=said(new)), replace(scene, solids=solids))


def _swap(rng: np.random.Generator, scene: Scene, i: int) -> Edit | None:
    """Let two solids change places; None where there is one alone."""
    solids = list(scene.solids)
    if len(solids) == 1:
        return None
    j = (i + 1 + int(rng.integers(len(solids) - 1))) % len(solids)
    a, b = solids[i], solids[j]
    words = say(rng, "swap", thing=some_thing(rng, scene, i), other=some_thing(rng, scene, j))
    solids[i], solids[j] = replace(b, x=a.x, z=a.z), replace(a, x=b.x, z=b.z)
    return Edit(words, replace(scene, solids=tuple(solids)))


def _reverse(rng: np.random.Generator, scene: Scene) -> Edit | None:
    """Let time run backwards; None where that has no name."""
    if scene.camera != "still":
        return None
    solids = []
    for solid in scene.solids:
        if solid.motion in ONE_WAY:
            return None
        dx, dz = goes(solid.motion, solid.pace)
        motion = REVERSED.get(solid.motion, solid.motion)
        solids.append(replace(solid, x=solid.x + dx, z=solid.z + dz, motion=motion))
    return Edit(say(rng, "reverse"), replace(scene, solids=tuple(solids)).in_order)
