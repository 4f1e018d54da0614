"""A SigLIP tower for pictures of any shape, as features of their patches.

    features = Tower(config, side=70, depth=26)(pixels)            # (3, H, W) in [-1, 1] -> (H / 14 * W / 14, W)

The layers are those of `transformers`. A patch enters through one matrix, flattened as (row, column, channel), and a
patch's place in the position table is its row and column, nothing is interpolated (as BAGEL, arXiv 2505.14683).
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor, nn
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from mmcore.families.embedding import grid_places


def encoder(config: dict[str, Any], depth: int) -> SiglipEncoder:
    """The layers alone: features (B, n, W) in as `inputs_embeds`, out as `last_hidden_state`.

    Args:
        config: fields of `SiglipVisionConfig`.
        depth: layers that there are.
    """
    known = {k: v for k, v in config.items() if k != "model_type"}
    shape = SiglipVisionConfig(**{**known, "num_hidden_layers": depth, "attn_implementation": "sdpa"})
    return SiglipEncoder(shape)  # type: ignore[arg-type]


class Tower(nn.Module):
    """The vision tower.

    Args:
        config: fields of `SiglipVisionConfig`.
        side: rows and columns of the position table.
        depth: layers that there are.
    """

    def __init__(self, config: dict[str, Any], side: int, depth: int) -> None:
        super().__init__()
        self.side, self.patch = side, int(config["patch_size"])
        self.encoder = encoder(config, depth)
        shape = self.encoder.config
        self.patch_embedding = nn.Linear(3 * self.patch**2, shape.hidden_size)
        self.position_embedding = nn.Embedding(side * side, shape.hidden_size)
        self.post_layernorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of a picture (3, H, W)."""
        return pixels.shape[1] // self.patch, pixels.shape[2] // self.patch

    def forward(self, pixels: Tensor) -> Tensor:
        """One picture (3, H, W), sides multiples of the patch -> features of its patches (n, W), row by row."""
        p = self.patch
        patches = rearrange(pixels, "c (y p) (x q) -> (y x) (p q c)", p=p, q=p).to(self.patch_embedding.weight)
        places = grid_places(self.grid(pixels), self.side).to(patches.device)
        x = self.patch_embedding(patches) + self.position_embedding(places)
        return self.post_layernorm(self.encoder(inputs_embeds=x[None]).last_hidden_state[0])
