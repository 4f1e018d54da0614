"""Transformer blocks over what a core has made of a document, which turn noisy latents into a velocity.

    head = DiffusionHead(HeadShape(Shape(2048, 10, 32, 8, 8192, bias=False)), out=64)
    v = head(hidden, level, layout, cache)          # (B, L, E) -> (B, L, 64), of use where latents stand

Text and latents go through the same blocks under the mask of the core; only where a medium stands, its noise level
shifts, scales and gates them (adaLN, as DiT, arXiv 2212.09748; the head is that of Show-o2, arXiv 2506.15564). Shapes:
`B` rows, `L` positions, `E` width of the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from mmcore.attention import TEXT, Mask, attend, make_mask
from mmcore.cache import Cache
from mmcore.families.experts import GatedMLP, Projections, Shape
from mmcore.families.lanes import Layout
from mmcore.families.rotary import frequencies, turns
from mmcore.layers import RMSNorm, keep, rotate, run


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a head, and its rotary positions, stretched as those of Llama 3.

    Args:
        shape: of its blocks.
        theta: base of the rotary frequencies.
        factor: waves that are long beside `original` are made so many times longer.
        low: waves that fit into `original` fewer times are long.
        high: waves that fit into it more often are left as they are; those between, in part.
        original: positions.
        eps: of the norms of the blocks.
    """

    shape: Shape
    theta: float = 5e5
    factor: float = 32.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    eps: float = 1e-5

    def rates(self, device: torch.device) -> Tensor:
        """Angles per position, (K / 2) float32."""
        plain = frequencies(self.shape.head_width, self.theta, device)
        fits = self.original * plain / (2 * math.pi)
        kept = ((fits - self.low) / (self.high - self.low)).clamp(0, 1)
        return plain * (kept + (1 - kept) / self.factor)


def modulation(width: int, count: int) -> nn.Sequential:
    """From a noise level (..., E) to `count` vectors side by side (..., count E)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


class HeadBlock(nn.Module):
    """One layer of the head."""

    home: torch.device | None = None
    """Where it runs, if not where its input is."""

    def __init__(self, config: HeadShape) -> None:
        super().__init__()
        width = config.shape.width
        self.input_layernorm = RMSNorm(width, eps=config.eps)
        self.self_attn = Projections(config.shape)
        self.post_attention_layernorm = RMSNorm(width, eps=config.eps)
        self.mlp = GatedMLP(width, config.shape.hidden)
        self.adaLN_modulation = modulation(width, 6)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        visual: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Mask,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, L, E) -> the same.

        Args:
            x: the residual stream.
            level: (B, 1 or L, E) noise level of each row or position.
            visual: (B, L, 1) bool, where it counts.
            rope: cosines and sines of the positions.
            mask: L queries by past + L keys.
            past: as in `mmcore.layers.Attention`.
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(level).chunk(6, -1)
        q, k, v = self.self_attn(torch.where(visual, *_both(self.input_layernorm(x), shift, scale)))
        k, v = keep(past, rotate(k, *rope), v)
        out = self.self_attn.o_proj(rearrange(attend(rotate(q, *rope), k, v, mask), "b h l k -> b l (h k)"))
        x = x + torch.where(visual, gate * out, out)
        out = self.mlp(torch.where(visual, *_both(self.post_attention_layernorm(x), shift_mlp, scale_mlp)))
        return x + torch.where(visual, gate_mlp * out, out)


def _both(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Modulated, and as it is."""
    return x * (1 + scale) + shift, x


class DiffusionHead(nn.Module):
    """All blocks, and the way out.

    Args:
        config: sizes.
        out: numbers that a position gives.
    """

    def __init__(self, config: HeadShape, out: int) -> None:
        super().__init__()
        width = config.shape.width
        self.config, self.checkpointing = config, False
        self.blocks: Sequence[HeadBlock] = nn.ModuleList(  # type: ignore[assignment]
            HeadBlock(config) for _ in range(config.shape.depth)
        )
        self.norm_final = RMSNorm(width)
        self.adaLN_modulation = modulation(width, 2)
        self.linear = nn.Linear(width, out)

    def forward(self, x: Tensor, level: Tensor, new: Layout, cache: Cache | None = None) -> Tensor:
        """Run every block; `cache.commit(new.marks)` keeps the positions.

        Args:
            x: (B, L, E) what the core has made of them.
            level: (B, 1 or L, E) noise level of the media.
            new: where they stand.
            cache: the past, which is this head's own.
        Returns:
            (B, L, out), which says something only where a medium stands.
        """
        shape = self.config.shape
        half = shape.head_width // 2
        rope = turns(new.coords, self.config.rates(x.device), (half, 0, 0))
        mask = make_mask(new.marks, new.marks if cache is None else cache.joined(new.marks), x.dtype, "sdpa")
        visual = (new.marks.kind != TEXT)[..., None]
        for i, block in enumerate(self.blocks):
            past = None
            if cache is not None:
                size = len(x), shape.kv_heads, x.shape[1], shape.head_width
                past = cache.room(i, x.new_empty(size, device=block.home or level.device))
            x = run(block, self.checkpointing, x, level, visual, rope, mask, past=past)
        shift, scale = self.adaLN_modulation(level).chunk(2, -1)
        return self.linear(self.norm_final(x.to(level.device)) * (1 + scale) + shift)
