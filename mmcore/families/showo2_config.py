"""What a released folder of Show-o2 (arXiv 2506.15564) says of its sizes, and what it leaves to others to say.

config = Showo2Config.read(Path("show-o2-1.5B"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.errors import MMCoreError
from mmcore.families.bagel import read_json
from mmcore.families.diffusion_head import HeadShape
from mmcore.families.experts import Shape

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
