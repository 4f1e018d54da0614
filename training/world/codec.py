"""JPEG (ITU-T T.81) there and back by PyTorch, many frames at once: as libjpeg with 4:2:0 chroma, but for rounding.

through_codec(frames, quality)       # (F, Y, X, 3) whole numbers in [0, 255], (F,) with 0 for none
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Steps of the coefficients at quality 50 (T.81, tables K.1 and K.2)."""


def through_codec(frames: Tensor, quality: Tensor) -> Tensor:
    """Frames through JPEG and back.

    Args:
        frames: (F, Y, X, 3) float32 of whole numbers in [0, 255], Y and X multiples of 16.
        quality: (F,) 50 to 100; frames with 0 are left as they are.
    """
    r, g, b = frames.unbind(-1)
    luma = torch.round(0.299 * r + 0.587 * g + 0.114 * b)
    blue = torch.round(-0.168735892 * r - 0.331264108 * g + 0.5 * b + 128)
    red = torch.round(0.5 * r - 0.418687589 * g - 0.081312411 * b + 128)
    luma = _coded(luma, _LUMA, quality)
    blue, red = (_wider(_coded(_halved(chroma), _CHROMA, quality)) - 128 for chroma in (blue, red))
    back = torch.stack((luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue), -1)
    return torch.where(quality[:, None, None, None] > 0, torch.round(back).clamp(0, 255), frames)


def _coded(plane: Tensor, steps: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """A plane (F, Y, X) as its coefficients in whole steps bring it back."""
    f, y, x = plane.shape
    basis = _cosines(plane.device)
    blocks = plane.view(f, y // 8, 8, x // 8, 8).transpose(2, 3) - 128
    table = torch.tensor(steps, device=plane.device, dtype=torch.float32)
    share = (200 - 2 * quality.clamp(50, 100))[:, None, None]
    step = torch.floor((table * share + 50) / 100).clamp(1, 255)[:, None, None]
    found = torch.round(basis @ blocks @ basis.T / step) * step
    return torch.round(basis.T @ found @ basis + 128).clamp(0, 255).transpose(2, 3).reshape(f, y, x)


def _cosines(device: torch.device) -> Tensor:
    """(8, 8) the discrete cosine transform, a frequency in each row."""
    place, frequency = torch.arange(8, device=device), torch.arange(8, device=device)[:, None]
    waves = 0.5 * torch.cos(math.pi / 16 * (2 * place + 1) * frequency)
    return torch.where(frequency == 0, math.sqrt(0.125), waves)


def _halved(plane: Tensor) -> Tensor:
    """(F, Y, X) at half the size; halves are rounded up and down by turns, as libjpeg does."""
    total = plane[:, ::2, ::2] + plane[:, 1::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, 1::2]
    turns = 1 + torch.arange(total.shape[2], device=plane.device) % 2
    return torch.floor((total + turns) / 4)


def _wider(plane: Tensor) -> Tensor:
    """(F, Y, X) at twice the size: three quarters of the nearest, one of the next, in each direction."""
    above = torch.cat((plane[:, :1], plane[:, :-1]), 1)
    below = torch.cat((plane[:, 1:], plane[:, -1:]), 1)
    tall = torch.stack((3 * plane + above, 3 * plane + below), 2).flatten(1, 2)
    left = torch.cat((tall[:, :, :1], tall[:, :, :-1]), 2)
    right = torch.cat((tall[:, :, 1:], tall[:, :, -1:]), 2)
    wide = torch.stack((3 * tall + left + 8, 3 * tall + right + 7), 3).flatten(2)
    return torch.floor(wide / 16)
