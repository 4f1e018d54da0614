"""A large frame in tiles that overlap, each with a coder of its own that remembers the frames before.

    tiles = Tiles((60, 104), (8, 8), tile=512, overlap=128, coder=new_coder, shrink=True)
    cells = [tiles(chunk) for chunk in chunks]

Where tiles overlap, one passes into the other in a line, so that no seam is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Coder = Callable[[Tensor], Tensor]
"""The next chunk (C, t, h, w) of one tile, encoded or decoded: it remembers those before."""


class Tiles:
    """A frame's tiles, each with a coder of its own; where they overlap, one passes into the other.

    Args:
        size: (rows, columns) of the frame, in cells.
        cell: (rows, columns) of pixels in a cell.
        tile: pixels along a tile's side.
        overlap: pixels that neighbours share.
        coder: makes one tile's coder.
        shrink: whether pixels become cells, or cells pixels.
    """

    def __init__(
        self,
        size: tuple[int, int],
        cell: tuple[int, int],
        tile: int,
        overlap: int,
        coder: Callable[[], Coder],
        shrink: bool,
    ) -> None:
        rows, columns = ([*_stretches(n, tile // c, overlap // c)] for n, c in zip(size, cell, strict=True))
        before, after = (cell, (1, 1)) if shrink else ((1, 1), cell)
        self.size = (size[0] * after[0], size[1] * after[1])
        self.tiles = [(_scaled((y, x), before), _scaled((y, x), after), coder()) for y in rows for x in columns]
        self.shared = [overlap // c * a for c, a in zip(cell, after, strict=True)]

    def __call__(self, chunk: Tensor) -> Tensor:
        """The next chunk of frames (C, t, ...), encoded or decoded."""
        if len(self.tiles) == 1:
            return self.tiles[0][2](chunk)
        total = weight = torch.zeros(())
        for (y, x), (to_y, to_x), coder in self.tiles:
            made = coder(chunk[:, :, y, x])
            share = _ramp(to_y, self.size[0], self.shared[0])[:, None] * _ramp(to_x, self.size[1], self.shared[1])
            if not total.ndim:
                total, weight = made.new_zeros(*made.shape[:2], *self.size), made.new_zeros(self.size)
            total[:, :, to_y, to_x] += made * share
            weight[to_y, to_x] += share
        return total / weight


def _stretches(length: int, tile: int, overlap: int) -> Iterator[slice]:
    """Stretches of one length that cover a side; the last one ends with it."""
    count = 1 + max(0, -(-(length - tile) // (tile - overlap)))
    for i in range(count):
        begin = max(0, min(i * (tile - overlap), length - tile))
        yield slice(begin, min(begin + tile, length))


def _scaled(where: tuple[slice, slice], by: tuple[int, int]) -> tuple[slice, slice]:
    y, x = (slice(s.start * n, s.stop * n) for s, n in zip(where, by, strict=True))
    return y, x


def _ramp(where: slice, size: int, shared: int) -> Tensor:
    """Weights of a tile along one side: they rise and fall where it has a neighbour."""
    n = where.stop - where.start
    up = torch.arange(1, n + 1) / (shared + 1)
    ramp = torch.ones(n) if where.start == 0 else up.clamp_max(1)
    return ramp if where.stop == size else torch.minimum(ramp, up.flip(0).clamp_max(1))
