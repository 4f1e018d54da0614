"""What is read of a pencil sketch: how light it is, and what its lines enclose. See `peel.explain_sketch`."""

from __future__ import annotations

import numpy as np

CONTRAST = 0.85, 1.2
"""How much contrast light and wear leave a sketch, at least and at most."""


def levelled(frames: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Sketches as light and as full of contrast as they would be of an empty scene, and gray.

    Args:
        frames: (T, Y, X, 3) uint8.
        expected: (Y, X, 3) uint8, the first without solids, under light of gain 1.
    """
    gray, bare = frames.astype(np.float32).mean(-1), expected.astype(np.float32).mean(-1).ravel()
    first, fits, slope, begin = gray[0].ravel(), np.ones(bare.shape, bool), 1.0, 0.0
    for _ in range(4):
        slope = float(np.clip(np.polyfit(bare[fits], first[fits], 1)[0], *CONTRAST))
        begin = float(np.median(first[fits] - slope * bare[fits]))
        off = np.abs(first - slope * bare - begin)
        fits = off <= max(2 * float(np.median(off)), 1.0)
    level = (gray - begin) / slope
    return np.clip(level + 0.5, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def enclosed(lines: np.ndarray) -> np.ndarray:
    """What soft lines (Y, X) bool enclose, small gaps closed; without their outer parts, and what is as thin."""
    closed = ~_inner(~lines)
    outside, grown = np.zeros_like(closed), ~closed
    grown[1:-1, 1:-1] = False
    while (grown & ~outside).any():
        outside, padded = grown, np.pad(grown, 1)
        near = padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
        grown = outside | (near & ~closed)
    return _inner(_inner(_inner(~outside)))


def _inner(mask: np.ndarray) -> np.ndarray:
    """The pixels (Y, X) of a mask whose eight neighbours are in it too."""
    padded, (rows, columns) = np.pad(mask, 1, mode="edge"), mask.shape
    return np.logical_and.reduce([padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)])
