"""Scores of a model on documents of the world that it was not trained on.

    report = evaluate(mmcore.load(), count=30); print(table(report.scores)); report.save(Path("report"))

What is right is said in `training/judge.py`, what the figures are in `training/scores.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from mmcore.decoders.page import page, sheet
from mmcore.document import DOCUMENT_FILE, Document
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.data import VALIDATION
from mmcore.training.judge import Judges, Turn, Verdict, kinds, turns
from mmcore.training.scores import Score, baseline, closeness, floor, share, shares, velocities
from mmcore.training.world.mixtures import MIXTURES
from mmcore.training.world.tasks import TASKS, sample_example

BATCH = 8

SHOWN = 48
"""Cases on a sheet."""

SOLIDS = 3
"""Scenes to score with have one solid to so many, before an edit adds one."""


def fingerprint(pipeline: Pipeline) -> str:
    """A model's weights as 64 hexadecimal digits: the same for the same weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(pipeline.weights.state_dict().items()):
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
    tasks: Sequence[str] = tuple(TASKS),
    progress: bool = True,
    folder: Path | None = None,
    held_out: Sequence[str] = ("pairs",),
    workers: int = 0,
) -> Report:
    """Score a model.

    Args:
        pipeline: the model.
        count: documents for each task; always the same ones.
        tasks: which of `world.tasks.TASKS`; by default all.
        progress: whether to show a bar on a terminal.
        folder: where replies are kept and the report goes; what was broken off there is taken up again.
        workers: processes that judge; 0 for this one.
        held_out: what is held out of training and scored in rows of its own: "pairs", "phrasings" (see `heldout`).
    Raises:
        MMCoreError: the folder holds the replies of another model, or cannot be written.
    """
    if folder:
        claim(folder, pipeline)
    rows = [(task, split) for split in ("", *held_out) for task in tasks if not split or task in MIXTURES["all"]]
    chosen = {
        f"{task}, new {split}" if split else task: [
            turns(sample_example(VALIDATION + i, task, held_out=split, most=SOLIDS))[: None if task == "chat" else 1]
            for i in range(count)
        ]
        for task, split in rows
    }
    scores: list[Score] = []
    cases: list[Case] = []
    total = sum(len(document) for found in chosen.values() for document in found)
    with (
        Judges(workers) as judges,
        tqdm(total=total, disable=None if progress else True, leave=False, unit="reply") as bar,
    ):
        for task, documents in chosen.items():
            bar.set_description(task)
            asked = [turn for document in documents for turn in document]
            made = replies(
                pipeline, asked, bar, folder / "replies" / task.replace(",", "").replace(" ", "-") if folder else None
            )
            judged = [Case(task, *case) for case in zip(asked, made, judges.of(asked, made), strict=True)]
            verdicts = iter([case.verdict.right for case in judged])
            right = [all(list(islice(verdicts, len(document)))) for document in documents]
            row = share(task, "right", right, floor(documents, judges), baseline(documents))
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
