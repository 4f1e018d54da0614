"""What lies within a patch: a convolutional pyramid from pixels down to patches, and back up from hidden states.

    pixels --pieces--> floor 0 --2 x 2--> floor 1 --2 x 2--> patches -> core -> decoder
                          |                  |                                     |
                          +------ skips -----+-----------> floor 1 <--2 x 2--------+
    pixels <------------------------- floor 0 <--2 x 2--------+

To a plain linear way in, an edge looks different at every place within its patch; a convolution learns it once (as the
U-Net around the transformer of Transfusion, arXiv 2408.11039, and the early convolutions of arXiv 2106.14881).
A *plane* is the Y x X patches of one span that share their frames; planes of one size go through together.

Shapes: `n` planes, `C` channels of a floor, `D` width, `P` patch width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmcore.config import MMCoreConfig
from mmcore.layers import RMSNorm, ZeroLinear


@dataclass(frozen=True)
class Planes:
    """All planes of one size in a batch.

    Args:
        size: (Y, X) patches.
        where: (n, Y * X) places of their patches in flattened lanes (B * Lv).
    """

    size: tuple[int, int]
    where: Tensor

    def read(self, lanes: Tensor) -> Tensor:
        """(B, Lv, C) -> (n, Y, X, C)."""
        return lanes.flatten(0, 1)[self.where].unflatten(1, self.size)

    def write(self, lanes: Tensor, values: Tensor) -> Tensor:
        """Lanes (B, Lv, C) with values (n, Y, X, C) in these places."""
        return (
            lanes.flatten(0, 1).index_copy(0, self.where.flatten(), values.flatten(0, 2).to(lanes.dtype)).view_as(lanes)
        )


def find_planes(grid: Tensor, is_patch: Tensor) -> list[Planes]:
    """The planes of a batch, by size.

    Args:
        grid: (B, Lv, 3) coordinates (t, y, x) of each patch in its own grid; a span's patches lie in this order.
        is_patch: (B, Lv) bool: no level position, no padding.
    """
    places = is_patch.flatten().nonzero()[:, 0]
    yx = grid.flatten(0, 1)[places, 1:]
    first = (yx == 0).all(1)
    plane, starts = first.cumsum(0) - 1, places[first]
    sizes = torch.zeros(len(starts), 2, dtype=yx.dtype, device=yx.device)
    sizes = sizes.scatter_reduce(0, plane[:, None].expand_as(yx), yx + 1, "amax")
    found = []
    for y, x in sizes.unique(dim=0).tolist():
        alike = starts[(sizes == sizes.new_tensor((y, x))).all(1)]
        found.append(Planes((y, x), alike[:, None] + torch.arange(y * x, device=alike.device)))
    return found


def blank_plane(is_patch: Tensor) -> Planes:
    """One patch of padding as a plane, in the target lane (which is last), for a batch without any patch.

    In training all ranks use the same weights in the same order, whatever each of them is shown.
    """
    return Planes((1, 1), torch.full((1, 1), is_patch.numel() - 1, device=is_patch.device))


@dataclass(frozen=True)
class Floors:
    """What the way down leaves for the way up, for the planes of one size.

    Args:
        planes: where they lie.
        held: for each floor, finest first, (n, rows, columns, C).
        level: (n, D) features of their noise level.
    """

    planes: Planes
    held: list[Tensor]
    level: Tensor

    def of_targets(self, contexts: int, length: int) -> Floors:
        """Those of the target lane, with their places in it alone.

        Args:
            contexts: `Lc`; the target lane follows it.
            length: `Lc + Lx`.
        """
        row, column = self.planes.where // length, self.planes.where % length
        chosen = column[:, 0] >= contexts
        where = (row * (length - contexts) + column - contexts)[chosen]
        return Floors(Planes(self.planes.size, where), [floor[chosen] for floor in self.held], self.level[chosen])


class Convolution(nn.Linear):
    """A 3 x 3 convolution, zeros beyond the border; its weight is a matrix (C, 9 C), so that Muon steps it."""

    def __init__(self, channels: int) -> None:
        super().__init__(9 * channels, channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(n, rows, columns, C) -> the same shape."""
        kernel = rearrange(self.weight, "o (y x i) -> o i y x", y=3, x=3)
        return F.conv2d(input.permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1)


class ZeroConvolution(Convolution):
    """A convolution that begins at 0: what ends a residual branch."""


class FloorBlock(nn.Module):
    """Two convolutions behind norms as a residual branch, the noise level shifting and scaling what comes in."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.modulate = ZeroLinear(width, 2 * channels)
        self.first = Convolution(channels)
        self.between = RMSNorm(channels)
        self.second = ZeroConvolution(channels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x (n, rows, columns, C), level (n, D) -> (n, rows, columns, C)."""
        shift, scale = self.modulate(level)[:, None, None].chunk(2, -1)
        h = self.first(F.silu(self.norm(x) * (1 + scale) + shift))
        return x + self.second(F.silu(self.between(h)))


def pieces_shape(config: MMCoreConfig) -> dict[str, int]:
    """How a patch (t y x c) is cut into s x s pieces, in einops' terms; s = 2 ^ floors."""
    t, y, x = config.patch
    s = 2 ** len(config.floors)
    return {"t": t, "sy": s, "sx": s, "y": y // s, "x": x // s, "c": 3}


class PyramidDown(nn.Module):
    """Pixel patches -> one vector a patch, and what each floor holds."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.pieces, self.width = pieces_shape(config), config.width
        above = (*config.floors[1:], config.width)
        self.enter = nn.Linear(config.patch_width // 4 ** len(config.floors), config.floors[0], bias=False)
        self.blocks = nn.ModuleList(FloorBlock(c, config.width) for c in config.floors)
        self.joins = nn.ModuleList(nn.Linear(4 * c, d, bias=False) for c, d in zip(config.floors, above, strict=True))

    def forward(self, patches: Tensor, level: Tensor, planes: list[Planes]) -> tuple[Tensor, list[Floors]]:
        """patches (B, Lv, P) and features of their levels (B, Lv, D) -> (B, Lv, D), zeros where there is no patch."""
        out, left = patches.new_zeros(*patches.shape[:2], self.width), []
        for group in planes:
            x = rearrange(group.read(patches), "n Y X (t sy y sx x c) -> n (Y sy) (X sx) (t y x c)", **self.pieces)
            x, of_plane, held = self.enter(x), group.read(level)[:, 0, 0], []
            for block, join in zip(self.blocks, self.joins, strict=True):
                x = block(x, of_plane)
                held.append(x)
                x = join(rearrange(x, "n (y a) (x b) c -> n y x (a b c)", a=2, b=2))
            out = group.write(out, x)
            left.append(Floors(group, held, of_plane))
        return out, left


class PyramidUp(nn.Module):
    """Hidden states of patches -> clean pixel patches, with the floors of the way down as skips."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.pieces, self.patch_width = pieces_shape(config), config.patch_width
        above = (*config.floors[1:], config.width)
        self.splits = nn.ModuleList(nn.Linear(d, 4 * c, bias=False) for c, d in zip(config.floors, above, strict=True))
        self.skips = nn.ModuleList(nn.Linear(2 * c, c, bias=False) for c in config.floors)
        self.blocks = nn.ModuleList(FloorBlock(c, config.width) for c in config.floors)
        self.norm = RMSNorm(config.floors[0])
        self.out = ZeroLinear(config.floors[0], config.patch_width // 4 ** len(config.floors))

    def forward(self, hidden: Tensor, floors: list[Floors]) -> Tensor:
        """(B, Lx, D) -> (B, Lx, P), zeros where there is no patch."""
        out = hidden.new_zeros(*hidden.shape[:2], self.patch_width)
        for group in floors:
            x = group.planes.read(hidden)
            for i in reversed(range(len(self.blocks))):
                x = rearrange(self.splits[i](x), "n y x (a b c) -> n (y a) (x b) c", a=2, b=2)
                x = self.blocks[i](self.skips[i](torch.cat((x, group.held[i]), -1)), group.level)
            x = self.out(self.norm(x))
            x = rearrange(x, "n (Y sy) (X sx) (t y x c) -> n Y X (t sy y sx x c)", **self.pieces)
            out = group.planes.write(out, x)
        return out
