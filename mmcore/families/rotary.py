"""Rotary positions of released models: one list of frequencies, shared out over one or three axes.

    cos, sin = turns(coords, frequencies(128, 1e6), (64, 0, 0))     # one axis; (16, 24, 24) is Qwen2-VL's M-RoPE

`mmcore.layers.rotate` takes the result. Our own model gives every axis frequencies of its own
(`mmcore.layers.rotary_angles`); these give each frequency to one axis.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(head_width: int, theta: float, device: torch.device | None = None) -> Tensor:
    """Angles per position of a head's pairs of channels: (K / 2) float32, from 1 down to about 1 / theta."""
    half = torch.arange(0, head_width, 2, dtype=torch.float32, device=device)
    return theta ** (-half / head_width)


def turns(coords: Tensor, rates: Tensor, sections: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines for `mmcore.layers.rotate` (M-RoPE, arXiv 2409.12191).

    Args:
        coords: (B, L, 3) positions (t, h, w).
        rates: (K / 2) angles per position.
        sections: how many of the rates, in order, turn with t, h and w; they add up to K / 2.
    Returns:
        Two tensors (B, 1, L, K) float32.
    """
    axis = torch.arange(3, device=coords.device).repeat_interleave(torch.tensor(sections, device=coords.device))
    angle = (coords.float()[..., axis] * rates)[:, None]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
