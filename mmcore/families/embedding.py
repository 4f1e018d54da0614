"""What released diffusion transformers add to a latent: its noise level as a vector, and its place.

Shapes: `D` width, `N` positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WAVES = 128
"""Frequencies of the noise level, from 1 down to 1 / 10000."""


class LevelEmbedding(nn.Module):
    """The noise level through cosines, sines and two matrices (as DiT, arXiv 2212.09748).

    Args:
        width: `D`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """(...) levels in [0, 1], taken as they are -> (..., D)."""
        rates = 10000 ** -(torch.arange(WAVES, dtype=torch.float32, device=level.device) / WAVES)
        angle = level.float()[..., None] * rates
        return self.mlp(torch.cat((angle.cos(), angle.sin()), -1).to(next(self.parameters()).dtype))


class Places(nn.Module):
    """A table with a vector for each place of a square grid, filled from a checkpoint.

    Args:
        side: rows and columns of the grid.
        width: `D`.
    """

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.pos_embed = nn.Parameter(torch.empty(side * side, width))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Vectors of a grid's places, row by row: (rows * columns, D)."""
        return F.embedding(grid_places(grid, self.side).to(self.pos_embed.device), self.pos_embed)


def grid_places(grid: tuple[int, int], side: int) -> Tensor:
    """Indices (rows * columns) of a grid's places in the table of a larger square, from its upper left corner."""
    rows, columns = (torch.arange(n) for n in grid)
    return (rows[:, None] * side + columns).flatten()
