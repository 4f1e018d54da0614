"""What cameras, codecs and models do to pictures: those that are read come soft, tinted, noisy, and compressed.

Some are graded besides: other people's pictures have other colours for the same things.

wear = sample_wear(rng)              # None now and then
worn(frames, wear)                   # (T, Y, X, 3) uint8
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

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

BRIGHTNESS, CONTRAST, SATURATION, GAMMA = (0.8, 1.2), (0.75, 1.3), (0.5, 1.6), (0.75, 1.35)
"""What a grade multiplies colours, their distance from middle gray and that from gray by, and what power it takes."""

HUE = 0.14
"""How far a grade turns hues at most, radians: a third of the way from orange to yellow."""

BANDED, BANDS = 0.5, (6.0, 40.0)
"""How many grades leave few shades of each channel, and how far apart these are, of 255."""

LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""ITU-R BT.601."""

SEEDS = 2**24
"""So many seeds of noise there are: a float32 holds each of them."""

GRAIN = 2 * (256**2 - 1) ** 0.5 / 12**0.5
"""Standard deviation of the sum of four bytes."""


class Grade(NamedTuple):
    """Other colours for a picture (as torchvision's ColorJitter and RandomPosterize have them). By default none.

    Args:
        saturation: what the distance from gray is multiplied by.
        hue: how far colours turn about gray, radians.
        contrast: what the distance from middle gray is multiplied by.
        brightness: what all is multiplied by.
        gamma: the power that is taken of what then is in [0, 1].
        bands: how far apart shades of each channel are, of 255; 0 leaves all of them.
    """

    saturation: float = 1.0
    hue: float = 0.0
    contrast: float = 1.0
    brightness: float = 1.0
    gamma: float = 1.0
    bands: float = 0.0


UNGRADED = Grade()


@dataclass(frozen=True)
class Wear:
    """How much a picture or a clip is worn.

    Args:
        softness: what a pixel takes from its four neighbours, in [0, 1].
        tint: what each channel is multiplied with.
        noise: standard deviation, of 255.
        seed: of the noise, below SEEDS.
        quality: JPEG's; 0 where it has been through no codec.
        grade: what was done to its colours before that.
    """

    softness: float
    tint: tuple[float, float, float]
    noise: float
    seed: int
    quality: int
    grade: Grade = UNGRADED


UNTOUCHED = Wear(0.0, (1.0, 1.0, 1.0), 0.0, 0, 0)
"""The wear that changes nothing."""


def sample_grade(rng: np.random.Generator) -> Grade:
    """Draw a grade."""
    saturation, hue = float(rng.uniform(*SATURATION)), float(rng.uniform(-HUE, HUE))
    contrast, brightness, gamma = (float(rng.uniform(*bounds)) for bounds in (CONTRAST, BRIGHTNESS, GAMMA))
    bands = float(rng.uniform(*BANDS)) if rng.random() < BANDED else 0.0
    return Grade(saturation, hue, contrast, brightness, gamma, bands)


def sample_wear(rng: np.random.Generator) -> Wear | None:
    """Draw how much; None where a picture is untouched."""
    if rng.random() > SHARE:
        return None
    softness, noise = float(rng.uniform(0, SOFTNESS)), float(rng.uniform(0, NOISE))
    red, green, blue = rng.uniform(1 - TINT, 1 + TINT, 3).tolist()
    quality = int(rng.integers(*QUALITIES)) if rng.random() < COMPRESSED else 0
    return Wear(softness, (red, green, blue), noise, int(rng.integers(SEEDS)), quality)


def worn(frames: np.ndarray, wear: Wear | None) -> np.ndarray:
    """Frames (T, Y, X, 3) uint8, worn; None leaves them as they are."""
    if wear is None:
        return frames
    softness, colours = np.float32(wear.softness), frames.astype(np.float32)
    if wear.grade != UNGRADED:
        colours = graded(colours, wear.grade)
    x = np.pad(colours, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    around = (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) * np.float32(0.25)
    mixed = ((1 - softness) * x[:, 1:-1, 1:-1] + softness * around) * np.array(wear.tint, np.float32)
    mixed += np.float32(wear.noise) * grain(wear.seed, frames.shape)
    touched = np.clip(mixed + np.float32(0.5), 0, 255).astype(np.uint8)
    return compressed(touched, wear.quality) if wear.quality else touched


def graded(frames: np.ndarray, grade: Grade) -> np.ndarray:
    """Frames (T, Y, X, 3) float32 in [0, 255] in other colours."""
    saturation, hue, contrast, brightness, gamma, bands = np.array(grade, np.float32)
    gray = (frames @ LUMA)[..., None]
    turned = frames @ turn_of_hues(float(hue)).T
    mixed = gray + saturation * (turned - gray)
    mixed = brightness * (contrast * (mixed - 128) + 128)
    mixed = 255 * np.clip(mixed / 255, 0, 1) ** gamma
    return np.round(mixed / bands) * bands if bands else mixed


def turn_of_hues(angle: float) -> np.ndarray:
    """(3, 3) the rotation of colours about gray, radians."""
    along = np.float32((1 - np.cos(angle)) / 3)
    across = np.float32(np.sin(angle) / 3**0.5) * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32)
    return np.float32(np.cos(angle)) * np.eye(3, dtype=np.float32) + along + across


def grain(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of mean 0 and standard deviation 1, nearly normal: each value is the sum of four bytes of a hash.

    Args:
        seed: below SEEDS.
        shape: of the noise; the same place in it has the same value on every machine.
    """
    at = np.arange(int(np.prod(shape)), dtype=np.uint32) + hashed(np.array([seed], np.uint32))
    total = hashed(at).view(np.uint8).reshape(-1, 4).sum(1, dtype=np.int32) - 510
    return (total.astype(np.float32) / np.float32(GRAIN)).reshape(shape)


def hashed(x: np.ndarray) -> np.ndarray:
    """32-bit integers well mixed ("lowbias32", nullprogram.com/blog/2018/07/31)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def compressed(frames: np.ndarray, quality: int) -> np.ndarray:
    """Frames through JPEG and back."""
    clip = np.empty_like(frames)
    for f, frame in enumerate(frames):
        held = BytesIO()
        PILImage.fromarray(frame).save(held, "jpeg", quality=quality)
        clip[f] = np.asarray(PILImage.open(held))
    return clip
