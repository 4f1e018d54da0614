"""The core: blocks whose attention all modalities share and whose feed-forward each has for itself.

    text ids --embedding--+
                          |-- lanes text | visual -- block x depth --> hidden states, and the early ones for the skips
    patches --PatchIn-----+

(Mixture-of-Transformers, arXiv 2411.04996, and BAGEL, arXiv 2505.14683, split more; at this size sharing attention
and splitting the feed-forward is what pays.) Shapes: `Lt` text positions, `Lv` visual ones, `L = Lt + Lv`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcore.attention import Marks, make_mask
from mmcore.cache import Cache
from mmcore.chains import make_chains
from mmcore.config import MMCoreConfig
from mmcore.layers import Attention, FeedForward, ZeroLinear, run, sinusoids
from mmcore.linear import LinearAttention
from mmcore.pyramid import Floors, PyramidDown, blank_plane, find_planes

GRID_WAVES = 4
"""Wavelengths of the fixed grid features: 32 to 4 patches."""

LEVEL_WAVES = 16
"""Wavelengths of the fixed features of the square root of the noise level, 4 to 0.25: fine near the noise, where what a
picture is of is decided, and smooth everywhere."""


LEAST_LEVEL = 0.01
"""Levels below it are one to the model: hardly anything can be seen, and training seldom draws so low a level, while
sampling begins there."""


class PatchIn(nn.Module):
    """Patches with their place in the grid and their noise level, and the noise level alone, as positions."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.pyramid = PyramidDown(config) if config.floors else None
        if not self.pyramid:
            self.down = nn.Linear(config.patch_width, config.bottleneck, bias=False)
            self.up = nn.Linear(config.bottleneck, config.width, bias=False)
        self.grid = nn.Linear(3 * 2 * GRID_WAVES, config.width, bias=False)
        self.level_in = nn.Linear(2 * LEVEL_WAVES, config.width, bias=False)
        self.level_out = nn.Linear(config.width, config.width, bias=False)
        self.modulate = ZeroLinear(config.width, 3 * config.width)

    def forward(
        self, patches: Tensor, grid: Tensor, level: Tensor, is_patch: Tensor, is_level: Tensor
    ) -> tuple[Tensor, Tensor, list[Floors]]:
        """-> (B, Lv, D), what the level does to every visual feed-forward (B, Lv, 3 D), and what the pyramid left.

        Args:
            patches: (B, Lv, P).
            grid: (B, Lv, 3) coordinates in patches.
            level: (B, Lv) noise level in [0, 1].
            is_patch: (B, Lv) bool.
            is_level: (B, Lv) bool, the positions that hold the noise level itself.
        """
        dtype = self.grid.weight.dtype
        place = self.grid(sinusoids(grid, GRID_WAVES, 32, 4).flatten(-2).to(dtype))
        waves = sinusoids(level.clamp_min(LEAST_LEVEL).sqrt(), LEVEL_WAVES, 4, 0.25).to(dtype)
        state = nn.functional.silu(self.level_in(waves))
        noise = self.level_out(state)
        if self.pyramid:
            planes = find_planes(grid, is_patch) or ([blank_plane(is_patch)] if self.training else [])
            patch, floors = self.pyramid(patches.to(dtype), state, planes)
        else:
            patch, floors = self.up(self.down(patches.to(dtype))), []
        return torch.where(is_level[..., None], 0, patch + place) + noise, self.modulate(state), floors


class Block(nn.Module):
    """One layer of the core, of full or of linear attention."""

    def __init__(self, config: MMCoreConfig, linear: bool = False) -> None:
        super().__init__()
        self.attention = LinearAttention(config) if linear else Attention(config)
        self.text = FeedForward(config)
        self.visual = FeedForward(config)
        self.level = nn.Parameter(torch.zeros(3 * config.width))

    def forward(self, x: Tensor, level: Tensor, texts: int, *seen: object) -> Tensor:
        """(B, L, D) -> (B, L, D); the first `texts` positions are text, the rest visual; `seen` is for attention."""
        x = x + self.attention(x, *seen)
        if not texts:
            return x + self.visual(x, level + self.level)
        if texts == x.shape[1]:
            return x + self.text(x)
        text, visual = x[:, :texts], x[:, texts:]
        return torch.cat((text + self.text(text), visual + self.visual(visual, level + self.level)), 1)


class Core(nn.Module):
    """The shared transformer."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.skips, self.checkpointing = config.decoder_depth, False
        self.linear = [config.is_linear(layer) for layer in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, linear) for linear in self.linear)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        rope: tuple[Tensor, Tensor],
        marks: Marks,
        texts: int,
        backend: str,
        cache: Cache | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run every block.

        Args:
            x: (B, L, D) embedded positions, text lane first.
            rope: cosines and sines of the positions.
            marks: of the L positions.
            texts: `Lt`.
            backend: of full attention.
            cache: the past; what is new is written behind it, not committed.
        Returns:
            Hidden states (B, L, D), and the states after each of the first `decoder_depth` blocks.
        """
        early: list[Tensor] = []
        chains = make_chains(marks, cache is not None) if any(self.linear) else None
        mask = None
        if not all(self.linear):
            mask = make_mask(marks, marks if cache is None else cache.joined(marks), x.dtype, backend)
        for i, (block, linear) in enumerate(zip(self.blocks, self.linear, strict=True)):
            assert isinstance(block, Block)
            past = None if cache is None else block.attention.room(cache, i, x)
            seen = (chains,) if linear else (rope, mask)
            x = run(block, self.checkpointing, x, level, texts, *seen, past)
            if i < self.skips:
                early.append(x)
        return x, early
