"""Recall of what a long clip showed at its beginning, for a full, a hybrid and a linear core, each trained small.

    python -m mmcore.training.needle 2000 full hybrid linear        # steps, cores

A clip is read window by window. Its first window shows facts, each a patch that holds a glyph and a colour, among
noise; all other windows are noise. Then it is asked which colour each glyph had. A core learns this on clips of every
number of windows up to TRAINED (of a few numbers, it learns those distances and no other), and is asked at LENGTHS
positions, behind a cache.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore.attention import CONTEXT
from mmcore.cache import Cache
from mmcore.config import MMCoreConfig
from mmcore.model import MMCoreModel
from mmcore.packing import PackedSequence, pack
from mmcore.sequence import IGNORE, START, VIDEO, VIDEO_END, Patches, Strip
from mmcore.training.bench_context import CORES
from mmcore.training.optimizers import make_optimizer, rate
from mmcore.training.recipe import Recipe

GLYPHS, GRID = 8, (4, 4, 4)
"""Glyphs, each shown once, and as many colours; patches of a window."""

WINDOW = math.prod(GRID) + 3
"""Positions of a window, with its level and the tokens around it."""

LENGTHS = (1024, 2048, 4096, 8192, 16384)
"""Positions after which the colours are asked for."""

TRAINED = 15
"""Most windows of a clip; of its steps the first half allows ever more of them, the second half all."""

POSITIONS = 2048
"""Of a training step."""

PART = 4
"""Windows that are read at once behind the cache."""


def small_config(linear: int) -> MMCoreConfig:
    """A core of four blocks."""
    return MMCoreConfig(
        vocab_size=VIDEO_END + 1 + 2 * GLYPHS,
        width=64,
        depth=4,
        decoder_depth=0,
        heads=2,
        ff_width=128,
        patch=(1, 4, 4),
        bottleneck=48,
        linear=linear,
        context_length=LENGTHS[-1] + WINDOW,
    )


@dataclass(frozen=True)
class Clip:
    """A clip that goes on for ever.

    Args:
        glyphs: (G,) in the order in which they will be asked for.
        colours: (G,) of each.
        draw: its noise.
    """

    glyphs: Tensor
    colours: Tensor
    draw: torch.Generator

    @staticmethod
    def of(seed: int) -> Clip:
        """The clip of a seed."""
        draw = torch.Generator().manual_seed(seed)
        return Clip(torch.randperm(GLYPHS, generator=draw), torch.randint(GLYPHS, (GLYPHS,), generator=draw), draw)

    def windows(self, width: int) -> Iterator[Patches]:
        """Windows of patches (N, width), one after the other."""
        codes = torch.randn(2, GLYPHS, width // 2, generator=torch.Generator().manual_seed(0)).sign()
        count = math.prod(GRID)
        where = torch.randperm(count, generator=self.draw)[:GLYPHS]
        facts = torch.cat((codes[0, self.glyphs], codes[1, self.colours]), 1)
        while True:
            values = torch.randn(count, width, generator=self.draw).mul_(0.5).clamp_(-1, 1)
            values[where] = facts
            yield Patches(values, GRID, VIDEO, False)
            where, facts = where[:0], facts[:0]

    @property
    def questions(self) -> tuple[list[int], list[int]]:
        """Tokens of all questions and answers, glyph and colour in turn, and what is learnt at each."""
        first = VIDEO_END + 1
        ids, labels = [], []
        for glyph, colour in zip(self.glyphs.tolist(), self.colours.tolist(), strict=True):
            ids += [first + glyph, first + GLYPHS + colour]
            labels += [first + GLYPHS + colour, IGNORE]
        return ids, labels


def read(strip: Strip, windows: Sequence[Patches]) -> Strip:
    """Append windows to a strip, each a clip of its own."""
    for window in windows:
        strip.text([VIDEO])
        strip.visual(window, CONTEXT)
        strip.advance(window.grid)
        strip.text([VIDEO_END])
    return strip


def lesson(config: MMCoreConfig, seeds: Sequence[int], windows: int) -> PackedSequence:
    """Clips of so many windows with their questions, one a row."""
    rows = []
    for clip in map(Clip.of, seeds):
        strip, source = Strip(), clip.windows(config.patch_width)
        strip.text([START])
        read(strip, [next(source) for _ in range(windows)]).text(*clip.questions)
        rows.append([strip])
    return pack(rows, config.patch_width)


def answers(model: MMCoreModel, seq: PackedSequence, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
    """Logits at each question (Q, V), and the colours' tokens (Q,)."""
    asked = seq.labels != IGNORE
    return model.logits(model(seq, cache).hidden[asked]), seq.labels[asked]


def learn(model: MMCoreModel, steps: int) -> Iterator[float]:
    """Train a model, in place; yields the loss of each step."""
    optimizer = make_optimizer(model, Recipe(precision="fp32"))
    full = [group["lr"] for group in optimizer.param_groups]
    draw = torch.Generator().manual_seed(0)
    model.train()
    for step in range(steps):
        most = min(1 + 2 * step * TRAINED // steps, TRAINED)
        windows = 1 + int(torch.randint(most, (), generator=draw))
        count = POSITIONS // (WINDOW * windows + 2 * GLYPHS)
        logits, colours = answers(model, lesson(model.config, [step * POSITIONS + i for i in range(count)], windows))
        loss = F.cross_entropy(logits, colours)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group, most in zip(optimizer.param_groups, full, strict=True):
            group["lr"] = most * rate(step, steps, steps // 20, steps // 4)
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())
    model.eval()


@torch.inference_mode()
def recall(model: MMCoreModel, clips: int, lengths: Sequence[int] = LENGTHS) -> list[float]:
    """Share of colours that are told, after each length. Questions see the cache and are not kept in it.

    Args:
        model: trained.
        clips: how many; none of them was trained on.
        lengths: rising.
    """
    width, cache = model.config.patch_width, Cache()
    shown = [Clip.of(-1 - i) for i in range(clips)]
    sources, at = [clip.windows(width) for clip in shown], [(0, 0)] * clips
    shares: list[float] = []
    for length in lengths:
        while cache.length + PART * WINDOW <= length:
            strips = [Strip(*place) for place in at]
            for strip, source in zip(strips, sources, strict=True):
                if not cache.length:
                    strip.text([START])
                read(strip, [next(source) for _ in range(PART)])
            seq = pack([[strip] for strip in strips], width)
            model(seq, cache)
            cache.commit(seq.marks)
            at = [(strip.span, strip.position) for strip in strips]
        strips = [Strip(*place) for place in at]
        for strip, clip in zip(strips, shown, strict=True):
            strip.text(*clip.questions)
        logits, colours = answers(model, pack([[strip] for strip in strips], width), cache)
        shares.append(float((logits.argmax(-1) == colours).float().mean()))
    return shares


def main(steps: int, names: Sequence[str], clips: int = 8) -> None:
    """Train and ask each core; prints its losses, and its row of a table."""
    for name in names:
        torch.manual_seed(0)
        model = MMCoreModel(small_config(CORES[name]))
        for step, loss in enumerate(learn(model, steps), 1):
            if not step % 20:
                print(f"{name}: step {step}, loss {loss:.3f}", flush=True)
        shares = recall(model, clips)
        print(f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] or list(CORES))
