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
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmcore.attention import make_mask
from mmcore.cache import Cache
from mmcore.errors import MMCoreError
from mmcore.families.bagel import read_json
from mmcore.families.diffusion_head import DiffusionHead, HeadShape
from mmcore.families.embedding import LevelEmbedding
from mmcore.families.experts import ExpertCore, Shape
from mmcore.families.lanes import Layout
from mmcore.families.rotary import frequencies, turns
from mmcore.families.shards import weight_files
from mmcore.families.siglip import encoder
from mmcore.families.weights import fill
from mmcore.layers import RMSNorm
from mmcore.sequence import Grid

QWEN = {"max_position_embeddings": 32768, "rope_theta": 1e6, "num_hidden_layers": 28}
LANGUAGE: dict[int, dict[str, Any]] = {
    1536: {"intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True},
    3584: {"intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
}
"""Qwen2.5-1.5B and 7B, by their width: the released `config.json` names them, and says nothing more."""

VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""`google/siglip-so400m-patch14-384`."""

HEAD: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""What the reference implementation has written into its code."""

VOCABULARY = 151669
"""Qwen2.5's 151665 tokens, padding, and the three that the family adds."""


@dataclass(frozen=True)
class Showo2Config:
    """What the released `config.json` says, and what it leaves to other files.

    Args:
        shape: sizes of the core.
        vocabulary: number of token ids.
        theta: base of the core's rotary frequencies.
        context: most positions that a document may take.
        tied: whether the text head is the embedding.
        vision: fields of `SiglipVisionConfig`; the last of its layers is not there.
        places: rows and columns of its position table.
        head: sizes of the head.
        grid: rows and columns of tokens in a picture as trained.
        film_grid: the same in a clip.
        patch: rows and columns of latents in one token.
        channels: of a latent.
    """

    shape: Shape
    vocabulary: int
    theta: float
    context: int
    tied: bool
    vision: dict[str, Any]
    places: int
    head: HeadShape
    grid: tuple[int, int]
    film_grid: tuple[int, int]
    patch: int = 2
    channels: int = 16

    @classmethod
    def read(cls, folder: Path) -> Showo2Config:
        """Read `config.json`, and of what departs from the released models `llm_config.json` (a Qwen2's),
        `siglip_vision_config.json` and `diffusion_head_config.json`, where they lie beside it.

        Raises:
            MMCoreError: a file is missing or broken, lacks a field, or tells of a core that is not known.
        """

        def beside(name: str, known: dict[str, Any]) -> dict[str, Any]:
            return read_json(folder / name) if (folder / name).exists() else known

        own = read_json(folder / "config.json")
        try:
            width = own["hidden_size"]
            text = beside("llm_config.json", {**QWEN, **LANGUAGE.get(width, {})})
            if "num_attention_heads" not in text:
                raise MMCoreError(
                    f"{folder}: a core of width {width} is not known (known are {', '.join(map(str, LANGUAGE))}); "
                    "put the config.json of its language model beside it, as llm_config.json"
                )
            vision = beside("siglip_vision_config.json", VISION)
            head = beside("diffusion_head_config.json", HEAD)
            stretch = head.get("rope_scaling", {})
            return cls(
                _shape(text, width, text["num_hidden_layers"], bias=True, qk_norm=False),
                own.get("llm_vocab_size") or VOCABULARY,
                text["rope_theta"],
                text["max_position_embeddings"],
                text.get("tie_word_embeddings", False),
                vision,
                vision["image_size"] // vision["patch_size"],
                HeadShape(
                    _shape(head, head["hidden_size"], own.get("num_diffusion_layers", 10), bias=False, qk_norm=True),
                    head.get("rope_theta", HeadShape.theta),
                    stretch.get("factor", HeadShape.factor),
                    stretch.get("low_freq_factor", HeadShape.low),
                    stretch.get("high_freq_factor", HeadShape.high),
                    stretch.get("original_max_position_embeddings", HeadShape.original),
                    head.get("rms_norm_eps", HeadShape.eps),
                ),
                (own["image_latent_height"], own["image_latent_width"]),
                (own["video_latent_height"], own["video_latent_width"]),
                own.get("patch_size", cls.patch),
                own.get("image_latent_dim", cls.channels),
            )
        except KeyError as error:
            raise MMCoreError(f"{folder}: its configuration lacks {error}; copy the folder again") from error

    @property
    def patch_width(self) -> int:
        """`P`."""
        return self.patch**2 * self.channels


def _shape(told: dict[str, Any], width: int, depth: int, bias: bool, qk_norm: bool) -> Shape:
    heads, groups = told["num_attention_heads"], told["num_key_value_heads"]
    return Shape(width, depth, heads, groups, told["intermediate_size"], qk_norm, bias)


class Semantic(nn.Module):
    """The way of latents through layers of SigLIP, each frame by itself."""

    def __init__(self, config: Showo2Config) -> None:
        super().__init__()
        width = config.vision["hidden_size"]
        self.patches = nn.Linear(config.patch_width, width)
        self.places = nn.Embedding(config.places**2, width)
        self.encoder = encoder(config.vision, config.vision["num_hidden_layers"] - 1)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """2x2 latents (F, h w, P) of F frames -> (F, h w, W). The position table is stretched to any grid."""
        side = isqrt(self.places.num_embeddings)
        table = rearrange(self.places.weight.float(), "(y x) w -> 1 w y x", y=side)
        if grid != (side, side):
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


def load_showo2(folder: Path, device: torch.device | str = "cpu") -> Showo2:
    """The network of a released folder, in the dtype it was saved in: `config.json` and weights, as safetensors or as
    `pytorch_model*.bin`.

    Raises:
        MMCoreError: a file is missing or broken, or tensors do not fit.
    """
    with torch.device("meta"):
        model = Showo2(Showo2Config.read(folder))
    spare = ("showo.lm_head.weight",) if model.config.tied else ()
    fill(model, weight_files(folder), released_name, _as_matrix, device, spare)
    return model.eval()


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    """The patches of the original are convolutions that do not overlap."""
    return tensor.flatten(1) if name in ("semantic.patches.weight", "direct.weight") else tensor
