"""Scores of a model on documents of the world that it was not trained on.

    scores = evaluate(mmcore.load(), count=30); print(table(scores))

Two kinds of score, neither of which a fluent wrong answer can raise:

- *said*: the share of answers and captions equal to the truth, word for word. The baseline is the commonest truth.
- *shown*: for edits, whose result is known to the pixel, the PSNR in dB of what the model made, averaged over
  documents. The baseline leaves the medium as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from tqdm import tqdm

from mmcore.document import Document, Image, Text
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.data import VALIDATION
from mmcore.training.world.tasks import sample_document

SAID = ("image to text", "video to text", "image question", "video question")
SHOWN = ("image edit", "video edit")
BATCH = 8


@dataclass(frozen=True)
class Score:
    """One row of the report.

    Args:
        task: what was asked.
        measure: "exact" (share in [0, 1]) or "psnr" (dB).
        value: the model's.
        error: its standard error.
        baseline: that of a trivial answer.
        count: documents.
    """

    task: str
    measure: str
    value: float
    error: float
    baseline: float
    count: int


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two clips (T, H, W, 3) uint8, in dB; 99 where they are equal."""
    mean = float(np.square(a.astype(float) - b.astype(float)).mean())
    return 99.0 if mean == 0 else 10 * math.log10(255**2 / mean)


def evaluate(pipeline: Pipeline, count: int, progress: bool = True) -> list[Score]:
    """Score a model.

    Args:
        pipeline: the model.
        count: documents for each task; always the same ones.
        progress: whether to show a bar on a terminal.
    """
    tasks = (*((t, "exact", score_said) for t in SAID), *((t, "psnr", score_shown) for t in SHOWN))
    scores: list[Score] = []
    for task, measure, score in tqdm(tasks, disable=None if progress else True, leave=False, unit="task"):
        documents = [sample_document(VALIDATION + i, task) for i in range(count)]
        values, baseline = score(pipeline, [first_turn(d) for d in documents])
        spread = float(np.std(values)) / math.sqrt(count)
        scores.append(Score(task, measure, fmean(values), spread, baseline, count))
    return scores


Turn = tuple[Document, Document]
"""What is asked, and the true answer."""


def first_turn(document: Document) -> Turn:
    """The first question of a document with its answer."""
    learnt = [s.learn for s in document]
    begin = learnt.index(True)
    end = learnt.index(False, begin) if False in learnt[begin:] else len(learnt)
    return Document(document.segments[:begin]), Document(document.segments[begin:end])


def _replies(pipeline: Pipeline, turns: list[Turn], want: Callable[[Turn], str]) -> list[Document]:
    requests = [Request(asked, want((asked, true)), seed=i) for i, (asked, true) in enumerate(turns)]
    batches = [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]
    return [reply.document for batch in batches for reply in pipeline.reply(batch, progress=False)]


def score_said(pipeline: Pipeline, turns: list[Turn]) -> tuple[list[float], float]:
    """Exact matches, and how often the commonest truth would have been one."""
    said = [reply.text for reply in _replies(pipeline, turns, lambda _: "text")]
    truths = [true.text for _, true in turns]
    values = [float(a == b) for a, b in zip(said, truths, strict=True)]
    return values, Counter(truths).most_common(1)[0][1] / len(truths)


def score_shown(pipeline: Pipeline, turns: list[Turn]) -> tuple[list[float], float]:
    """PSNR of edited media, and that of media left as they are. What adds a solid is left out: its place is open."""
    turns = [turn for turn in turns if not _adds(turn[0])]
    kind = "image" if isinstance(turns[0][1].media[0], Image) else "video"
    made = [reply.media[0].frames for reply in _replies(pipeline, turns, lambda _: kind)]
    values = [psnr(m, true.media[0].frames) for m, (_, true) in zip(made, turns, strict=True)]
    return values, fmean(psnr(asked.media[0].frames, true.media[0].frames) for asked, true in turns)


def _adds(asked: Document) -> bool:
    words = next(s.text for s in asked if isinstance(s, Text)).lower()
    return words.startswith(("add ", "put a"))


def table(scores: list[Score]) -> str:
    """The report."""
    lines = [f"{'task':16} {'measure':8} {'model':>14} {'baseline':>9} {'count':>6}"]
    for s in scores:
        value = f"{s.value:.2f} ± {s.error:.2f}"
        lines.append(f"{s.task:16} {s.measure:8} {value:>14} {s.baseline:9.2f} {s.count:6}")
    return "\n".join(lines)
