"""What a run measures of itself: speed, arithmetic, padding, waiting for data, memory.

    meter = Meter(engine.work, recipe, ranks)
    for batches in meter.timed(loader):
        report = train_step(engine, batches)
        meter.add(batches, report)
    line = meter.line()                          # of the steps since the last line

Only steps and the waiting for their batches count as time, not checkpoints, validation or samples.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from statistics import fmean
from typing import Any, TypeVar

import torch

from mmcore.attention import PADDING
from mmcore.config import MMCoreConfig
from mmcore.packing import PackedSequence
from mmcore.training.flops import Load, forward_flops
from mmcore.training.gpus import known_gpu
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import Recipe

Report = dict[str, float]
"""Numbers by name, as in one line of the log."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Work:
    """What was done, all ranks together.

    Args:
        documents: in the batches.
        tokens: positions that hold something, of text and media alike.
        positions: all of them, padding included.
        flops: arithmetic of the forward and backward passes, padding included; what runs twice to save memory is
            counted once. 0 where it is not known.
        waited: seconds for batches.
        worked: seconds in steps.
    """

    documents: float = 0
    tokens: float = 0
    positions: float = 0
    flops: float = 0
    waited: float = 0
    worked: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def data_wait(self) -> float:
        """Share of the time that was spent waiting for batches."""
        return self.waited / (self.waited + self.worked)

    @property
    def padding(self) -> float:
        """Share of the positions that hold nothing."""
        return 1 - self.tokens / self.positions


def packed_work(config: MMCoreConfig, batch: PackedSequence) -> Work:
    """What a step of `MMCoreModel` with a packed batch is; no time is told."""
    doc = batch.marks.doc
    documents, tokens = int(doc.amax(1).add(1).sum()), int((doc != PADDING).sum())
    return Work(documents, tokens, doc.numel(), 3 * forward_flops(config, Load.of(batch)))


class Meter:
    """Measures a run; every rank has one, and all numbers are of all ranks but for memory, which is this rank's.

    Args:
        work: what a batch is, without its times.
        recipe: precision.
        ranks: this process among others.
        samples: documents that the run has seen before.
        tokens: positions with something in them that it has seen before.
    """

    def __init__(
        self, work: Callable[[Any], Work], recipe: Recipe, ranks: Ranks, samples: int = 0, tokens: int = 0
    ) -> None:
        self.of_batch, self.ranks, self.samples, self.tokens = work, ranks, samples, tokens
        gpu = known_gpu(torch.cuda.get_device_name(ranks.device)) if torch.device(ranks.device).type == "cuda" else None
        self.peak = gpu.peak if gpu and recipe.precision == "bf16" else None
        self.began, self.begun_with, self.skipped = time.perf_counter(), samples, 0
        self.work, self.recent = Work(), list[Report]()
        self._came, self._waited = self.began, 0.0

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The same items, and note how long each was waited for and when it came."""
        while True:
            asked = time.perf_counter()
            try:
                made = next(batches)
            except StopIteration:
                return
            self._came = time.perf_counter()
            self._waited = self._came - asked
            yield made

    def add(self, batches: Sequence[Any], report: Report | None) -> None:
        """Count a step that has just been made.

        Args:
            batches: this rank's.
            report: its losses, or None if it was left out.
        """
        done = Work(waited=self._waited, worked=time.perf_counter() - self._came)
        for batch in batches:
            done += self.of_batch(batch)
        done = Work(*self.ranks.sum(*astuple(done)))
        self.work += done
        self.samples, self.tokens = self.samples + int(done.documents), self.tokens + int(done.tokens)
        if report is None:
            self.skipped += 1
        else:
            self.recent.append(report)

    def line(self) -> Report:
        """What the log says of the steps since the last call.

        Returns:
            The means of their losses; samples and tokens of the whole run so far; samples_per_s since this process
            began, all included; tokens_per_s; tflops, 10^12 floating-point operations a second, and mfu, their share of
            the peak (arXiv 2204.02311), where they are known; padding and data_wait, shares; memory_mb, the most so
            far; skipped, steps that were left out, if any.
        """
        work, recent = self.work, self.recent
        self.work, self.recent = Work(), []
        seconds = (work.waited + work.worked) / self.ranks.world
        line = {key: fmean(report[key] for report in recent) for key in recent[0]} if recent else {}
        line |= {
            "samples": self.samples,
            "samples_per_s": (self.samples - self.begun_with) / (time.perf_counter() - self.began),
            "tokens": self.tokens,
            "tokens_per_s": work.tokens / seconds,
            "padding": work.padding,
            "data_wait": work.data_wait,
            "memory_mb": self.memory(),
        }
        if work.flops:
            line["tflops"] = work.flops / seconds / 1e12
        if work.flops and self.peak:
            line["mfu"] = work.flops / seconds / (self.peak * self.ranks.world)
        return line | ({"skipped": self.skipped} if self.skipped else {})

    def memory(self) -> float:
        """The most megabytes that this rank has held so far: of its GPU, or else of the process."""
        if torch.device(self.ranks.device).type == "cuda":
            return torch.cuda.max_memory_allocated(self.ranks.device) / 2**20
        return peak_megabytes()


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
