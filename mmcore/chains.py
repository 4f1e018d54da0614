r"""In which order linear attention runs over a packed sequence: chains of positions, cut into chunks.

    reading order   <start> a red ball <video> [context] </video> <video> [target] ...
    chain           <start> a red ball <video> [context] </video> <video> ->  goes on behind the clean copy
                                                                          \-> [target]

The state of a document runs over its clean positions in reading order and begins empty. A target span begins with the
state before it and nothing takes up the state after it. So what a position reads is what `attention.visible` lets it
see, but for one thing: within a visual span positions are in order, as everywhere, frame by frame and row by row. Full
layers let a span see itself whole, and so does the decoder; a second pass over every span would give linear ones the
same at twice the price.

A target span that hides kinds reads a *view*: a state over the clean positions of the other kinds alone. A cache keeps
the state of each view, and the last few positions, which the layer's short convolution still needs.

Shapes: `B` rows, `L` positions, `V` views, `N` chunks, `C` positions of a chunk, `T` taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT, Marks

VIEWS = (0, TEXT, CONTEXT)
"""What is hidden in each view that a cache keeps; where both kinds are hidden, there is nothing to keep."""

TAPS = 3
"""Positions before each one that the short convolution takes in."""

CHUNK = 64
"""Most positions of a chunk."""


@dataclass(frozen=True)
class Chains:
    """Chunks of positions, made ready once for all layers.

    Places are rows of a table: nothing at 0, then, with a cache, the B V T tails of the past, then the B L positions.

    Args:
        places: (N, T + C) of each chunk, the taps before it first; by level.
        parents: see `delta.chunked`; the states to start from are nothing at 0, then, with a cache, the past's B V.
        own: (B L) where each position's output lies among the N C, which are followed by one for padding.
        tails: (B, V, T) places of what is the tail afterwards.
        ends: (B, V) the state afterwards: among those to start from, which are followed by those that chunks end with.
        past: B V T, or 0 without a cache.
    """

    places: Tensor
    parents: list[Tensor]
    own: Tensor
    tails: Tensor
    ends: Tensor
    past: int

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Chains:
        """The same with every tensor changed, to lie on a device for one."""
        places, own, tails, ends = map(change, (self.places, self.own, self.tails, self.ends))
        return Chains(places, [change(parent) for parent in self.parents], own, tails, ends, self.past)


@dataclass(frozen=True)
class Run:
    """Positions that follow each other in a chain.

    Args:
        line: their places, the T before them first.
        before: the run that it goes on from; None where it begins from a state of `start`.
        start: which state that is.
        writes: whether what comes out is the positions' own output; else only its state is wanted.
    """

    line: np.ndarray
    before: int | None
    start: int
    writes: bool


@dataclass
class Plan:
    """Runs as they are found, and where each row's views stand.

    Args:
        tails: (B, V, T).
        starts: (B, V) the states of the past.
        last: the last clean run of a row and view.
        runs: every run after those that it goes on from.
    """

    tails: np.ndarray
    starts: np.ndarray
    last: dict[tuple[int, int], int] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def add(self, places: np.ndarray, tail: np.ndarray, before: int | None, start: int, writes: bool) -> int:
        """A run of positions behind others; its number."""
        self.runs.append(Run(np.concatenate((tail, places)), before, start, writes))
        return len(self.runs) - 1


def make_chains(marks: Marks, cached: bool) -> Chains:
    """The chains of a packed sequence.

    Args:
        marks: of the new positions (B, L).
        cached: whether each row is one document that goes on from a cache.
    """
    doc, span, kind, hide = (t.cpu().numpy() for t in (marks.doc, marks.span, marks.kind, marks.hide))
    b, length = doc.shape
    past = b * len(VIEWS) * TAPS if cached else 0
    shape = (b, len(VIEWS))
    tails = 1 + np.arange(b * len(VIEWS) * TAPS).reshape(*shape, TAPS) if cached else np.zeros((*shape, TAPS), int)
    starts = 1 + np.arange(b * len(VIEWS)).reshape(shape) if cached else np.zeros(shape, int)
    plan = Plan(tails, starts)
    for row in range(b):
        documents = np.unique(doc[row][doc[row] != PADDING])
        assert len(documents) <= 1 or not cached, f"row {row}: a cache goes on with one document a row"
        for document in documents:
            here = np.flatnonzero(doc[row] == document)
            here = here[span[row, here].argsort(kind="stable")]
            places = 1 + past + row * length + here
            _document(plan, row, cached, places, span[row, here], kind[row, here], hide[row, here])
    return _cut(plan, b * length, past).mapped(lambda t: t.to(marks.doc.device))


def _document(
    plan: Plan, row: int, cached: bool, places: np.ndarray, span: np.ndarray, kind: np.ndarray, hide: np.ndarray
) -> None:
    """Add the runs of one document, whose positions are given in reading order."""
    is_target = kind == TARGET
    spans, first = np.unique(span[is_target], return_index=True)
    hidden = hide[is_target][first] & (TEXT | CONTEXT)
    for view, mask in enumerate((*VIEWS, TEXT | CONTEXT)):
        targets = spans[hidden == mask]
        kept = cached and view < len(VIEWS)
        if mask and not kept and not len(targets):
            continue
        seen = ~is_target & (kind & mask == 0)
        clean, start = places[seen], plan.starts[row, view] if kept else 0
        tail, before, done = plan.tails[row, view] if kept else np.zeros(TAPS, int), None, 0
        for target, stop in [*zip(targets, span[seen].searchsorted(targets), strict=True), (None, len(clean))]:
            if stop > done:
                before = plan.add(clean[done:stop], tail, before, start, not mask)
                tail, done = np.concatenate((tail, clean[done:stop]))[-TAPS:], stop
            if target is not None:
                plan.add(places[is_target & (span == target)], tail, before, start, True)
        if kept:
            plan.tails[row, view] = tail
            if before is not None:
                plan.last[row, view] = before


def _cut(plan: Plan, positions: int, past: int) -> Chains:
    """Chunks of equal size, by level: how many chunks stand before each in its chain."""
    lengths = np.array([len(run.line) - TAPS for run in plan.runs], int)
    longest = int(lengths.max(initial=1))
    size = -(-longest // -(-longest // CHUNK))
    counts = -(-lengths // size)
    stops = counts.cumsum()
    chunks = int(counts.sum())
    places = np.zeros((chunks, TAPS + size), int)
    level, parent = np.zeros(chunks, int), np.zeros(chunks, int)
    for run, length, count, stop in zip(plan.runs, lengths, counts, stops, strict=True):
        at = stop - count
        line = np.pad(run.line, (0, count * size - length))
        places[at:stop] = sliding_window_view(line, TAPS + size)[::size]
        level[at:stop] = np.arange(count) + (0 if run.before is None else level[stops[run.before] - 1] + 1)
        parent[at:stop] = np.arange(at, stop) - 1
        parent[at] = run.start if run.before is None else stops[run.before] - 1
    order = level.argsort(kind="stable")
    rank = order.argsort()
    bounds = level[order].searchsorted(np.arange(level.max(initial=-1) + 2))
    within = rank - bounds[level]
    parents = [parent[order[: bounds[1]]]] if chunks else []
    parents += [within[parent[order[a:b]]] for a, b in pairwise(bounds[1:])]
    own = np.full(positions, chunks * size)
    for run, length, count, stop in zip(plan.runs, lengths, counts, stops, strict=True):
        if run.writes:
            steps = np.arange(length)
            own[run.line[TAPS:] - 1 - past] = rank[stop - count + steps // size] * size + steps % size
    ends = plan.starts.copy()
    for at, run in plan.last.items():
        ends[at] = 1 + plan.starts.size + rank[stops[run] - 1]
    return Chains(
        places=torch.from_numpy(places[order]),
        parents=[torch.from_numpy(p) for p in parents],
        own=torch.from_numpy(own),
        tails=torch.from_numpy(plan.tails),
        ends=torch.from_numpy(ends),
        past=past,
    )
