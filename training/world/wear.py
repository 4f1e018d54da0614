"""What cameras, codecs and models do to pictures: those that are read come soft, tinted, noisy, and compressed.

worn(rng, frames)                    # (T, Y, X, 3) uint8, now and then untouched
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image as PILImage

SHARE = 0.6
"""How many pictures are touched at all."""

SOFTNESS, TINT, NOISE = 0.7, 0.04, 5.0
"""The most that a pixel takes from its four neighbours, that a channel is brightened or darkened by, and the largest
standard deviation of noise, of 255."""

COMPRESSED = 0.4
"""How many of the touched ones have been through a codec (JPEG, frame by frame)."""

QUALITIES = 60, 95
"""JPEG's quality, from and to."""


def worn(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """The same frames, worn.

    Args:
        rng: decides how much.
        frames: (T, Y, X, 3) uint8.
    """
    if rng.random() > SHARE:
        return frames
    softness, noise = np.float32(rng.uniform(0, SOFTNESS)), np.float32(rng.uniform(0, NOISE))
    tint = rng.uniform(1 - TINT, 1 + TINT, 3).astype(np.float32)
    x = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge").astype(np.float32)
    around = (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) * np.float32(0.25)
    mixed = ((1 - softness) * x[:, 1:-1, 1:-1] + softness * around) * tint
    mixed += noise * rng.standard_normal(frames.shape, np.float32)
    touched = np.clip(mixed + np.float32(0.5), 0, 255).astype(np.uint8)
    return compressed(touched, int(rng.integers(*QUALITIES))) if rng.random() < COMPRESSED else touched


def compressed(frames: np.ndarray, quality: int) -> np.ndarray:
    """Frames through JPEG and back."""
    clip = np.empty_like(frames)
    for f, frame in enumerate(frames):
        held = BytesIO()
        PILImage.fromarray(frame).save(held, "jpeg", quality=quality)
        clip[f] = np.asarray(PILImage.open(held))
    return clip
