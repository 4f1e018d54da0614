"""Scores of a model on documents of the world that it was not trained on.

    report = evaluate(mmcore.load(), count=30); print(table(report.scores)); report.save(Path("report"))

What is right is said in `training/judge.py`. Beside each share stand its 95 % interval (Wilson 1927), the floor (how
often the ruler finds the truth right), a trivial baseline (for words the commonest truth, for media another document's
true medium), and by attribute how often all solids have it right. Edits whose result is known to the pixel are also
given in dB of PSNR, beside that of leaving the medium as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from tqdm import tqdm

from mmcore.decoders.page import page, sheet
from mmcore.document import DOCUMENT_FILE, Document, Text
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.data import VALIDATION
from mmcore.training.judge import KEPT, PARTS, Turn, Verdict, judge, kinds, turns
from mmcore.training.world.parse import hear
from mmcore.training.world.physics import true_velocity, velocity_error
from mmcore.training.world.shown import FRAMES
from mmcore.training.world.tasks import MIXTURES, sample_example

BATCH = 8

UNCHANGED = 2
"""A pixel that an edit changes by no more than this, of 255, is to stay as it is."""

SHOWN = 48
"""Cases on a sheet."""


@dataclass(frozen=True)
class Score:
    """One row of the report.

    Args:
        task: what was asked.
        measure: "right" or "right kind" (shares in [0, 1]), "psnr" or "psnr kept" (dB), "velocity error" (see
            `world.physics`).
        value: the model's.
        low: lower end of the 95 % interval.
        high: its upper end.
        floor: what the ruler gives to the truth; None where that is certain.
        baseline: what a trivial answer gets.
        count: how many were scored.
        parts: by attribute (`judge.PARTS`), the share of replies in which it is right for all solids; for edits also
            `judge.KEPT`.
    """

    task: str
    measure: str
    value: float
    low: float
    high: float
    floor: float | None
    baseline: float | None
    count: int
    parts: dict[str, float] = field(default_factory=dict)


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


def fingerprint(pipeline: Pipeline) -> str:
    """A model's weights as 64 hexadecimal digits: the same for the same weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(pipeline.model.state_dict().items()):
        digest.update(name.encode() + weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def claim(folder: Path, pipeline: Pipeline) -> None:
    """Make a folder that of one model's replies, to go on in later.

    Raises:
        MMCoreError: it holds those of another model, or cannot be written.
    """
    owner, mine = folder / "model.sha256", fingerprint(pipeline)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if owner.exists() and owner.read_text().strip() != mine:
            raise MMCoreError(f"{folder}: holds the replies of another model; choose another with --out")
        owner.write_text(mine + "\n")
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write there: {error.strerror}; choose another with --out") from error


def replies(pipeline: Pipeline, asked: Sequence[Turn], bar: tqdm, folder: Path | None) -> list[Document]:
    """What the model answers, deciding for itself with what; replies that the folder holds are taken from there."""
    made: dict[int, Document] = {}
    places = [folder / f"{i:05d}" if folder else None for i in range(len(asked))]
    for i, place in enumerate(places):
        if place is not None and (place / DOCUMENT_FILE).exists():
            made[i] = Document.load(place)
    bar.update(len(made))
    missing = [i for i in range(len(asked)) if i not in made]
    for batch in (missing[k : k + BATCH] for k in range(0, len(missing), BATCH)):
        written = pipeline.reply([Request(asked[i].asked, seed=i) for i in batch], progress=False)
        for i, reply in zip(batch, written, strict=True):
            made[i] = reply.document
            if (place := places[i]) is not None:
                reply.document.save(place)
        bar.update(len(batch))
    return [made[i] for i in range(len(asked))]


@dataclass(frozen=True)
class Case:
    """One reply with its verdict."""

    task: str
    turn: Turn
    reply: Document
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    scores: tuple[Score, ...]
    cases: tuple[Case, ...]

    def save(self, folder: Path) -> None:
        """Write scores.json, and sheets of what was asked and answered: right.png and wrong.png."""
        (folder / "scores.json").write_text(json.dumps([vars(score) for score in self.scores], indent=1) + "\n")
        for name, right in (("right", True), ("wrong", False)):
            pages = [page(c.turn.asked + c.reply, c.task) for c in self.cases if c.verdict.right == right]
            sheet(pages[:SHOWN], columns=4).save(folder / f"{name}.png")


def evaluate(
    pipeline: Pipeline,
    count: int,
    tasks: Sequence[str] = tuple(MIXTURES["all"]),
    progress: bool = True,
    folder: Path | None = None,
    held_out: Sequence[str] = ("pairs",),
) -> Report:
    """Score a model.

    Args:
        pipeline: the model.
        count: documents for each task; always the same ones.
        tasks: which of `world.tasks.TASKS`; by default those that the bundled model is trained on.
        progress: whether to show a bar on a terminal.
        folder: where replies are kept and the report goes; what was broken off there is taken up again.
        held_out: what is held out of training and scored in rows of its own: "pairs", "phrasings" (see `heldout`).
    Raises:
        MMCoreError: the folder holds the replies of another model, or cannot be written.
    """
    if folder:
        claim(folder, pipeline)
    rows = [(task, split) for split in ("", *held_out) for task in tasks if not split or task in MIXTURES["all"]]
    chosen = {
        f"{task}, new {split}" if split else task: [
            turns(sample_example(VALIDATION + i, task, held_out=split))[: None if task == "chat" else 1]
            for i in range(count)
        ]
        for task, split in rows
    }
    scores: list[Score] = []
    cases: list[Case] = []
    total = sum(len(document) for found in chosen.values() for document in found)
    with tqdm(total=total, disable=None if progress else True, leave=False, unit="reply") as bar:
        for task, documents in chosen.items():
            bar.set_description(task)
            asked = [turn for document in documents for turn in document]
            made = replies(
                pipeline, asked, bar, folder / "replies" / task.replace(",", "").replace(" ", "-") if folder else None
            )
            judged = [Case(task, t, reply, judge(t, reply)) for t, reply in zip(asked, made, strict=True)]
            verdicts = iter([case.verdict.right for case in judged])
            right = [all(list(islice(verdicts, len(document)))) for document in documents]
            row = share(task, "right", right, floor(documents), baseline(documents))
            scores.append(replace(row, parts=shares([case.verdict for case in judged])))
            if task.startswith("uniform motion"):
                scores.append(velocities(task, asked, made))
            if task.partition(",")[0].endswith("edit"):
                scores += closeness(task, asked, made)
            cases += judged
    of_kind = [kinds(case.reply) == kinds(case.turn.true) for case in cases]
    report = Report((*scores, share("all of these", "right kind", of_kind, None, None)), tuple(cases))
    if folder:
        report.save(folder)
    return report


def share(task: str, measure: str, right: Sequence[bool], top: float | None, trivial: float | None) -> Score:
    """A row for a share of right answers."""
    low, high = wilson(sum(right), len(right))
    return Score(task, measure, fmean(right), low, high, top, trivial, len(right))


def shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """For each attribute the share of replies in which it is right, of those that it matters to."""
    told = {name: [v.parts[name] for v in verdicts if name in v.parts] for name in (*PARTS, KEPT)}
    return {name: fmean(right) for name, right in told.items() if right}


def floor(documents: Sequence[Sequence[Turn]]) -> float | None:
    """How often the true media are found to be right."""
    if not any(turn.shown for document in documents for turn in document):
        return None
    return fmean(all(judge(turn, turn.true).right for turn in document) for document in documents)


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
            shown.clip == other.clip and shown.asked_of(other.scene) == shown.asked_of(shown.scene)
            for shown in turn.shown
        )

    return fmean(all(lucky(turn) for turn in document) for document in documents)


def closeness(task: str, asked: Sequence[Turn], made: Sequence[Document]) -> tuple[Score, Score]:
    """PSNR of edited media, all of the picture and where the edit changes nothing; a missing medium gets 0 dB.

    What adds a solid is left out, since its place is open.
    """
    pairs = [(turn, reply) for turn, reply in zip(asked, made, strict=True) if not _adds(turn.asked)]
    rows: list[list[tuple[float, float]]] = [[], []]
    for turn, reply in pairs:
        shown, true, given = turn.shown[0], turn.true.media[0].frames, turn.asked.media[0].frames
        assert shown.before is not None
        before = replace(shown, scene=shown.before).written().frames
        same = np.abs(before.astype(int) - true).max(-1) <= UNCHANGED
        made_one = reply.media[0].frames if kinds(reply) == kinds(turn.true) else None
        for row, where in zip(rows, (np.ones_like(same), same), strict=True):
            reached = 0.0 if made_one is None else psnr(made_one[where], true[where])
            row.append((reached, psnr(given[where], true[where])))
    measures = ("psnr", "psnr kept")
    scores: list[Score] = []
    for measure, row in zip(measures, rows, strict=True):
        values, left = [v for v, _ in row], fmean(v for _, v in row)
        mean, error = fmean(values), 1.96 * float(np.std(values)) / math.sqrt(len(values))
        scores.append(Score(task, measure, mean, mean - error, mean + error, None, left, len(values)))
    return scores[0], scores[1]


def velocities(task: str, asked: Sequence[Turn], made: Sequence[Document]) -> Score:
    """How far velocities are from the true ones; the floor is that of true clips, the baseline that of standing still.

    A reply without a clip counts as one that stands still.
    """
    found: list[float] = []
    for turn, reply in zip(asked, made, strict=True):
        scene = turn.shown[0].scene
        right_kind = kinds(reply) == kinds(turn.true)
        error = velocity_error(reply.media[0].frames, scene, FRAMES) if right_kind else abs(true_velocity(scene))
        found.append(error)
    floor = fmean(velocity_error(t.true.media[0].frames, t.shown[0].scene, FRAMES) for t in asked)
    still = fmean(abs(true_velocity(t.shown[0].scene)) for t in asked)
    mean, error = fmean(found), 1.96 * float(np.std(found)) / math.sqrt(len(found))
    return Score(task, "velocity error", mean, mean - error, mean + error, floor, still, len(found))


def _adds(asked: Document) -> bool:
    words = next(s.text for s in asked if isinstance(s, Text))
    return any(heard.kind.startswith("add ") for heard in hear(words))


def table(scores: Sequence[Score]) -> str:
    """The report."""
    width = max(len(s.task) for s in scores)
    head = (
        f"{'task':{width}} {'measure':14} {'model':>6} {'95 % interval':>14} {'floor':>5} {'baseline':>8} {'count':>5}"
    )
    columns = (*PARTS, KEPT)
    lines = [head + "".join(f"{name:>9}" for name in columns)]
    for s in scores:
        interval = f"[{s.low:.2f}, {s.high:.2f}]"
        top, trivial = ("" if v is None else f"{v:.2f}" for v in (s.floor, s.baseline))
        parts = "".join(f"{s.parts[name]:9.2f}" if name in s.parts else " " * 9 for name in columns).rstrip()
        lines.append(
            f"{s.task:{width}} {s.measure:14} {s.value:6.2f} {interval:>14} {top:>5} {trivial:>8} {s.count:5}{parts}"
        )
    return "\n".join(lines)
