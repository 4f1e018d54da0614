"""Batches of the world whose pictures are drawn by the device that learns from them, where a processor is too slow.

    batches = UndrawnBatches(source, tokenizer, patch, layout)      # source: lines by index, takes among them
    seq.to("cuda")                                                  # draws, and is a PackedSequence like any other

What travels is the numbers that frames are drawn from: a batch is a twentieth of what it is with pixels. Each medium is
drawn once for all of its spans; until then a patch is a number that says which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmcore.attention import Marks
from mmcore.autoencoder import Autoencoder
from mmcore.config import grid_of
from mmcore.packing import PackedSequence, pack, pixels_as_bytes
from mmcore.sequence import IMAGE, VIDEO, Patches, Piece, Strip
from mmcore.tokenizers.pieces import segment_piece
from mmcore.tokenizers.words import Words
from mmcore.training.data import PackedBatches
from mmcore.training.world.device import draw
from mmcore.training.world.sheet import COLUMNS, sheet_of
from mmcore.training.world.shown import Line
from mmcore.training.world.take import SIZE, Take

LineSource = Callable[[int], Sequence[Line]]
"""What documents are made of, by index."""


@dataclass(frozen=True)
class Planned(Patches):
    """A visual segment that is not there yet: `values` (N, 1) int32 count its patches.

    Args:
        plan: (T, COLUMNS) float32, what its frames are drawn from; or (N, P) uint8 patches that are.
    """

    plan: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class UndrawnSequence(PackedSequence):
    """A packed sequence whose `patches` (B, Lc + Lx, 1) int32 say which they are: 1 is the first that is drawn, -1 the
    first of `pixels`, 0 none.

    Args:
        pixels: (M, P) uint8 patches that are there already.
        sheet: (F, COLUMNS) float32, what frames are drawn from.
        steps: (S, t) int64, the frames of each step in time of a medium's patches.
        size: (rows, columns) of a patch.
    """

    pixels: Tensor
    sheet: Tensor
    steps: Tensor
    size: tuple[int, int]

    def to(self, device: torch.device | str) -> PackedSequence:
        """The same sequence on a device, drawn, patches as floats."""
        moved = self.each(lambda tensor: tensor.to(device, non_blocking=True))
        y, x = self.size
        drawn = rearrange(draw(moved.sheet)[moved.steps], "S t (Y y) (X x) c -> (S Y X) (t y x c)", y=y, x=x)
        table = torch.cat((drawn.new_zeros(1, drawn.shape[1]), drawn, moved.pixels.flip(0)))
        kept: dict[str, Any] = {f.name: getattr(moved, f.name) for f in fields(PackedSequence)}
        kept["patches"] = table[moved.patches[..., 0].long()]
        return PackedSequence(**kept).to(device)

    def above(self, *others: PackedSequence) -> UndrawnSequence:
        """See `PackedSequence`; what is drawn of the later ones comes after what is of the earlier."""
        frames = steps = pixels = 0
        shifted: list[UndrawnSequence] = []
        for seq in (self, *others):
            assert isinstance(seq, UndrawnSequence)
            onward = steps * self.planes * (seq.patches > 0) - pixels * (seq.patches < 0)
            shifted.append(replace(seq, patches=seq.patches + onward, steps=seq.steps + frames))
            frames, steps, pixels = frames + len(seq.sheet), steps + len(seq.steps), pixels + len(seq.pixels)
        return shifted[0].each(lambda *tensors: torch.cat(tensors), *shifted[1:])

    @property
    def planes(self) -> int:
        """Patches of one step in time."""
        return SIZE[0] // self.size[0] * (SIZE[1] // self.size[1])

    def pin_memory(self) -> UndrawnSequence:
        """The same sequence: there is little to copy."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """On the way to another process: arrays by value, since a file for each of many small tensors takes longer."""
        held = vars(self) | vars(self.marks)
        del held["marks"]
        return _arrived, ({name: v.numpy() if isinstance(v, Tensor) else v for name, v in held.items()},)


def _arrived(held: dict[str, Any]) -> UndrawnSequence:
    """What another process sent."""
    held = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in held.items()}
    marks = Marks(*(held.pop(f.name) for f in fields(Marks)))
    return UndrawnSequence(**held, marks=marks)


class UndrawnBatches(PackedBatches):
    """An endless stream of batches that are yet to be drawn; see `PackedBatches`.

    Args:
        source: what documents are made of, by index.
    """

    source: LineSource

    def pieces(self, index: int, text: Words, autoencoder: Autoencoder) -> list[Piece]:
        """What a document is made of, takes as plans."""
        return [self.piece(line, text, autoencoder) for line in self.source(index)]

    def piece(self, line: Line, text: Words, autoencoder: Autoencoder) -> Piece:
        """A line as ids, or as a plan."""
        if isinstance(line, Take):
            plan = torch.from_numpy(sheet_of(line))
            grid = grid_of((len(plan), *SIZE), self.patch)
            return planned(grid, VIDEO if line.clip else IMAGE, line.learn, plan)
        piece = segment_piece(line, text, self.patch, autoencoder)
        if isinstance(piece, Patches):
            return planned(piece.grid, piece.opener, piece.learn, pixels_as_bytes(piece.values))
        return piece

    def batch(self, rows: Sequence[Sequence[Strip]], autoencoder: Autoencoder) -> UndrawnSequence:
        """Rows of strips packed, each plan once."""
        strips = [strip for row in rows for strip in row]
        media = (p for strip in strips for lane in strip.patches.values() for p in lane)
        plans = {id(p): p for p in media if isinstance(p, Planned)}
        there = [p for p in plans.values() if p.plan.dtype == torch.uint8]
        takes = [p for p in plans.values() if p.plan.dtype != torch.uint8]
        places = {id(p): 1 + start + p.values for p, start in zip(takes, starts_of(takes), strict=True)}
        places |= {id(p): -1 - start - p.values for p, start in zip(there, starts_of(there), strict=True)}
        for strip in strips:
            for kind, lane in strip.patches.items():
                strip.patches[kind] = [replace(p, values=places[id(p)]) for p in lane]
        seq = pack(rows, 1, self.layout.room, torch.int32)
        width = int(np.prod(self.patch)) * autoencoder.channels
        frames = np.cumsum([0, *(len(p.plan) for p in takes)]).tolist()
        steps = [first + steps_of(len(p.plan), self.patch[0]) for p, first in zip(takes, frames, strict=False)]
        return UndrawnSequence(
            **{f.name: getattr(seq, f.name) for f in fields(seq)},
            pixels=torch.cat([torch.zeros(0, width, dtype=torch.uint8), *(p.plan for p in there)]),
            sheet=torch.cat([torch.zeros(0, COLUMNS), *(p.plan for p in takes)]),
            steps=torch.cat([torch.zeros(0, self.patch[0], dtype=torch.int64), *steps]),
            size=(self.patch[1], self.patch[2]),
        )


def starts_of(media: Sequence[Patches]) -> list[int]:
    """How many patches come before each medium's."""
    return np.cumsum([0, *(len(p.values) for p in media)]).tolist()[:-1]


def planned(grid: tuple[int, int, int], opener: int, learn: bool, plan: Tensor) -> Planned:
    """A medium that fills a grid, its patches counted from 0."""
    return Planned(torch.arange(int(np.prod(grid)), dtype=torch.int32)[:, None], grid, opener, learn, plan=plan)


def steps_of(frames: int, patch: int) -> Tensor:
    """(S, patch) which of a medium's frames each step in time holds; the last frame fills the last step."""
    steps = -(-frames // patch)
    return torch.arange(steps * patch).clamp(max=frames - 1).view(steps, patch)
