"""Rows of positions: strips packed into the tensors that the model takes.

seq = pack([[strip, strip], [strip]], patch_width)       # two rows, three documents, none of which sees another
seq = seq.to(device)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT, Marks
from mmcore.flow import interpolate
from mmcore.sequence import IGNORE, PAD, Strip, patch_coords


def pixels_as_bytes(values: Tensor) -> Tensor:
    """Patches of pixels in [-1, 1] as uint8, of which `bytes_as_pixels` makes the same again."""
    return ((values + 1) * 127.5).round().to(torch.uint8)


def bytes_as_pixels(values: Tensor) -> Tensor:
    """uint8 patches as float32 in [-1, 1]."""
    return values.float() / 127.5 - 1


@dataclass(frozen=True)
class PackedSequence:
    """B rows of positions in three lanes: what the model takes.

    Args:
        ids: (B, Lt) token ids.
        labels: (B, Lt) the token each position is to predict, IGNORE where none.
        patches: (B, Lc + Lx, P) float32, zeros at level positions and padding; or uint8 of pixels on their way to the
            model, where `to` makes floats of them.
        is_level: (B, Lc + Lx) bool, the level positions.
        level: (B, Lc + Lx) float32 noise level t of each visual position; 1 in context spans.
        grid: (B, Lc + Lx, 3) coordinates of each patch in its own grid.
        coords: (B, L, 3) rotary coordinates.
        marks: (B, L) what the mask needs.
        looks: (n, S, S, 3) uint8, what the eye is shown: one look for each plane of patches that it sees, in order.
        is_seen: (B, Lc) bool, the patches of those planes.
        lengths: (Lt, Lc, Lx).
    """

    ids: Tensor
    labels: Tensor
    patches: Tensor
    is_level: Tensor
    level: Tensor
    grid: Tensor
    coords: Tensor
    marks: Marks
    looks: Tensor
    is_seen: Tensor
    lengths: tuple[int, int, int]

    @property
    def target_patches(self) -> Tensor:
        """(B, Lx, P) the target lane's patches."""
        return self.patches[:, self.lengths[1] :]

    @property
    def is_patch(self) -> Tensor:
        """(B, Lc + Lx) bool: no level position, no padding."""
        return ~self.is_level & (self.marks.doc[:, self.lengths[0] :] != PADDING)

    @property
    def is_target_patch(self) -> Tensor:
        """(B, Lx) bool: the patches to be learnt or sampled."""
        return self.is_patch[:, self.lengths[1] :]

    def with_targets(self, patches: Tensor, level: Tensor) -> PackedSequence:
        """The same sequence with other target patches (B, Lx, P) and their noise levels (B, Lx)."""
        lc = self.lengths[1]
        return replace(
            self,
            patches=torch.cat((self.patches[:, :lc], patches), 1),
            level=torch.cat((self.level[:, :lc], level), 1),
        )

    def noised(self, noise: Tensor, level: Tensor) -> PackedSequence:
        """The same sequence with noise (B, Lx, P) in its target patches, each at its level t (B, Lx) in [0, 1]."""
        noisy = interpolate(self.target_patches, noise, level[..., None])
        return self.with_targets(noisy * self.is_target_patch[..., None], level)

    def each(self, change: Callable[..., Tensor], *others: PackedSequence) -> Self:
        """The same sequence with every tensor changed; `change` is given those of the others at the same place too."""
        every = (self, *others)
        marks = Marks(*(change(*(getattr(s.marks, f.name) for s in every)) for f in fields(Marks)))
        tensors = [f.name for f in fields(self) if isinstance(getattr(self, f.name), Tensor)]
        changed = {name: change(*(getattr(s, name) for s in every)) for name in tensors}
        return replace(self, **changed, marks=marks)

    def pin_memory(self) -> PackedSequence:
        """The same sequence in memory from which a GPU copies while it computes."""
        return self.each(lambda tensor: tensor.pin_memory() if tensor.numel() else tensor)

    def to(self, device: torch.device | str) -> PackedSequence:
        """The same sequence on a device, patches as floats."""
        moved = self.each(lambda tensor: tensor.to(device, non_blocking=True))
        if moved.patches.dtype != torch.uint8:
            return moved
        return replace(moved, patches=bytes_as_pixels(moved.patches).where(moved.is_patch[..., None], 0))

    def above(self, *others: PackedSequence) -> PackedSequence:
        """The rows of several sequences of the same lengths, as one."""
        return self.each(lambda *tensors: torch.cat(tensors), *others)


def pack(
    rows: Sequence[Sequence[Strip]],
    patch_width: int,
    lengths: tuple[int, int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> PackedSequence:
    """Lay strips out in rows; no document sees another.

    Args:
        rows: for each row its strips.
        patch_width: `P`.
        lengths: room in each lane (Lt, Lc, Lx); the longest row decides where it is None.
        dtype: of the strips' patches.
    Returns:
        The rows, padded to the room.
    """
    need = np.array([np.sum([(0, 0, 0), *(s.lengths for s in row)], 0) for row in rows]).max(0)
    room = tuple(int(n) for n in (need if lengths is None else lengths))
    assert all(n <= r for n, r in zip(need, room, strict=True)), f"rows need {need}, there is room for {room}"
    starts: dict[int, int] = {TEXT: 0, CONTEXT: room[0], TARGET: room[0] + room[1]}
    b, total = len(rows), sum(room)
    doc, span = np.full((b, total), PADDING), np.full((b, total), PADDING)
    hide = np.full((b, total), TARGET)
    coords = np.zeros((b, total, 3), int)
    ids, labels = np.full((b, room[0]), PAD), np.full((b, room[0]), IGNORE)
    visual = room[1] + room[2]
    is_level, grid = np.zeros((b, visual), bool), np.zeros((b, visual, 3), int)
    patches = torch.zeros(b, visual, patch_width, dtype=dtype)
    looks, is_seen = list[Tensor](), np.zeros((b, room[1]), bool)
    for r, row in enumerate(rows):
        at, offset = dict(starts), 0
        for d, strip in enumerate(row):
            n = strip.lengths[0]
            ids[r, at[TEXT] : at[TEXT] + n], labels[r, at[TEXT] : at[TEXT] + n] = strip.ids, strip.labels
            for kind in (CONTEXT, TARGET):
                cursor = at[kind] - room[0]
                for piece in strip.patches[kind]:
                    assert (piece.values.dtype == torch.uint8) == (dtype == torch.uint8), "bytes are not values"
                    end = cursor + 1 + len(piece.values)
                    is_level[r, cursor] = True
                    patches[r, cursor + 1 : end] = piece.values
                    grid[r, cursor + 1 : end] = patch_coords(piece.grid)
                    if kind == CONTEXT and piece.looks is not None:
                        looks.append(piece.looks)
                        is_seen[r, cursor + 1 : end] = True
                    cursor = end
            for kind, lane in strip.lanes.items():
                if not lane.length:
                    continue
                where = slice(at[kind], at[kind] + lane.length)
                doc[r, where], span[r, where] = d, offset + np.concatenate(lane.span)
                coords[r, where], hide[r, where] = np.concatenate(lane.coords), np.concatenate(lane.hide)
                at[kind] += lane.length
            offset += strip.span
    kinds = np.repeat((TEXT, CONTEXT, TARGET), room)[None].repeat(b, 0)
    return PackedSequence(
        ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        patches=patches,
        is_level=torch.from_numpy(is_level),
        level=torch.ones(b, visual),
        grid=torch.from_numpy(grid),
        coords=torch.from_numpy(coords),
        marks=Marks(*(torch.from_numpy(a) for a in (doc, span, kinds, hide))),
        looks=torch.cat(looks) if looks else torch.empty(0, 0, 0, 3, dtype=torch.uint8),
        is_seen=torch.from_numpy(is_seen),
        lengths=(room[0], room[1], room[2]),
    )
