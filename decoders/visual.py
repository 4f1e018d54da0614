"""Patches to frames. `mmcore.tokenizers.visual` is the way there."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from torch import Tensor

from mmcore.sequence import Grid


def unpatchify(values: Tensor, grid: Grid, patch: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """Put spacetime blocks together and cut off what continued the clip.

    Args:
        values: (N, P) about [-1, 1]; what lies outside is clipped.
        grid: (T, Y, X) patches.
        patch: (frames, rows, columns) of one block.
        size: (frames, rows, columns) of the clip.
    Returns:
        (T, H, W, 3) uint8.
    """
    t, y, x = patch
    pixels = ((values.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    frames = rearrange(
        pixels, "(T Y X) (t y x c) -> (T t) (Y y) (X x) c", T=grid[0], Y=grid[1], X=grid[2], t=t, y=y, x=x
    )
    return np.ascontiguousarray(frames[: size[0], : size[1], : size[2]])
