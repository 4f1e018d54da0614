"""The parts that blocks are made of: norm, feed-forward, rotary positions, attention, sinusoids.

Shapes: `B` batch, `L` positions, `D` width, `H` heads, `G` key-value heads, `K` head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcore.attention import Mask, attend
from mmcore.cache import Cache
from mmcore.config import MMCoreConfig


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with a learnt gain (arXiv 1910.07467), computed in float32.

    Args:
        width: `D`.
        gain: what the learnt gain begins at.
        eps: what is added to the mean square.
    """

    def __init__(self, width: int, gain: float = 1.0, eps: float = 1e-6) -> None:
        self.gain = gain
        super().__init__(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), in the dtype of `x`.

        Without gradients it is written out: uncompiled, `F.rms_norm` took 22 % of a sampling step on a CPU.
        """
        wide, weight = x.float(), self.weight.float()
        if torch.is_grad_enabled():
            return F.rms_norm(wide, self.normalized_shape, weight, self.eps).to(x.dtype)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(wide.shape[-1]).add_(self.eps).rsqrt_()
        return (wide * scale).mul_(weight).to(x.dtype)


class ZeroLinear(nn.Linear):
    """A matrix that begins at 0: what ends a residual branch, so that every block begins as the identity."""

    def __init__(self, width_in: int, width_out: int, bias: bool = False) -> None:
        super().__init__(width_in, width_out, bias=bias)


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202) behind its own norm."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.ff_width
        self.norm = RMSNorm(width, eps=config.norm_eps)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = ZeroLinear(hidden, width)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., D); `level` (..., 3 D) shifts and scales what comes in, and scales what goes out."""
        x = self.norm(x)
        if level is None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        shift, scale, gain = level.chunk(3, -1)
        x = x * (1 + scale) + shift
        return self.down(F.silu(self.gate(x)) * self.up(x)) * (1 + gain)


def rotary_shares(head_width: int) -> tuple[int, int, int]:
    """How many of a head's K / 2 pairs of channels turn with t, h and w: a quarter, three eighths, three eighths."""
    pairs = head_width // 2
    return pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8


def rotary_axes(config: MMCoreConfig) -> Tensor:
    """Which of t, h and w each of a head's pairs of channels turns with: (K / 2) integers.

    Our own frequencies are a list for each axis. A list that was made for text is dealt out in turn, so that every
    axis gets fast ones and slow ones (as the interleaved M-RoPE of Qwen3-VL, arXiv 2511.21631).
    """
    if config.rope_rates:
        return torch.arange(len(config.rope_rates), device="cpu") % 3
    return torch.arange(3, device="cpu").repeat_interleave(torch.tensor(rotary_shares(config.head_width), device="cpu"))


def rotary_angles(positions: Tensor, config: MMCoreConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of three-axis rotary positions (as M-RoPE, arXiv 2409.12191).

    Args:
        positions: (B, L, 3) integer (t, h, w). Where all three are one number, as in text, axes make no difference.
        config: says which frequencies.
    Returns:
        what `rotate` takes: cosines and signed sines, each (B, 1, L, K) float32.
    """
    device, shares = positions.device, rotary_shares(config.head_width)
    if config.rope_rates:
        rates = torch.tensor(config.rope_rates, device=device)
    else:
        steps = torch.cat([torch.arange(n, dtype=torch.float32, device=device) / n for n in shares])
        rates = config.rope_theta**-steps
    angle = (positions.float()[..., rotary_axes(config).to(device)] * rates)[:, None]
    cos, sin = angle.cos(), angle.sin()
    if config.rope_scale != 1:
        cos, sin = cos * config.rope_scale, sin * config.rope_scale
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel i against channel i + K / 2: x (B, H, L, K), cos and sin (B, 1, L, K) from `rotary_angles`."""
    wide = x.float()
    return torch.addcmul(wide * cos, wide.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


def keep(past: tuple[Tensor, Tensor] | None, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the past and of the new positions.

    Args:
        past: buffers (B, G, past + L, K) whose last `L` places are free: they are filled here; or None.
        k: new keys (B, G, L, K).
        v: new values (B, G, L, K).
    """
    if past is None:
        return k, v
    keys, values = past
    keys[:, :, -k.shape[2] :] = k
    values[:, :, -v.shape[2] :] = v
    return keys, values


QUERY_GAIN = 2.0
"""What the gain of queries begins at: a score may then reach 16 for heads of 64, and attention can be sharp."""


class Attention(nn.Module):
    """Multi-head attention with rotary positions, behind its own norm; the configuration says of which kind."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        width, k, biases = config.width, config.head_width, config.biases
        self.kv_heads, self.head_width = config.kv_heads, k
        self.norm = RMSNorm(width, eps=config.norm_eps)
        self.query = nn.Linear(width, config.heads * k, bias="query" in biases)
        self.key = nn.Linear(width, config.kv_heads * k, bias="key" in biases)
        self.value = nn.Linear(width, config.kv_heads * k, bias="value" in biases)
        self.out = ZeroLinear(config.heads * k, width, bias="out" in biases)
        self.query_norm = RMSNorm(k, QUERY_GAIN, config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(k, eps=config.norm_eps) if config.qk_norm else nn.Identity()

    def room(self, cache: Cache, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """A cache's buffers for this layer, with room for new positions x (B, L, D)."""
        return cache.room(layer, x.new_empty(x.shape[0], self.kv_heads, x.shape[1], self.head_width))

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Mask, past: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(B, L, D) -> (B, L, D).

        Args:
            x: the residual stream.
            rope: cosines and sines for the `L` new positions.
            mask: who sees whom: `L` queries by `past + L` keys.
            past: key and value buffers (B, G, past + L, K) whose last `L` places are free: they are filled here.
        """
        x = self.norm(x)
        parts = (f(x) for f in (self.query, self.key, self.value))
        q, k, v = (rearrange(part, "b l (h k) -> b h l k", k=self.head_width) for part in parts)
        q, k = rotate(self.query_norm(q), *rope), rotate(self.key_norm(k), *rope)
        k, v = keep(past, k, v)
        return self.out(rearrange(attend(q, k, v, mask), "b h l k -> b l (h k)"))


def run(block: nn.Module, checkpointing: bool, *inputs: object, **named: Any) -> Any:
    """A block's output.

    Args:
        block: one layer.
        checkpointing: whether, in training, it runs again in the backward pass and keeps nothing but its inputs until
            then (arXiv 1604.06174).
        inputs: what the block takes.
        named: the same, by name.
    """
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False, **named)
    return block(*inputs, **named)


def sinusoids(x: Tensor, count: int, longest: float, shortest: float) -> Tensor:
    """Sines and cosines of a number at `count` wavelengths, spaced geometrically.

    Args:
        x: (...) any real numbers.
        count: how many wavelengths.
        longest: the first wavelength, in units of x.
        shortest: the last one.
    Returns:
        (..., 2 count) float32 in [-1, 1].
    """
    steps = torch.linspace(0, 1, count, device=x.device)
    wavelengths = longest * (shortest / longest) ** steps
    angle = x[..., None].float() * (2 * torch.pi / wavelengths)
    return torch.cat((angle.sin(), angle.cos()), -1)
