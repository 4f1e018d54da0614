"""Frames to patches. `mmcore.decoders.visual` is the way back.

    values, grid = patchify(clip.frames, patch=(4, 16, 16))            # values (N, P) in [-1, 1], grid (T, Y, X)
    values, grid = patchify(clip.frames, (1, 2, 2), open_autoencoder(folder))      # of latents

A clip that does not fill its last cells and patches is continued with its last frame, row and column.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from PIL import Image as PILImage
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


def look_at(frames: np.ndarray, patch: int, cell: int, side: int) -> Tensor:
    """What an eye is shown of a clip: of each step of its grid in time the frame in the middle, made square.

    Args:
        frames: (T, H, W, 3) uint8.
        patch: cells in a step of the grid.
        cell: frames in a cell; the first frame has one of its own.
        side: rows and columns of what is shown.
    Returns:
        (steps, side, side, 3) uint8; nothing is cut off, as by the processor of SigLIP (arXiv 2303.15343).
    """
    steps = grid_of((len(frames), 1, 1), (patch, 1, 1), (cell, 1, 1))[0]
    first = (max(0, 1 + (step * patch - 1) * cell) for step in range(steps))
    last = (min(((step + 1) * patch - 1) * cell, len(frames) - 1) for step in range(steps))
    middles = [(begin + end) // 2 for begin, end in zip(first, last, strict=True)]
    size, method = (side, side), PILImage.Resampling.BICUBIC
    return torch.from_numpy(np.stack([np.asarray(PILImage.fromarray(frames[i]).resize(size, method)) for i in middles]))
