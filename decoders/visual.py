"""Patches to frames. `mmcore.tokenizers.visual` is the way there."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from torch import Tensor

from mmcore.autoencoder import PIXELS, Autoencoder
from mmcore.config import cells_of
from mmcore.sequence import Grid


def unpatchify(
    values: Tensor,
    grid: Grid,
    patch: tuple[int, int, int],
    size: tuple[int, int, int],
    autoencoder: Autoencoder = PIXELS,
) -> np.ndarray:
    """Put spacetime blocks together and cut off what continued the clip.

    Args:
        values: (N, P); of pixels about [-1, 1], what lies outside is clipped.
        grid: (T, Y, X) patches.
        patch: (frames, rows, columns) of one block, in cells.
        size: (frames, rows, columns) of the clip.
        autoencoder: makes pixels of cells.
    Returns:
        (T, H, W, 3) uint8.
    """
    (t, y, x), held = patch, values.float().cpu().numpy()
    cells = rearrange(held, "(T Y X) (t y x c) -> (T t) (Y y) (X x) c", T=grid[0], Y=grid[1], X=grid[2], t=t, y=y, x=x)
    frames, rows, columns = cells_of(size, autoencoder.cell)
    clip = autoencoder.decode(np.ascontiguousarray(cells[:frames, :rows, :columns]))
    return np.ascontiguousarray(clip[: size[0], : size[1], : size[2]])
