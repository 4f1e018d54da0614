"""What reading costs behind a long past, for a full, a hybrid and a linear core: arithmetic, time, memory.

    python -m mmcore.training.bench_context context.png

Four blocks of the tiny preset's width, random weights, float32, one row. The past is random too: its values change
nothing here. What is read is a frame of 16 patches; figures are for one of its positions. Work is counted by torch (a
multiplication and an addition are two).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmcore.attention import CONTEXT
from mmcore.cache import Cache
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.core import Block
from mmcore.linear import LinearAttention
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.sequence import START, VIDEO, Patches, Strip
from mmcore.training.bench_history import work
from mmcore.training.curves import Curve, Panel, draw

CORES = {"full": 0, "hybrid": 3, "linear": 4}
"""Linear blocks of each four."""

SHAPE = PRESETS["tiny"] | {"depth": 4, "decoder_depth": 1}

LENGTHS = tuple(2**n for n in range(10, 18))
"""Positions of the past: 1 k to 128 k."""

GRID = (1, 4, 4)
"""Patches of the frame."""

TRIES = 5


@dataclass(frozen=True)
class Cost:
    """What it takes to read a position behind a past, and to keep that past.

    Args:
        work: floating-point operations.
        seconds: of the processor, all threads together, in the fastest of some tries.
        memory: bytes of the cache.
    """

    work: float
    seconds: float
    memory: int


@torch.inference_mode()
def random_past(model: MMCoreModel, length: int) -> Cache:
    """A cache as it is behind so many positions."""
    cache, strip = Cache(), Strip()
    x = torch.empty(1, 1, model.config.width).expand(1, length, -1)
    for layer, block in enumerate(model.core.blocks):
        assert isinstance(block, Block)
        if isinstance(block.attention, LinearAttention):
            _, kept = block.attention.room(cache, layer, x)
            kept.tails.normal_()
            kept.states.normal_()
        else:
            keys, values = block.attention.room(cache, layer, x)
            keys.normal_()
            values.normal_()
    strip.text([START] * length)
    cache.commit(pack([[strip]], 1).marks)
    return cache


@torch.inference_mode()
def cost(model: MMCoreModel, length: int) -> Cost:
    """What a frame costs behind so many positions."""
    cache, strip = random_past(model, length), Strip(length, length)
    memory, width = cache.bytes, model.config.patch_width
    strip.visual(Patches(torch.zeros(GRID[1] * GRID[2], width), GRID, VIDEO, False), CONTEXT)
    seq = pack([[strip]], width)
    seconds: list[float] = []
    for _ in range(TRIES):
        began = time.process_time()
        model(seq, cache)
        seconds.append(time.process_time() - began)
    count = sum(seq.lengths)
    return Cost(work(lambda: model(seq, cache)) / count, min(seconds) / count, memory)


def costs(shape: dict[str, Any], lengths: Sequence[int]) -> dict[str, list[Cost]]:
    """The cost of each core at each length."""
    found: dict[str, list[Cost]] = {}
    for name, linear in CORES.items():
        torch.manual_seed(0)
        model = MMCoreModel(MMCoreConfig(**{**shape, "linear": linear})).eval()
        found[name] = [cost(model, length) for length in lengths]
    return found


def panels(found: dict[str, list[Cost]], lengths: Sequence[int]) -> list[Panel]:
    """Arithmetic, time and memory over the length of the past."""
    units = {"MFLOP a position": ("work", 1e6), "ms a position": ("seconds", 1e-3), "cache, MB": ("memory", 1e6)}
    drawn: list[Panel] = []
    for title, (of, unit) in units.items():
        curves = [
            Curve(name, [(x, getattr(c, of) / unit) for x, c in zip(lengths, line, strict=True)], colour=colour)
            for colour, (name, line) in enumerate(found.items())
        ]
        drawn.append(Panel(title, curves, log_x=True, log_y=True))
    return drawn


def main(path: str) -> None:
    """Measure, draw, and print a table."""
    found = costs(SHAPE, LENGTHS)
    draw(panels(found, LENGTHS), columns=3).quantize(32).save(path, optimize=True)
    for name, line in found.items():
        for length, c in zip(LENGTHS, line, strict=True):
            print(f"| {name} | {length} | {c.work / 1e6:.2f} | {c.seconds * 1e3:.3f} | {c.memory / 1e6:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1])
