"""Frames to patches. `mmcore.decoders.visual` is the way back.

    patches = patchify(clip.frames, patch=(4, 16, 16))       # values (N, P) in [-1, 1], grid (T, Y, X)

A clip that does not fill its last patches is continued with its last frame, row and column.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmcore.sequence import Grid


def grid_of(size: tuple[int, int, int], patch: tuple[int, int, int]) -> Grid:
    """How many patches (T, Y, X) a clip of `size` (frames, rows, columns) takes."""
    t, y, x = (-(-n // p) for n, p in zip(size, patch, strict=True))
    return t, y, x


def patchify(frames: np.ndarray, patch: tuple[int, int, int]) -> tuple[Tensor, Grid]:
    """Cut a clip into spacetime blocks.

    Args:
        frames: (T, H, W, 3) uint8.
        patch: (frames, rows, columns) of one block.
    Returns:
        Values (N, P) float32 in [-1, 1], and the grid.
    """
    grid = grid_of(frames.shape[:3], patch)
    missing = [(0, n * p - size) for n, p, size in zip(grid, patch, frames.shape[:3], strict=True)]
    full = np.pad(frames, [*missing, (0, 0)], mode="edge")
    t, y, x = patch
    values = rearrange(full, "(T t) (Y y) (X x) c -> (T Y X) (t y x c)", t=t, y=y, x=x)
    return torch.from_numpy(values.astype(np.float32) / 127.5 - 1), grid
