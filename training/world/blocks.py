"""What is read of pixel art: its blocks before they were worn, and how far from them a picture in full colour is.

Every block says of a picture that the mean of each channel lies within half a shade of its own. So whatever a block may
stand for is as close to it as can be, and a solid that is moved about comes closer little by little, not by leaps.
"""

from __future__ import annotations

import numpy as np

from mmcore.training.world.scene import COLOURS
from mmcore.training.world.studio import OWN
from mmcore.training.world.styles import SHADE, in_blocks, spread

BLURS = (0.0, 0.1, 0.2, 0.3)
"""How much of a block's colour may have come from the four beside it."""

TINTS = np.linspace(0.95, 1.05, 21, dtype=np.float32)
"""How much brighter each channel may have become."""

GAINS = np.linspace(0.86, 1.12, 27)
"""Gains of light that are tried."""

NEAR, FAR = 6.0, 60.0
"""A block no further than this, of 255, from what explains it is explained; and errors count no more than this."""

LIT, SHINES = np.linspace(OWN.ambient, OWN.ambient + OWN.diffuse, 7, dtype=np.float32), (0.0, 25.0, 60.0)
"""Light that falls on a solid, and white shine in it, of 255, that are tried."""

ALIKE = 4.0
"""Colours no further apart than this from a block, of 255, are as likely as each other."""

MAYBE = 0.5
"""How much a block counts that is a solid's or lies in a shadow."""

STRAY = 12.0
"""A block further from a shade than this, of 255, tells nothing of wear."""

WORN = 5.1
"""Wear leaves pixel art no further from its shades than this, of 255; any other picture is further."""


def restored(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixel art as it was before wear.

    Args:
        frames: (T, Y, X, 3) uint8.
    Returns:
        The same (T, Y, X, 3) uint8, with the blur and the tints taken back that explain the first frame best, and every
        channel at one of the shades; and how far the first frame's blocks are from what they would be, worn so, of 255.
    """
    blocks = in_blocks(frames)
    error, blur, tint = min((_tried(blocks[:1], blur) for blur in BLURS), key=lambda way: way[0])
    return spread(_shades(_sharper(blocks, blur), tint).astype(np.uint8), frames.shape[1:3]), error


def off(blocks: np.ndarray, means: np.ndarray) -> np.ndarray:
    """How far means of blocks are from what blocks of the same shape stand for, of 255."""
    return np.maximum(np.abs(blocks - means) - SHADE / 2, 0)


def explained(
    blocks: np.ndarray, bare: np.ndarray, ground: np.ndarray, shades: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """How well an empty scene explains a picture.

    Args:
        blocks: (Y, X, 3) of the picture, of 255.
        bare: (Y, X, 3) of the empty scene in full colour, under light of gain 1.
        ground: (Y, X) bool, where shadows may lie.
        shades: (S,) what a shadow may leave of the light; the last is 1.
    Returns:
        The gain of its light, the mean distance from it once it is drawn as pixel art, no block counting for more than
        FAR, and which blocks it leaves over, (Y, X): 1, or MAYBE where a shadow would explain them.
    """

    def error(gain: float) -> float:
        means = gain * bare
        drawn = SHADE * np.round(means / SHADE)
        return float(np.minimum((off(blocks, means) + np.abs(blocks - drawn)).mean(-1), FAR).mean())

    errors = np.array([error(gain) for gain in GAINS.tolist()])
    gain = float(GAINS[errors <= errors.min() + 1e-6].mean())
    apart = np.stack([off(blocks, gain * np.where(ground[..., None], shade, 1) * bare).max(-1) for shade in shades])
    return gain, float(errors.min()), np.where(apart.min(0) > NEAR, 1.0, MAYBE * (apart[-1] > NEAR)).astype(np.float32)


def colours_of(blocks: np.ndarray) -> np.ndarray:
    """For each colour of solids the blocks (Y, X, 3), of 255 under light of gain 1, that may be of it: (C, Y, X) bool.

    All that are as close as the closest are; a pixel of few shades may be of several.
    """
    lit = np.array(list(COLOURS.values()), np.float32)[:, None] * LIT[:, None]
    errors = np.stack(
        [np.min([off(blocks, tone + white).sum(-1) for tone in tones for white in SHINES], 0) for tones in lit]
    )
    return errors <= errors.min(0) + ALIKE


def _around(blocks: np.ndarray) -> np.ndarray:
    """For each block (T, Y, X, 3) the mean of the four beside it."""
    x = np.pad(blocks, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) / 4


def _sharper(blocks: np.ndarray, blur: float) -> np.ndarray:
    """Blocks (T, Y, X, 3) without what each has taken from those beside it."""
    sharp = blocks
    for _ in range(6 if blur else 0):
        sharp = np.clip((blocks - blur * _around(sharp)) / (1 - blur), 0, 255)
    return sharp


def _shades(blocks: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """The nearest shades of blocks (T, Y, X, 3) that are so tinted."""
    return SHADE * np.clip(np.round(blocks / (tint * SHADE)), 0, 255 // SHADE)


def _tried(blocks: np.ndarray, blur: float) -> tuple[float, float, np.ndarray]:
    """How far blocks (1, Y, X, 3) are from shades so blurred, under the likeliest tints; blur and tints (3,)."""
    sharp = _sharper(blocks, blur)
    tints = TINTS[:, None, None, None]
    apart = np.minimum(np.abs(sharp - np.minimum(tints * _shades(sharp, tints), 255)), STRAY).mean((1, 2))
    tint = TINTS[apart.argmin(0)]
    shades = np.minimum(tint * _shades(sharp, tint), 255)
    again = (1 - blur) * shades + blur * _around(shades)
    return float(np.abs(blocks - again).mean()), blur, tint
