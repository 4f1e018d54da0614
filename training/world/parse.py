"""From words back to what they say: the other half of the ruler, beside `readout`, which reads pixels.

    parse("a small red ball bounces and a blue cube stands still, at night")
    Meaning(solids=(Said("ball", "red", "small", "bounce"), Said("cube", "blue", None, "still")), backdrop="night")

Whole sentences only: one that holds anything else says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mmcore.training.world.language import DOES, PLACES, noun
from mmcore.training.world.scene import COLOURS, SHAPES, SIZES, Scene


@dataclass(frozen=True)
class Said:
    """A solid as words tell of it; None where they do not."""

    shape: str
    colour: str
    size: str | None = None
    motion: str | None = None


@dataclass(frozen=True)
class Meaning:
    """What a sentence says there is to see.

    Args:
        solids: from left to right.
        backdrop: one of `scene.BACKDROPS`, or None where it is not told.
    """

    solids: tuple[Said, ...]
    backdrop: str | None = None

    def as_far_as(self, other: Meaning) -> Meaning:
        """The same, less what another sentence about it leaves open."""
        if len(self.solids) != len(other.solids):
            return self
        solids = tuple(
            Said(a.shape, a.colour, a.size if b.size else None, a.motion if b.motion else None)
            for a, b in zip(self.solids, other.solids, strict=True)
        )
        return Meaning(solids, self.backdrop if other.backdrop else None)


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in words)


SOLID = re.compile(
    rf"an? (?:(?P<size>{_any_of(SIZES)}) )?(?P<colour>{_any_of(COLOURS)}) (?P<shape>{_any_of(SHAPES)})"
    rf"(?: (?P<does>{_any_of(DOES.values())}))?"
)
PLACE = re.compile(rf",? (?P<place>{_any_of(PLACES.values())})$")

MOTION_OF = {does: motion for motion, does in DOES.items()}
BACKDROP_OF = {place: backdrop for backdrop, place in PLACES.items()}


def parse(words: str) -> Meaning | None:
    """What a description says; None where it is none.

    Args:
        words: as `language.caption` writes them, any part of them left out.
    """
    place = PLACE.search(words)
    solids: list[Said] = []
    for part in re.split(", | and ", words[: place.start()] if place else words):
        said = SOLID.fullmatch(part)
        if said is None:
            return None
        motion = MOTION_OF[said["does"]] if said["does"] else None
        solids.append(Said(said["shape"], said["colour"], said["size"], motion))
    return Meaning(tuple(solids), BACKDROP_OF[place["place"]] if place else None)


def meaning(scene: Scene, clip: bool, sized: tuple[bool, ...] = (True,) * 3, placed: bool = True) -> Meaning:
    """What `language.caption` says of a scene; same arguments."""
    solids = tuple(
        Said(s.shape, s.colour, s.size if s.size in noun(s, told).split() else None, s.motion if clip else None)
        for s, told in zip(scene.solids, sized, strict=False)
    )
    return Meaning(solids, scene.backdrop if placed else None)
