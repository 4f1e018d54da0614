"""Media at a few shapes and one number of pixels, as models that were trained in buckets take them.

    size = bucket((1080, 1920), side=768)                 # (576, 1024): about 768 * 768 pixels
    frames = shaped(frames, size)                         # its middle, in that shape
    frames = sampled(frames, fps=30, rate=12, longest=6)  # 4 n + 1 of them

The six shapes and the roundings are those of Lance's preprocessing. Shapes: `T` frames, `H` rows, `W` columns.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage

SHAPES = (21 / 9, 16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)
"""Columns to rows."""


def bucket(size: tuple[int, int], side: int, multiple: int = 16) -> tuple[int, int]:
    """Rows and columns of the bucket whose shape is nearest.

    Args:
        size: rows and columns of a medium.
        side: buckets have about side * side pixels.
        multiple: their sides are multiples of it.
    """
    buckets = [_rounded(shape, side, multiple) for shape in SHAPES]
    return min(buckets, key=lambda b: abs(size[1] / size[0] - b[1] / b[0]))


def _rounded(shape: float, side: int, multiple: int) -> tuple[int, int]:
    """The bucket of a shape: one side is rounded first, the other follows, whichever way keeps the shape better."""

    def near(n: float) -> int:
        return max(1, round(n / multiple)) * multiple

    columns, rows = near(side * shape**0.5), near(side / shape**0.5)
    found = ((near(columns / shape), columns), (rows, near(rows * shape)))
    return min(found, key=lambda b: (abs(b[1] / b[0] - shape), abs(b[0] * b[1] - side * side)))


def shaped(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of frames (T, H, W, 3) uint8, as much as has the shape of (rows, columns), at that size, bicubic."""
    height, width = frames.shape[1:3]
    if (height, width) == size:
        return frames
    shape = size[1] / size[0]
    rows, columns = (height, round(height * shape)) if width > height * shape else (round(width / shape), width)
    top, left = (height - rows) // 2, (width - columns) // 2
    box = (left, top, left + columns, top + rows)
    bicubic = PILImage.Resampling.BICUBIC
    small = [PILImage.fromarray(frame).crop(box).resize((size[1], size[0]), bicubic) for frame in frames]
    return np.stack([np.asarray(frame) for frame in small])


def middle(frames: np.ndarray, multiple: int) -> np.ndarray:
    """The middle of frames (T, H, W, 3) whose sides are the largest multiples."""
    rows, columns = (n // multiple * multiple for n in frames.shape[1:3])
    top, left = (round((n - m) / 2) for n, m in zip(frames.shape[1:3], (rows, columns), strict=True))
    return frames[:, top : top + rows, left : left + columns]


def sampled(frames: np.ndarray, fps: float, rate: float, longest: float) -> np.ndarray:
    """Frames of a clip (T, H, W, 3), spread evenly over all of it: 4 n + 1, below `rate` a second of its time.

    Args:
        frames: the clip.
        fps: its frames per second.
        rate: frames per second to take.
        longest: seconds that count at most; a longer clip is taken more sparsely.
    """
    count = round(min(len(frames) / fps, longest) * rate)
    count = max(0, count - 1) // 4 * 4 + 1
    return frames[np.linspace(0, len(frames) - 1, count, dtype=int)]
