"""The diffusion decoder: the second half of a U-ViT, over the target span alone.

    core hidden states --> block x decoder_depth --> norm --> linear --> clean patches x
                              ^ long skips from the core's early blocks, the deepest block taking the earliest

The core is the U-ViT's first half (arXiv 2209.12152). It predicts the clean patches, not the noise or the velocity
(JiT, arXiv 2511.13720): clean pixels lie near a low-dimensional surface and noise does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcore.attention import Mask
from mmcore.config import MMCoreConfig
from mmcore.layers import Attention, FeedForward, RMSNorm, ZeroLinear, run
from mmcore.pyramid import Floors, PyramidUp


class DecoderBlock(nn.Module):
    """One block, which first takes in a long skip."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.skip = ZeroLinear(2 * config.width, config.width)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.level = nn.Parameter(torch.zeros(3 * config.width))

    def forward(self, x: Tensor, skip: Tensor, level: Tensor, rope: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """x and skip (B, Lx, D) -> (B, Lx, D)."""
        x = x + self.skip(torch.cat((x, skip), -1))
        x = x + self.attention(x, rope, mask)
        return x + self.feed_forward(x, level + self.level)


class DiffusionDecoder(nn.Module):
    """Hidden states of target spans -> their clean patches."""

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.checkpointing = False
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.out = PyramidUp(config) if config.floors else ZeroLinear(config.width, config.patch_width)

    def forward(
        self,
        x: Tensor,
        early: list[Tensor],
        level: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Mask,
        floors: list[Floors],
    ) -> Tensor:
        """(B, Lx, D) -> (B, Lx, P).

        Args:
            x: the core's hidden states in the target lane, level positions included.
            early: the core's early states at the same positions, first block first.
            rope: cosines and sines of these positions.
            mask: each span seeing itself.
            floors: what the pyramid left on the way down at these positions; [] where there is none.
        """
        for block, skip in zip(self.blocks, reversed(early), strict=True):
            x = run(block, self.checkpointing, x, skip, level, rope, mask)
        x = self.norm(x)
        return self.out(x, floors) if isinstance(self.out, PyramidUp) else self.out(x)
