"""Photographs, as crops of the few in `photographs/`: what a model must tell from scenes of solids, having seen few.

frames = photograph(np.random.default_rng(0), np.linspace(0, 1, 16), (64, 64))        # a camera moves over it
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "photographs"

LEAST = 0.25
"""The smallest crop, as a share of the shorter side."""

DOUBLE = 0.3
"""How many are two photographs seen through each other, which makes many of few."""


@cache
def _photographs() -> tuple[Image.Image, ...]:
    return tuple(Image.open(path).convert("RGB") for path in sorted(FOLDER.glob("*.webp")))


def photograph(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A part of a photograph in other colours, the camera moving and zooming.

    Args:
        rng: decides everything.
        s: (T,) moments in [0, 1].
        size: (Y, X) in pixels.
    Returns:
        (T, Y, X, 3) float in [0, 1].
    """
    clip = _passed_over(rng, s, size)
    if rng.random() < DOUBLE:
        clip += (_passed_over(rng, s, size) - clip) * rng.uniform(0.3, 0.7)
    mixed = clip[..., rng.permutation(3)] if rng.random() < 0.3 else clip
    return mixed ** rng.uniform(0.6, 1.6) * rng.uniform(0.75, 1.15, 3)


def _passed_over(rng: np.random.Generator, s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, Y, X, 3) of one photograph, between two crops of it."""
    photographs = _photographs()
    whole = photographs[int(rng.integers(len(photographs)))]
    width, height = whole.size
    across = rng.uniform(LEAST, 1) * min(width, height) * (1 - rng.uniform(0, 0.3, 2) * (len(s) > 1))
    left, top = rng.random(2) * (width - across), rng.random(2) * (height - across)
    clip = np.empty((len(s), *size, 3))
    for frame, moment in zip(clip, s, strict=True):
        x, y, side = (start + (end - start) * moment for start, end in (left, top, across))
        part = whole.resize((size[1], size[0]), Image.Resampling.BILINEAR, (x, y, x + side, y + side), reducing_gap=2.0)
        frame[:] = np.asarray(part) / 255
    return clip[:, :, ::-1] if rng.random() < 0.5 else clip
