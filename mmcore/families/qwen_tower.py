"""The vision tower of Qwen2.5-VL (arXiv 2502.13923), for pictures and clips: the layers are those of `transformers`.

    features = ClipTower(config)(clip)          # (3, T, H, W) normalised, T even, sides multiples of 28

Two frames make one time step, and no time step sees another. Windows and rotary positions are the library's.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from mmcore.sequence import Grid

MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What is taken from pixels in [0, 1], and what they are divided by then, for red, green and blue."""


class ClipTower(nn.Module):
    """The vision tower.

    Args:
        config: fields of `Qwen2_5_VLVisionConfig`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        shape = Qwen2_5_VLVisionConfig(**{**config, "attn_implementation": "sdpa"})
        self.patch = cast(int, shape.patch_size)
        self.merge = cast(int, shape.spatial_merge_size)
        self.pair = cast(int, shape.temporal_patch_size)
        self.layers = Qwen2_5_VisionTransformerPretrainedModel(shape)

    def settle(self, device: torch.device | str) -> None:
        """Compute on a device what no checkpoint holds: for a tower that was built on the meta device."""
        with torch.device(device):
            self.layers.rotary_pos_emb = type(self.layers.rotary_pos_emb)(self.layers.config)

    @property
    def side(self) -> int:
        """Pixels along one side of what one feature stands for."""
        return self.patch * self.merge

    def grid(self, clip: Tensor) -> Grid:
        """Features (T, Y, X) of a clip (3, T, H, W)."""
        _, frames, rows, columns = clip.shape
        return frames // self.pair, rows // self.side, columns // self.side

    def patches(self, clip: Tensor) -> Tensor:
        """A clip (3, T, H, W) -> its patches (n, 3 * 2 * 14 * 14), the four that make one feature side by side."""
        return rearrange(
            clip,
            "c (T t) (Y y p) (X x q) -> (T Y X y x) (c t p q)",
            t=self.pair,
            y=self.merge,
            x=self.merge,
            p=self.patch,
            q=self.patch,
        )

    def forward(self, clip: Tensor) -> Tensor:
        """A clip (3, T, H, W) -> features (T * Y * X, width), by time, row and column."""
        steps, rows, columns = self.grid(clip)
        grid = torch.tensor([[steps, rows * self.merge, columns * self.merge]], device=clip.device)
        dtype = self.layers.patch_embed.proj.weight.dtype
        return self.layers(self.patches(clip).to(dtype), grid_thw=grid).pooler_output
