"""What cameras, codecs and models do to pictures: those that are read come a little soft and a little noisy.

worn(rng, frames)                    # (T, Y, X, 3) uint8, now and then untouched
"""

from __future__ import annotations

import numpy as np

SHARE = 0.6
"""How many pictures are touched at all."""

SOFTNESS, NOISE = 0.7, 5.0
"""The most that a pixel takes from its four neighbours, and the largest standard deviation of noise, of 255."""


def worn(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """The same frames, worn.

    Args:
        rng: decides how much.
        frames: (T, Y, X, 3) uint8.
    """
    if rng.random() > SHARE:
        return frames
    softness, noise = np.float32(rng.uniform(0, SOFTNESS)), np.float32(rng.uniform(0, NOISE))
    x = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge").astype(np.float32)
    around = (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) * np.float32(0.25)
    mixed = (1 - softness) * x[:, 1:-1, 1:-1] + softness * around
    mixed += noise * rng.standard_normal(frames.shape, np.float32)
    return np.clip(mixed + np.float32(0.5), 0, 255).astype(np.uint8)
