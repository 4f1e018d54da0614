"""Qwen2-style layers in which every kind of token has weights of its own, and all attend to each other.

    core = ExpertCore(Shape(64, 2, 4, 2, 128), experts=2)
    hidden = core(x, (300, 64), rope, mask, cache)       # positions in lanes: the first 300 for expert 0, then 64 for 1

Each expert is a whole transformer layer (norms, projections, feed-forward); only the attention is joint
(Mixture-of-Transformers, arXiv 2411.04996). With one expert this is Qwen2. Module names are those of released Qwen2
checkpoints. Shapes: `B` rows, `L` positions, `D` width, `H` heads, `G` key-value heads, `K` head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmcore.attention import Mask, attend
from mmcore.cache import Cache
from mmcore.layers import RMSNorm, keep, rotate, run


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2-style transformer.

    Args:
        width: `D`.
        depth: layers.
        heads: `H`.
        kv_heads: `G`; divides `H`.
        hidden: width of the feed-forward.
        qk_norm: whether queries and keys are normed, head by head, before they turn.
        bias: whether queries, keys and values have one.
    """

    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    qk_norm: bool = True
    bias: bool = True

    @classmethod
    def read(cls, text: dict[str, Any]) -> Shape:
        """The sizes that a `llm_config.json` gives.

        Raises:
            KeyError: one is missing.
        """
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
        return cls(*(text[name] for name in names))

    @property
    def head_width(self) -> int:
        """`K`."""
        return self.width // self.heads


class Projections(nn.Module):
    """An expert's own part of attention: into queries, keys and values, and out again."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        k = shape.head_width
        self.head_width = k
        self.q_proj = nn.Linear(shape.width, shape.heads * k, bias=shape.bias)
        self.k_proj = nn.Linear(shape.width, shape.kv_heads * k, bias=shape.bias)
        self.v_proj = nn.Linear(shape.width, shape.kv_heads * k, bias=shape.bias)
        self.o_proj = nn.Linear(shape.heads * k, shape.width, bias=False)
        self.q_norm = RMSNorm(k) if shape.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(k) if shape.qk_norm else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n, D) -> queries (B, H, n, K), keys and values (B, G, n, K)."""
        q, k, v = (
            rearrange(f(x), "b n (h k) -> b h n k", k=self.head_width) for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.q_norm(q), self.k_norm(k), v


class GatedMLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Expert(nn.Module):
    """All weights of one layer for one kind of token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width)
        self.self_attn = Projections(shape)
        self.post_attention_layernorm = RMSNorm(shape.width)
        self.mlp = GatedMLP(shape.width, shape.hidden)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream (B, n, D) after attention has given (B, n, H K)."""
        x = x + self.self_attn.o_proj(attended)
        return x + self.mlp(self.post_attention_layernorm(x))


class ExpertLayer(nn.Module):
    """One layer: every expert works on its own lane, attention is over all of them."""

    home: torch.device | None = None
    """Where it runs, if not where its input is."""

    def __init__(self, shape: Shape, experts: int) -> None:
        super().__init__()
        self.experts: Sequence[Expert] = nn.ModuleList(Expert(shape) for _ in range(experts))  # type: ignore[assignment]

    def forward(
        self,
        lanes: Sequence[Tensor],
        rope: tuple[Tensor, Tensor],
        mask: Mask,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> list[Tensor]:
        """Lanes (B, n, D), one for each expert -> the same; arguments as in `mmcore.layers.Attention`."""
        parts = [e.self_attn(e.input_layernorm(x)) for e, x in zip(self.experts, lanes, strict=True)]
        q, k, v = (torch.cat(part, 2) for part in zip(*parts, strict=True))
        k, v = keep(past, rotate(k, *rope), v)
        attended = rearrange(attend(rotate(q, *rope), k, v, mask), "b h l k -> b l (h k)")
        own = attended.split([x.shape[1] for x in lanes], 1)
        return [e.finish(x, a) for e, x, a in zip(self.experts, lanes, own, strict=True)]


class ExpertCore(nn.Module):
    """All layers, and a last norm for each expert.

    Args:
        shape: sizes.
        experts: how many kinds of token there are.
    """

    def __init__(self, shape: Shape, experts: int = 1) -> None:
        super().__init__()
        self.kv_shape, self.checkpointing = (shape.kv_heads, shape.head_width), False
        self.layers: Sequence[ExpertLayer] = nn.ModuleList(  # type: ignore[assignment]
            ExpertLayer(shape, experts) for _ in range(shape.depth)
        )
        self.norms = nn.ModuleList(RMSNorm(shape.width) for _ in range(experts))

    def forward(
        self,
        x: Tensor,
        lengths: Sequence[int],
        rope: tuple[Tensor, Tensor],
        mask: Mask,
        cache: Cache | None = None,
    ) -> Tensor:
        """Run every layer.

        Args:
            x: (B, L, D) embedded positions, lane after lane.
            lengths: positions in each expert's lane; they add up to L.
            rope: cosines and sines of the positions.
            mask: L queries by past + L keys.
            cache: the past; the new keys and values are written behind it, not committed.
        Returns:
            Normed hidden states (B, L, D).
        """
        heads, width = self.kv_shape
        lanes = list(x.split(list(lengths), 1))
        for i, layer in enumerate(self.layers):
            past = None
            if cache is not None:
                past = cache.room(i, x.new_empty(len(x), heads, x.shape[1], width, device=layer.home or x.device))
            lanes = run(layer, self.checkpointing, lanes, rope, mask, past=past)
        return torch.cat([norm(lane.to(x.device)) for norm, lane in zip(self.norms, lanes, strict=True)], 1)
