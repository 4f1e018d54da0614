"""Show-o2 (arXiv 2506.15564): a Qwen2.5 core that reads and draws by the latents of a causal video autoencoder.

    model = load_showo2(folder)
    hidden = model(lay_out([line], model.embed_tokens.weight))
    v = model.velocity(hidden, level, layout)

A medium is a time token and one token for each 2x2 latents of each frame. Its latents go two ways, through layers of
SigLIP and through one matrix, and are fused; so one kind of token serves both to understand and to draw. A head of its
own makes velocities of what the core gives. t = 0 is noise and t = 1 data, as everywhere in this library.

**In what order numbers lie.** The head's numbers are the *raster* of a frame, pixel after pixel, channel fastest: token
n holds latents 4 n to 4 n + 3 of the rows written one after another, not the 2x2 latents that it was made of. Media are
kept in that order here, as (T h w, P), and are cut into 2x2 where they enter. Shapes: `D` width, `P` = 4 x 16, `W`
width of SigLIP, `E` width of the head.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmcore.attention import make_mask
from mmcore.cache import Cache
from mmcore.families.diffusion_head import DiffusionHead
from mmcore.families.embedding import LevelEmbedding
from mmcore.families.experts import ExpertCore
from mmcore.families.lanes import Layout
from mmcore.families.rotary import frequencies, turns
from mmcore.families.shards import weight_files
from mmcore.families.showo2_config import Showo2Config
from mmcore.families.siglip import encoder
from mmcore.families.spread import Where
from mmcore.families.weights import fill
from mmcore.layers import RMSNorm
from mmcore.sequence import Grid


class Semantic(nn.Module):
    """The way of latents through layers of SigLIP, each frame by itself."""

    def __init__(self, config: Showo2Config) -> None:
        super().__init__()
        width = config.vision["hidden_size"]
        self.side = config.places
        self.patches = nn.Linear(config.patch_width, width)
        self.places = nn.Embedding(config.places**2, width)
        self.encoder = encoder(config.vision, config.vision["num_hidden_layers"] - 1)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """2x2 latents (F, h w, P) of F frames -> (F, h w, W). The position table is stretched to any grid."""
        table = rearrange(self.places.weight.float(), "(y x) w -> 1 w y x", y=self.side)
        if grid != (self.side, self.side):
            table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        x = self.patches(patches)
        return self.encoder(inputs_embeds=x + rearrange(table, "1 w y x -> (y x) w").to(x)).last_hidden_state


class Showo2(nn.Module):
    """The network.

    Args:
        config: its shape.
    """

    def __init__(self, config: Showo2Config) -> None:
        super().__init__()
        self.config = config
        width, seen, steered = config.shape.width, config.vision["hidden_size"], config.head.shape.width
        self.embed_tokens = nn.Embedding(config.vocabulary, width)
        self.core = ExpertCore(config.shape)
        self.lm_head = None if config.tied else nn.Linear(width, config.vocabulary, bias=False)
        self.semantic = Semantic(config)
        self.direct = nn.Linear(config.patch_width, width)
        self.fusion = nn.Sequential(
            RMSNorm(seen + width), nn.Linear(seen + width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.level = LevelEmbedding(steered)
        alike = width == steered
        self.level_in = nn.Identity() if alike else nn.Linear(steered, width)
        self.head_in = (
            nn.Identity() if alike else nn.Sequential(nn.Linear(width, steered), nn.GELU(), nn.Linear(steered, steered))
        )
        self.head = DiffusionHead(config.head, config.patch_width)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.embed_tokens.weight.device

    def words(self, ids: list[int]) -> Tensor:
        """Token ids -> (n, D)."""
        return self.embed_tokens(torch.tensor(ids, dtype=torch.long, device=self.device))

    def time(self, level: Tensor) -> Tensor:
        """The token that tells of the noise level t: (...) -> (..., D). Clean media have t = 1."""
        return self.level_in(self.level(level))

    def features(self, x: Tensor, grid: Grid) -> Tensor:
        """Latents (B, T h w, P) in raster order -> their tokens (B, T h w, D)."""
        frames, rows, columns = grid
        p = self.config.patch
        raster = x.to(self.direct.weight).reshape(len(x) * frames, rows * p, columns * p, self.config.channels)
        patches = rearrange(raster, "f (y p) (x q) c -> f (y x) (c p q)", p=p, q=p)
        both = torch.cat((self.semantic(patches, grid[1:]), self.direct(patches)), -1)
        return rearrange(self.fusion(both), "(b f) n d -> b (f n) d", f=frames)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary) float32."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(hidden, weight).float()

    def forward(self, new: Layout, cache: Cache | None = None) -> Tensor:
        """Normed hidden states (B, L, D) of new positions; `cache.commit(new.marks)` keeps them."""
        half = self.config.shape.head_width // 2
        rates = frequencies(self.config.shape.head_width, self.config.theta, new.x.device)
        rope = turns(new.coords, rates, (half, 0, 0))
        marks = new.marks if cache is None else cache.joined(new.marks)
        return self.core(new.x, new.lengths, rope, make_mask(new.marks, marks, new.x.dtype, "sdpa"), cache)

    def velocity(self, hidden: Tensor, level: Tensor, new: Layout, cache: Cache | None = None) -> Tensor:
        """Hidden states of new positions -> float32 velocities (B, L, P), from noise to data, where media stand.

        Args:
            hidden: (B, L, D) from `forward`.
            level: (B, 1 or L) noise level t of the media in each row, or of each position.
            new: where the positions stand.
            cache: the head's own past; `cache.commit(new.marks)` keeps them there too.
        """
        return self.head(self.head_in(hidden), self.level(level), new, cache).float()


RELEASED = (
    (r"^core\.norms\.0", "showo.model.norm"),
    (r"^core\.(layers\.\d+)\.experts\.0", r"showo.model.\1"),
    (r"^embed_tokens", "showo.model.embed_tokens"),
    (r"^lm_head", "showo.lm_head"),
    (r"^semantic\.patches", "image_embedder_und.proj"),
    (r"^semantic\.places", "position_embedding"),
    (r"^semantic\.encoder", "und_trans"),
    (r"^direct", "image_embedder_gen.proj"),
    (r"^fusion", "fusion_proj"),
    (r"^level_in", "time_embed_proj"),
    (r"^level\.", "time_embed."),
    (r"^head_in", "diff_proj"),
    (r"^head\.blocks", "diffusion_head_a"),
    (r"^head\.", "diffusion_head_b."),
)
"""Our names of parameters, and the released ones."""


def released_name(ours: str) -> str:
    """The released name of a parameter."""
    for pattern, replacement in RELEASED:
        name, found = re.subn(pattern, replacement, ours)
        if found:
            return name
    return ours


def load_showo2(folder: Path, device: Where = "cpu") -> Showo2:
    """The network of a released folder, in the dtype it was saved in: `config.json` and weights, as safetensors or as
    `pytorch_model*.bin`.

    Raises:
        MMCoreError: a file is missing or broken, or tensors do not fit.
    """
    with torch.device("meta"):
        model = Showo2(Showo2Config.read(folder))
    needless = ("showo.lm_head.weight",) if model.config.tied else ()
    fill(model, weight_files(folder), released_name, _as_matrix, device, needless)
    return model.eval()


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    """The patches of the original are convolutions that do not overlap."""
    return tensor.flatten(1) if name in ("semantic.patches.weight", "direct.weight") else tensor
