"""Whether a reply is right: read from its pixels and words, by what was asked for.

    verdict = judge(turn, reply); verdict.right, verdict.parts["colours"]

An answer is right or wrong, whole, and nothing that writes well can talk its way past:

- a description is right if `world.parse` reads the true scene from it; an answer, if it is the true one word for word;
- a picture or a clip is right if `world.readout` reads from its pixels what was asked for: every solid with its shape,
  colour, size and motion, in time, in the order asked for, before the right backdrop, by the same camera, in the same
  style, and no other solid; a sentence that comes with it must say so too;
- a reply is of the right kind if it is made of words, pictures and clips as the true one is, no more and no fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context

import numpy as np

from mmcore.document import Document, Text
from mmcore.training.world.meaning import Meaning, Said, meaning, spot
from mmcore.training.world.parse import parse
from mmcore.training.world.readout import read_scene
from mmcore.training.world.scene import Scene, Solid
from mmcore.training.world.shown import INTRODUCTIONS, Example, Shown


@dataclass(frozen=True)
class Turn:
    """One reply to be written.

    Args:
        asked: all that comes before it, as it truly was.
        true: the true reply.
        shown: what the true reply's media show.
    """

    asked: Document
    true: Document
    shown: tuple[Shown, ...]


def turns(example: Example) -> list[Turn]:
    """Every reply of a document, with what comes before it."""
    segments, shown = example.document.segments, list(example.shown)
    found: list[Turn] = []
    begin = 0
    while any(s.learn for s in segments[begin:]):
        first = next(i for i in range(begin, len(segments)) if segments[i].learn)
        end = next((i for i in range(first, len(segments)) if not segments[i].learn), len(segments))
        true = Document(segments[first:end])
        media, shown = shown[: len(true.media)], shown[len(true.media) :]
        found.append(Turn(Document(segments[:first]), true, tuple(media)))
        begin = end
    return found


def kinds(document: Document) -> list[str]:
    """What a reply is made of."""
    return [type(segment).__name__ for segment in document]


def all_solids(said: Meaning) -> list[Said]:
    """The solids of all shots."""
    return [solid for shot in said.shots for solid in shot.solids]


PARTS: dict[str, Callable[[Meaning], object]] = {
    "count": lambda said: [len(shot.solids) for shot in said.shots],
    "shapes": lambda said: [s.shape for s in all_solids(said)],
    "colours": lambda said: [s.colour for s in all_solids(said)],
    "sizes": lambda said: [s.size for s in all_solids(said)],
    "motions": lambda said: [s.motion for s in all_solids(said)],
    "camera": lambda said: [shot.camera for shot in said.shots],
    "style": lambda said: [shot.style for shot in said.shots],
    "backdrop": lambda said: [shot.backdrop for shot in said.shots],
}
"""What a meaning is made of."""

SLACK = 0.15, 0.3
"""How far the readout may be off in where a solid stands: x and z, in units of the scene."""

KEPT = "kept"
"""For edits: whether what was not to change is as it was, whatever became of the rest."""


@dataclass(frozen=True)
class Verdict:
    """Whether a reply is right as a whole, and for what it tells or shows of scenes, by attribute."""

    right: bool
    parts: dict[str, bool] = field(default_factory=dict)


def shows(frames: np.ndarray, shown: Shown) -> bool:
    """Whether frames show what was asked for."""
    found = read_scene(frames)
    return not found.late and shown.asked_of(found.scene) == shown.asked_of(shown.scene)


def judge(turn: Turn, reply: Document) -> Verdict:
    """Read a reply's media and words, and compare them with what was asked for."""
    right_kind = kinds(reply) == kinds(turn.true)
    if turn.shown:
        return judge_media(turn, reply if right_kind else Document())
    told = parse(turn.true.text)
    if told is None:
        return Verdict(right_kind and reply.text == turn.true.text)
    said = parse(reply.text) if right_kind else None
    return Verdict(said == told, by_part([said] if said else [], [told]))


def judge_media(turn: Turn, reply: Document) -> Verdict:
    """Judge a reply of the right kind; one without media is of the wrong kind."""
    wanted, made, words = turn.shown, reply.media, introductions(reply)
    read = [read_scene(whole(w, turn.asked, medium.frames)) for w, medium in zip(wanted, made, strict=False)]
    seen = [found.scene for found in read]
    pairs = list(zip(wanted, seen, strict=False))
    asked, found = [w.asked_of(w.scene) for w in wanted], [w.asked_of(scene) for w, scene in pairs]
    parts = by_part(found, asked)
    if any(w.before for w in wanted):
        parts[KEPT] = bool(seen) and all(keeps(w, scene) for w, scene in pairs)
    agree = all(not said or says(said, w, scene) for said, (w, scene) in zip(words, pairs, strict=True))
    there = found == asked and not any(f.late for f in read) and all(in_place(w, scene) for w, scene in pairs)
    return Verdict(there and agree, parts)


def whole(wanted: Shown, asked: Document, frames: np.ndarray) -> np.ndarray:
    """Frames, after those of the same clip that were given, if it was to go on."""
    return np.concatenate((asked.media[-1].frames, frames)) if wanted.after else frames


def introductions(reply: Document) -> list[str]:
    """For each medium the words right before it, or ""."""
    before = [Text(""), *reply.segments]
    return [
        said.text if isinstance(said, Text) else ""
        for said, medium in zip(before, reply.segments, strict=False)
        if not isinstance(medium, Text)
    ]


def by_part(found: Sequence[Meaning], wanted: Sequence[Meaning]) -> dict[str, bool]:
    """For each attribute whether it is right in all that was wanted."""
    whole = len(found) == len(wanted)
    return {
        name: whole and all(part(a) == part(b) for a, b in zip(found, wanted, strict=True))
        for name, part in PARTS.items()
    }


def keeps(shown: Shown, seen: Scene) -> bool:
    """Whether all that an edit leaves as it was is still there: solids, by all that is told of them, and backdrop."""
    if shown.before is None:
        return True
    before, after, now = (meaning(scene, shown.clip) for scene in (shown.before, shown.scene, seen))
    left = Counter(before.solids) & Counter(after.solids)
    return left <= Counter(now.solids) and (before.backdrop != after.backdrop or now.backdrop == after.backdrop)


def in_place(shown: Shown, seen: Scene) -> bool:
    """Whether what an edit does not add stands where it should: where it was, or where it was to go."""
    if shown.before is None:
        return True
    grown = len(shown.scene.solids) > len(shown.before.solids)
    known = {(solid.x, solid.z) for solid in shown.before.solids}
    return all(
        abs(true.x - found.x) < 2 * SLACK[0] and abs(true.z - found.z) < 2 * SLACK[1]
        for true, found in zip(shown.scene.solids, seen.solids, strict=True)
        if not grown or (true.x, true.z) in known
    )


def says(words: str, shown: Shown, seen: Scene) -> bool:
    """Whether a sentence that comes with a medium says what was asked for, and what the medium shows."""
    introduction = next((known for known in INTRODUCTIONS if words.startswith(known)), "")
    said = parse(words.removeprefix(introduction))
    wanted = shown.request
    if said is None or said.as_far_as(wanted) != wanted or said.as_far_as(plain := meaning(seen, shown.clip)) != plain:
        return False
    return all(
        told.spot is None or lies_in(told.spot, solid)
        for shot, found in zip(said.shots, seen.shots, strict=True)
        for told, solid in zip(shot.solids, found.solids, strict=True)
    )


def lies_in(told: str, solid: Solid) -> bool:
    """Whether a solid stands in a part of the room, or so near it that the readout cannot tell."""
    across, deep = ((-off, 0.0, off) for off in SLACK)
    return told in {spot(solid.x + dx, solid.z + dz) for dx, dz in product(across, deep)}


class Judges:
    """Processes that judge replies, or this one alone.

    Args:
        workers: how many; 0 for none beside this process.
    """

    def __init__(self, workers: int) -> None:
        self.pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers else None

    def of(self, asked: Sequence[Turn], made: Sequence[Document]) -> list[Verdict]:
        """A verdict on each reply."""
        return list((self.pool.map if self.pool else map)(judge, asked, made))

    def __enter__(self) -> Judges:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)
