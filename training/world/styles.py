"""How a scene is drawn: in full colour, in grayscale, as pixel art, as a pencil sketch.

styled(frames, "pencil sketch")      # (T, Y, X, 3) uint8
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from mmcore.training.world.camera import GROUND_SKY
from mmcore.training.world.scene import COLOURLESS, COLOURS, STYLES, Scene
from mmcore.training.world.wear import LUMA

BLOCK, SHADE = 2, 51
"""Pixel art: the side of its pixels, and how far apart the shades of each channel are, of 255."""

PAPER, LEAD = 150.0, 105.0
"""A pencil sketch: the darkest surface, and how much brighter the brightest is, of 255."""

PRESSURE, DARKEST = 0.7, 90.0
"""How dark a line is for each unit of difference across it, and at most."""


COLOURFUL = 18.0
"""How far from gray, of 255, some part of a picture in colour is."""

CONTRAST = 40.0
"""How much brighter or darker than the ground a solid must be where one sees no colours, of 255."""


def stands_out(scene: Scene) -> bool:
    """Whether one sees a scene's solids in its style: without colours, no more than two, apart from the ground."""
    if scene.style not in COLOURLESS:
        return True
    ground = float(GROUND_SKY[scene.backdrop][0] @ LUMA)
    lit = [0.85 * float(COLOURS[solid.colour] @ LUMA) for solid in scene.solids]
    return len(lit) <= 2 and all(abs(luma - ground) > CONTRAST for luma in lit)


def styled(frames: np.ndarray, style: str) -> np.ndarray:
    """Frames in full colour, drawn in another style.

    Args:
        frames: (T, Y, X, 3) uint8.
        style: one of `scene.STYLES`.
    """
    match style:
        case "pixel art":
            return _pixel_art(frames)
        case "grayscale":
            return _gray(frames @ LUMA)
        case "pencil sketch":
            luma = frames @ LUMA
            padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
            across = np.abs(padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
            down = np.abs(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
            lines = np.minimum(PRESSURE * np.maximum(across + down - 12, 0), DARKEST)
            return _gray(PAPER + LEAD / 255 * luma - lines)
    return frames


def softer(frames: np.ndarray, style: str) -> np.ndarray:
    """A pencil sketch with its lines wide enough to be compared with softer ones; any other style as it is."""
    if style != "pencil sketch":
        return frames
    padded = np.pad(frames[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge").astype(np.uint16)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return (total // 9).astype(np.uint8)[..., None].repeat(3, -1)


def likely_styles(frames: np.ndarray) -> tuple[str, ...]:
    """Styles that frames (T, Y, X, 3) uint8 may be in, by whether one sees colours."""
    few = frames[:: max(len(frames) // 4, 1)].astype(np.float32)
    t, y, x = few.shape[:3]
    soft = few[:, : y // 4 * 4, : x // 4 * 4].reshape(t, y // 4, 4, x // 4, 4, 3).mean((2, 4))
    tint = soft - soft.mean((0, 1, 2))
    colourful = np.abs(tint - tint.mean(-1, keepdims=True)).max() > COLOURFUL
    return tuple(style for style in STYLES if (style in COLOURLESS) != colourful)


def in_blocks(frames: np.ndarray) -> np.ndarray:
    """Pictures (T, Y, X, 3) as means over the blocks of pixel art: (T, Y / BLOCK, X / BLOCK, 3) float32."""
    y, x = frames.shape[1] // BLOCK * BLOCK, frames.shape[2] // BLOCK * BLOCK
    whole = frames[:, :y, :x].astype(np.float32)
    pixels = (whole[:, i::BLOCK, j::BLOCK] for i in range(BLOCK) for j in range(BLOCK))
    return reduce(np.add, pixels) / np.float32(BLOCK**2)


def spread(blocks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Blocks (T, Y, X, ...) as pictures of a size (height, width); what is over repeats the last block."""
    rows, columns = (np.minimum(np.arange(n) // BLOCK, n // BLOCK - 1) for n in size)
    return blocks[:, rows[:, None], columns]


def _gray(luma: np.ndarray) -> np.ndarray:
    """(T, Y, X) -> (T, Y, X, 3) uint8."""
    return np.clip(luma + 0.5, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def _pixel_art(frames: np.ndarray) -> np.ndarray:
    """Blocks of one colour, each channel in few shades."""
    flat = (np.round(in_blocks(frames) / SHADE) * SHADE).astype(np.uint8)
    return spread(flat, frames.shape[1:3])
