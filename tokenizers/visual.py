"""Frames to patches. `mmcore.decoders.visual` is the way back.

    values, grid = patchify(clip.frames, patch=(4, 16, 16))            # values (N, P) in [-1, 1], grid (T, Y, X)
    values, grid = patchify(clip.frames, (1, 2, 2), open_autoencoder(folder))      # of latents

A clip that does not fill its last cells and patches is continued with its last frame, row and column.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmcore.autoencoder import PIXELS, Autoencoder
from mmcore.config import grid_of
from mmcore.sequence import Grid


def patchify(frames: np.ndarray, patch: tuple[int, int, int], autoencoder: Autoencoder = PIXELS) -> tuple[Tensor, Grid]:
    """Cut a clip into spacetime blocks.

    Args:
        frames: (T, H, W, 3) uint8.
        patch: (frames, rows, columns) of one block, in cells.
        autoencoder: makes cells of pixels.
    Returns:
        Values (N, P) float32, and the grid.
    """
    cells = autoencoder.encode(frames)
    grid = grid_of(cells.shape[:3], patch)
    missing = [(0, n * p - size) for n, p, size in zip(grid, patch, cells.shape[:3], strict=True)]
    full = np.pad(cells, [*missing, (0, 0)], mode="edge")
    t, y, x = patch
    return torch.from_numpy(rearrange(full, "(T t) (Y y) (X x) c -> (T Y X) (t y x c)", t=t, y=y, x=x)), grid
