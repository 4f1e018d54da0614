"""Styles and wear by PyTorch, many frames at once: what `styles` and `wear` do, but for rounding. See `device`.

worn(styled(frames, style), sheet)   # (F, Y, X, 3) float32 of whole numbers in [0, 255]
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcore.training.world import sheet as columns
from mmcore.training.world.scene import STYLES
from mmcore.training.world.styles import BLOCK, DARKEST, LEAD, PAPER, PRESSURE, SHADE
from mmcore.training.world.wear import GRAIN, LUMA, UNGRADED

WORD = 0xFFFFFFFF
"""The bits of a 32-bit integer."""


def _padded(frames: Tensor) -> Tensor:
    """(F, Y, X, C) with its edges once more on each side."""
    rows = torch.cat((frames[:, :1], frames, frames[:, -1:]), 1)
    return torch.cat((rows[:, :, :1], rows, rows[:, :, -1:]), 2)


def styled(frames: Tensor, style: Tensor) -> Tensor:
    """Each frame in its style; see `styles.styled`."""
    f, y, x, _ = frames.shape
    luma = (frames * torch.from_numpy(LUMA).to(frames.device)).sum(-1, keepdim=True)
    edges = _padded(luma)
    across = (edges[:, 1:-1, 2:] - edges[:, 1:-1, :-2]).abs()
    down = (edges[:, 2:, 1:-1] - edges[:, :-2, 1:-1]).abs()
    lines = (PRESSURE * (across + down - 12).clamp(min=0)).clamp(max=DARKEST)
    blocks = frames.view(f, y // BLOCK, BLOCK, x // BLOCK, BLOCK, 3).mean((2, 4))
    flat = (torch.round(blocks / SHADE) * SHADE).repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    drawn = {
        "grayscale": torch.floor((luma + 0.5).clamp(0, 255)).expand_as(frames),
        "pixel art": flat,
        "pencil sketch": torch.floor((PAPER + LEAD / 255 * luma - lines + 0.5).clamp(0, 255)).expand_as(frames),
    }
    for name, other in drawn.items():
        frames = torch.where((style == STYLES.index(name))[:, None, None, None], other, frames)
    return frames


def worn(frames: Tensor, sheet: Tensor) -> Tensor:
    """Each frame worn, but for the codec; see `wear.worn`."""
    softness = sheet[:, columns.SOFTNESS, None, None, None]
    frames = _graded(frames, sheet)
    edges = _padded(frames)
    around = edges[:, :-2, 1:-1] + edges[:, 2:, 1:-1] + edges[:, 1:-1, :-2] + edges[:, 1:-1, 2:]
    mixed = (1 - softness) * frames + softness * (around * 0.25)
    mixed = mixed * sheet[:, None, None, columns.TINT : columns.TINT + 3]
    deviation, seed, place = sheet[:, columns.NOISE : columns.NOISE + 3, None, None, None].unbind(1)
    mixed = mixed + deviation * _grain(seed.long(), place.long(), frames.shape)
    return torch.floor((mixed + 0.5).clamp(0, 255))


def _graded(frames: Tensor, sheet: Tensor) -> Tensor:
    """Each frame in its grade; see `wear.graded`."""
    grade = sheet[:, columns.GRADE : columns.GRADE + len(UNGRADED)]
    saturation, hue, contrast, brightness, gamma, bands = grade[..., None, None, None].unbind(1)
    r, g, b = frames.unbind(-1)
    along = (1 - torch.cos(hue)) / 3 * frames.sum(-1, keepdim=True)
    across = torch.sin(hue) / 3**0.5 * torch.stack((b - g, r - b, g - r), -1)
    gray = (frames * torch.from_numpy(LUMA).to(frames.device)).sum(-1, keepdim=True)
    mixed = gray + saturation * (torch.cos(hue) * frames + along + across - gray)
    mixed = brightness * (contrast * (mixed - 128) + 128)
    mixed = 255 * (mixed / 255).clamp(0, 1) ** gamma
    mixed = torch.where(bands > 0, torch.round(mixed / bands.clamp(min=1)) * bands, mixed)
    is_graded = (grade != torch.tensor(UNGRADED, device=grade.device)).any(1)
    return torch.where(is_graded[:, None, None, None], mixed, frames)


def _grain(seed: Tensor, place: Tensor, shape: torch.Size) -> Tensor:
    """Noise of each frame, by the seed and the frame's place in its clip; see `wear.grain`."""
    numbers = shape[1] * shape[2] * shape[3]
    at = torch.arange(numbers, device=seed.device).view(1, *shape[1:]) + place * numbers + _hashed(seed)
    word = _hashed(at & WORD)
    total = (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24) - 510
    return total / GRAIN


def _hashed(x: Tensor) -> Tensor:
    """32-bit integers, held in 64 bits, well mixed; see `wear.hashed`."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & WORD
    return x ^ (x >> 16)
