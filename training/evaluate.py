"""Scores of a model on documents of the world that it was not trained on.

    report = evaluate(mmcore.load(), count=30); print(table(report.scores)); report.save(Path("report"))

An answer is right or wrong, whole, and nothing that writes well can talk its way past:

- words are right if they are the true ones, word for word;
- a picture or a clip is right if `world.readout` reads from its pixels what was asked for: every solid with its shape,
  colour, size and motion, in the order asked for, before the right backdrop, and no other solid;
- a reply is of the right kind if it is made of words, pictures and clips as the true one is, no more and no fewer.

Beside each share stand its 95 % interval (Wilson 1927), the floor (how often the readout reads the true render right)
and a trivial baseline: for words the commonest truth, for media another document's true medium. Edits whose result is
known to the pixel are also given in dB of PSNR, beside that of leaving the medium as it is.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from mmcore.decoders.page import page, sheet
from mmcore.document import Document, Text
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.data import VALIDATION
from mmcore.training.world.readout import read_scene
from mmcore.training.world.tasks import TASKS, Example, Shown, sample_example

BATCH = 8

SHOWN = 48
"""Cases on a sheet."""


@dataclass(frozen=True)
class Score:
    """One row of the report.

    Args:
        task: what was asked.
        measure: "right" (share in [0, 1]), "right kind" (the same) or "psnr" (dB).
        value: the model's.
        low: lower end of the 95 % interval.
        high: its upper end.
        floor: what the ruler gives to the truth; None where that is certain.
        baseline: what a trivial answer gets.
        count: how many were scored.
    """

    task: str
    measure: str
    value: float
    low: float
    high: float
    floor: float | None
    baseline: float | None
    count: int


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


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share = right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two clips (T, H, W, 3) uint8, in dB; 99 where they are equal."""
    mean = float(np.square(a.astype(float) - b.astype(float)).mean())
    return 99.0 if mean == 0 else 10 * math.log10(255**2 / mean)


def kinds(document: Document) -> list[str]:
    """What a reply is made of."""
    return [type(segment).__name__ for segment in document]


def shows(frames: np.ndarray, shown: Shown) -> bool:
    """Whether frames show what was asked for."""
    return shown.told(read_scene(frames).scene) == shown.told(shown.scene)


def is_right(turn: Turn, reply: Document) -> bool:
    """Whether a reply is of the right kind, and its media show, or else its words say, the truth."""
    if kinds(reply) != kinds(turn.true):
        return False
    if not turn.shown:
        return reply.text == turn.true.text
    return all(shows(made.frames, shown) for made, shown in zip(reply.media, turn.shown, strict=True))


def replies(pipeline: Pipeline, asked: Sequence[Turn], seed: int) -> list[Document]:
    """What the model answers, deciding for itself with what."""
    requests = [Request(turn.asked, seed=seed + i) for i, turn in enumerate(asked)]
    batches = [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]
    return [reply.document for batch in batches for reply in pipeline.reply(batch, progress=False)]


@dataclass(frozen=True)
class Case:
    """One reply with its verdict."""

    task: str
    turn: Turn
    reply: Document
    right: bool


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    scores: tuple[Score, ...]
    cases: tuple[Case, ...]

    def save(self, folder: Path) -> None:
        """Write scores.json, and sheets of what was asked and answered: right.png and wrong.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps([vars(score) for score in self.scores], indent=1) + "\n")
        for name, right in (("right", True), ("wrong", False)):
            pages = [page(c.turn.asked + c.reply, c.task) for c in self.cases if c.right == right]
            sheet(pages[:SHOWN], columns=4).save(folder / f"{name}.png")


def evaluate(pipeline: Pipeline, count: int, tasks: Sequence[str] = tuple(TASKS), progress: bool = True) -> Report:
    """Score a model.

    Args:
        pipeline: the model.
        count: documents for each task; always the same ones.
        tasks: which of `world.tasks.TASKS`.
        progress: whether to show a bar on a terminal.
    """
    scores: list[Score] = []
    cases: list[Case] = []
    for task in tqdm(tasks, disable=None if progress else True, leave=False, unit="task"):
        documents = [turns(sample_example(VALIDATION + i, task)) for i in range(count)]
        if task != "chat":
            documents = [document[:1] for document in documents]
        asked = [turn for document in documents for turn in document]
        made = replies(pipeline, asked, seed=0)
        judged = [Case(task, t, reply, is_right(t, reply)) for t, reply in zip(asked, made, strict=True)]
        verdicts = iter([case.right for case in judged])
        right = [all(list(islice(verdicts, len(document)))) for document in documents]
        scores.append(share(task, "right", right, floor(documents), baseline(documents)))
        if task.endswith("edit"):
            scores.append(closeness(task, asked, made))
        cases += judged
    of_kind = [kinds(case.reply) == kinds(case.turn.true) for case in cases]
    return Report((*scores, share("all of these", "right kind", of_kind, None, None)), tuple(cases))


def share(task: str, measure: str, right: Sequence[bool], top: float | None, trivial: float | None) -> Score:
    """A row for a share of right answers."""
    low, high = wilson(sum(right), len(right))
    return Score(task, measure, fmean(right), low, high, top, trivial, len(right))


def floor(documents: Sequence[Sequence[Turn]]) -> float | None:
    """How often the true media are found to be right."""
    if not any(turn.shown for document in documents for turn in document):
        return None
    return fmean(all(is_right(turn, turn.true) for turn in document) for document in documents)


def baseline(documents: Sequence[Sequence[Turn]]) -> float:
    """How often a trivial answer would be right in every turn."""
    said = Counter(turn.true.text for document in documents for turn in document if not turn.shown)
    commonest = said.most_common(1)[0][0] if said else ""
    others = [shown for document in documents for turn in document for shown in turn.shown]

    def lucky(turn: Turn) -> bool:
        if not turn.shown:
            return turn.true.text == commonest
        other = others[(others.index(turn.shown[0]) + 1) % len(others)]
        return all(
            shown.clip == other.clip and shown.told(other.scene) == shown.told(shown.scene) for shown in turn.shown
        )

    return fmean(all(lucky(turn) for turn in document) for document in documents)


def closeness(task: str, asked: Sequence[Turn], made: Sequence[Document]) -> Score:
    """PSNR of edited media. What adds a solid is left out, since its place is open; a missing medium gets 0 dB."""
    pairs = [(turn, reply) for turn, reply in zip(asked, made, strict=True) if not _adds(turn.asked)]
    values = [
        psnr(reply.media[0].frames, turn.true.media[0].frames) if kinds(reply) == kinds(turn.true) else 0.0
        for turn, reply in pairs
    ]
    error = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    left = fmean(psnr(turn.asked.media[0].frames, turn.true.media[0].frames) for turn, _ in pairs)
    mean = fmean(values)
    return Score(task, "psnr", mean, mean - error, mean + error, None, left, len(values))


def _adds(asked: Document) -> bool:
    words = next(s.text for s in asked if isinstance(s, Text)).lower()
    return words.startswith(("add ", "put a"))


def table(scores: Sequence[Score]) -> str:
    """The report."""
    lines = [f"{'task':16} {'measure':11} {'model':>6} {'95 % interval':>15} {'floor':>6} {'baseline':>9} {'count':>6}"]
    for s in scores:
        interval = f"[{s.low:.2f}, {s.high:.2f}]"
        top, trivial = ("" if v is None else f"{v:.2f}" for v in (s.floor, s.baseline))
        lines.append(f"{s.task:16} {s.measure:11} {s.value:6.2f} {interval:>15} {top:>6} {trivial:>9} {s.count:6}")
    return "\n".join(lines)
