"""The figures of an evaluation: what stands in each row of its report.

Beside each share stand its 95 % interval (Wilson 1927), the floor (how often the ruler finds the truth right), a
trivial baseline (for words the commonest truth, for media another document's true medium), and by attribute how often
all solids have it right. Edits whose result is known to the pixel are also given in dB of PSNR, beside that of leaving
the medium as it is; slides that go on, by their velocities (`world.physics`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import fmean

import numpy as np

from mmcore.document import Document, Text
from mmcore.training.judge import KEPT, PARTS, Judges, Turn, Verdict, kinds
from mmcore.training.world.parse import hear
from mmcore.training.world.physics import true_velocity, velocity_error
from mmcore.training.world.take import FRAMES

UNCHANGED = 2
"""A pixel that an edit changes by no more than this, of 255, is to stay as it is."""


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


def share(task: str, measure: str, right: Sequence[bool], top: float | None, trivial: float | None) -> Score:
    """A row for a share of right answers."""
    low, high = wilson(sum(right), len(right))
    return Score(task, measure, fmean(right), low, high, top, trivial, len(right))


def shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """For each attribute the share of replies in which it is right, of those that it matters to."""
    told = {name: [v.parts[name] for v in verdicts if name in v.parts] for name in (*PARTS, KEPT)}
    return {name: fmean(right) for name, right in told.items() if right}


def floor(documents: Sequence[Sequence[Turn]], judges: Judges) -> float | None:
    """How often the true media are found to be right."""
    told = [turn for document in documents for turn in document]
    if not any(turn.shown for turn in told):
        return None
    right = iter([verdict.right for verdict in judges.of(told, [turn.true for turn in told])])
    return fmean(all(list(islice(right, len(document)))) for document in documents)


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


def closeness(task: str, asked: Sequence[Turn], made: Sequence[Document]) -> list[Score]:
    """PSNR of edited media, all of the picture and where the edit changes nothing; a missing medium gets 0 dB.

    What adds a solid is left out, since its place is open; and what changes every pixel, from what is to be kept.
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
            if not where.any():
                continue
            reached = 0.0 if made_one is None else psnr(made_one[where], true[where])
            row.append((reached, psnr(given[where], true[where])))
    measures = ("psnr", "psnr kept")
    scores: list[Score] = []
    for measure, row in zip(measures, rows, strict=True):
        if not row:
            continue
        values, left = [v for v, _ in row], fmean(v for _, v in row)
        mean, error = fmean(values), 1.96 * float(np.std(values)) / math.sqrt(len(values))
        scores.append(Score(task, measure, mean, mean - error, mean + error, None, left, len(values)))
    return scores


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
