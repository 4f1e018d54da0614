"""What words say, apart from how they say it: the common ground of `language`, which says, and `parse`, which reads."""

from __future__ import annotations

from dataclasses import dataclass

from mmcore.training.world.scene import COLOURLESS, ROOM, Scene, Solid


@dataclass(frozen=True)
class Said:
    """A solid as words tell of it; None where they do not."""

    shape: str
    colour: str | None
    size: str | None = None
    motion: str | None = None
    spot: str | None = None


@dataclass(frozen=True)
class Meaning:
    """What a sentence says there is to see.

    Args:
        solids: from left to right.
        backdrop: one of `scene.BACKDROPS`, or None where it is not told.
        camera: one of `scene.CAMERAS` that moves, or None.
        style: one of `scene.STYLES` but the plain one, or None.
        then: what there is to see after a cut, if there is one.
    """

    solids: tuple[Said, ...]
    backdrop: str | None = None
    camera: str | None = None
    style: str | None = None
    then: Meaning | None = None

    @property
    def shots(self) -> tuple[Meaning, ...]:
        """What each shot shows."""
        return (self, *(self.then.shots if self.then else ()))

    def as_far_as(self, other: Meaning) -> Meaning:
        """The same, less what another sentence about it leaves open."""
        if len(self.solids) != len(other.solids) or (self.then is None) != (other.then is None):
            return self
        solids = tuple(
            Said(a.shape, a.colour if b.colour else None, a.size if b.size else None, a.motion if b.motion else None)
            for a, b in zip(self.solids, other.solids, strict=True)
        )
        then = self.then and other.then and self.then.as_far_as(other.then)
        return Meaning(solids, self.backdrop if other.backdrop else None, self.camera, self.style, then)


@dataclass(frozen=True)
class Thing:
    """A solid as one refers to it: "the red ball", "the ball", "the red one", or "it" where nothing is told."""

    colour: str | None = None
    shape: str | None = None


ACROSS, DEEP = ("far left", "left", "middle", "right", "far right"), ("near", "halfway", "far")
"""Parts of the room from left to right, and from the camera on."""


def spot(x: float, z: float) -> str:
    """The part of the room in which a place lies: "right, near"."""
    (left, right), (near, far) = ROOM
    across, deep = (x - left) / (right - left) * len(ACROSS), (z - near) / (far - near) * len(DEEP)
    return f"{ACROSS[min(max(int(across), 0), 4)]}, {DEEP[min(max(int(deep), 0), 2)]}"


def middle_of(part: str) -> float:
    """The x in the middle of one of ACROSS."""
    left, right = ROOM[0]
    return left + (ACROSS.index(part) + 0.5) / len(ACROSS) * (right - left)


def said(solid: Solid, sized: bool = True, moving: bool = False, spotted: bool = False, coloured: bool = True) -> Said:
    """What is told of a solid; no size of one that changes it."""
    sized = sized and solid.motion not in ("grow", "shrink")
    return Said(
        solid.shape,
        solid.colour if coloured else None,
        solid.size if sized else None,
        solid.motion if moving else None,
        spot(solid.x, solid.z) if spotted else None,
    )


def meaning(
    scene: Scene,
    clip: bool,
    sized: tuple[bool, ...] = (True,) * 4,
    placed: bool = True,
    spotted: bool = False,
    seen: bool = True,
) -> Meaning:
    """What a caption says of a scene.

    Args:
        scene: what is shown.
        clip: whether it is seen as a clip, so that motions are told.
        sized: for each solid, whether its size is told.
        placed: whether the backdrop is told.
        seen: whether only that is told which one sees: no colours in a style that has none.
        spotted: whether it is told in which part of the room each solid stands at the beginning.
    """
    coloured = not seen or scene.style not in COLOURLESS
    solids = tuple(said(s, told, clip, spotted, coloured) for s, told in zip(scene.solids, sized, strict=False))
    then = scene.then and meaning(scene.then, clip, sized, placed, spotted, seen)
    style = None if scene.style == "plain" else scene.style
    camera = scene.camera if clip and scene.camera != "still" else None
    return Meaning(solids, scene.backdrop if placed else None, camera, style, then)
