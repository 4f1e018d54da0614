"""Linear attention: a layer whose past is a state of one size (Gated DeltaNet, arXiv 2412.06464; as in Qwen3-Next).

    x -> norm -> queries, keys, values -> short convolution -> gated delta rule -> norm -> x gate -> out
              -> how much fades, how much is written, gate

It takes the place of `layers.Attention` in some of the core's layers, or in all. Rotary positions are for full layers:
here order alone counts, and patches bring their place in the grid with them.
Shapes: `B` rows, `L` positions, `D` width, `H` heads, `K` head width; of chunks, see `chains`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmcore.cache import Cache, Trail
from mmcore.chains import TAPS, VIEWS, Chains
from mmcore.config import MMCoreConfig
from mmcore.delta import chunked
from mmcore.layers import RMSNorm, ZeroLinear

SHORTEST, LONGEST = 8, 8192
"""Positions over which the states of the first and of the last head fade to 1 / e, before anything is learnt."""


class LinearAttention(nn.Module):
    """The gated delta rule with a short convolution, behind its own norm."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        width, heads, k = config.width, config.heads, config.head_width
        self.heads, self.head_width = heads, k
        self.norm = RMSNorm(width, eps=config.norm_eps)
        self.query = nn.Linear(width, heads * k, bias=False)
        self.key = nn.Linear(width, heads * k, bias=False)
        self.value = nn.Linear(width, heads * k, bias=False)
        self.gate = nn.Linear(width, heads * k, bias=False)
        self.fade = nn.Linear(width, heads, bias=False)
        self.write = nn.Linear(width, heads, bias=False)
        self.pace = nn.Parameter(torch.zeros(heads))
        self.taps = nn.Parameter(torch.zeros(1 + TAPS, 3, heads * k))
        self.out_norm = RMSNorm(k, eps=config.norm_eps)
        self.out = ZeroLinear(heads * k, width)

    @torch.no_grad()
    def begin(self) -> None:
        """The init of what is no matrix: heads fade at paces spread geometrically, convolutions have unit variance."""
        horizons = torch.logspace(0, 1, self.heads, base=LONGEST / SHORTEST) * SHORTEST
        self.pace.copy_(torch.log(torch.expm1(1 / horizons)))  # softplus(pace) = 1 / horizon
        nn.init.normal_(self.taps, std=(1 + TAPS) ** -0.5)

    def room(self, cache: Cache, layer: int, x: Tensor) -> tuple[Trail, Trail]:
        """What a cache has of this layer's past, and where the new past goes; x (B, L, D)."""
        size = (len(x), len(VIEWS))
        tails, states = (*size, TAPS, 3, self.heads * self.head_width), (self.heads, self.head_width, self.head_width)
        return cache.trail(layer, lambda: Trail(x.new_zeros(tails), x.new_zeros(*size, *states, dtype=torch.float32)))

    def forward(self, x: Tensor, chains: Chains, past: tuple[Trail, Trail] | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D).

        Args:
            x: the residual stream.
            chains: in which order the `L` new positions run, and behind what.
            past: what `room` gave: the first is read, the second is written.
        """
        x = self.norm(x)
        parts = torch.stack([f(x) for f in (self.query, self.key, self.value)], -2)  # (B, L, 3, H K)
        fade = -F.softplus(self.fade(x).float() + self.pace.float())
        gates = torch.stack((fade, self.write(x).float().sigmoid()), -2)  # (B, L, 2, H)
        read = self._read(parts.flatten(0, 1), gates.flatten(0, 1), chains, past)  # type: ignore[call-arg]
        read = read.unflatten(0, x.shape[:2])
        return self.out(self.out_norm(read.to(x.dtype)).flatten(2) * F.silu(self.gate(x)))

    @torch.compiler.disable
    def _read(self, parts: Tensor, gates: Tensor, chains: Chains, past: tuple[Trail, Trail] | None) -> Tensor:
        """What each position reads: parts (B L, 3, H K) and gates (B L, 2, H) -> (B L, H, K) float32."""
        size = chains.places.shape[1] - TAPS
        tails = parts[:0] if past is None else past[0].tails.flatten(0, 2).to(parts.dtype)
        table = torch.cat((torch.zeros_like(parts[:1]), tails, parts))
        held = table[chains.places]  # (N, T + C, 3, H K)
        taps = [held[:, i : i + size] * tap for i, tap in enumerate(self.taps)]
        mixed = F.silu(torch.stack(taps).sum(0).float())
        q, k, v = rearrange(mixed, "n c three (h k) -> three n h c k", h=self.heads)
        gates = F.pad(gates, (0, 0, 0, 0, 1, 0))[(chains.places[:, TAPS:] - chains.past).clamp_min(0)]
        g, beta = rearrange(gates, "n c two h -> two n h c")
        states = q.new_zeros(1, self.heads, self.head_width, self.head_width)
        if past is not None:
            states = torch.cat((states, past[0].states.flatten(0, 1)))
        with torch.autocast(parts.device.type, enabled=False):
            out, ends = chunked(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, g, beta, states, chains.parents)
        if past is not None:
            past[1].tails.copy_(table[chains.tails])
            past[1].states.copy_(torch.cat((states, *ends))[chains.ends])
        return F.pad(rearrange(out, "n h c k -> (n c) h k"), (0, 0, 0, 0, 0, 1))[chains.own]
