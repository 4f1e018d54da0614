"""Show-o2 at its released sizes, by what `config.json` says; nothing is computed with weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mmcore.families.diffusion_head import HeadShape
from mmcore.families.experts import Shape
from mmcore.families.showo2 import Showo2
from mmcore.families.showo2_config import Showo2Config

pytestmark = pytest.mark.quick

SIDES = ("image_latent_height", "image_latent_width", "video_latent_height", "video_latent_width")


@pytest.mark.parametrize(
    ("width", "language"), [(1536, 1_543_714_304 - 267 * 1536), (3584, 7_615_616_512 - 2 * 395 * 3584)]
)
def test_the_released_sizes(tmp_path: Path, width: int, language: int) -> None:
    """A released `config.json` says as little as this. The core is Qwen2.5 with as many parameters as were published,
    less those of the ids that the family leaves out; SigLIP has its 26 layers, the head its 10."""
    told = {"hidden_size": width, "llm_vocab_size": None, **dict.fromkeys(SIDES, 27)}
    (tmp_path / "config.json").write_text(json.dumps(told))
    config = Showo2Config.read(tmp_path)
    with torch.device("meta"):
        model = Showo2(config)
    core = [model.embed_tokens, model.core, *([model.lm_head] if model.lm_head else [])]
    assert sum(p.numel() for part in core for p in part.parameters()) == language
    assert config.places == 27 and len(model.semantic.encoder.layers) == 26 and len(model.head.blocks) == 10
    assert model.head.linear.weight.shape == (64, 2048) and config.head.shape.head_width == 64
    block = model.head.blocks[0]
    assert sum(p.numel() for p in block.parameters()) == 2048 * (2 * 2048 + 2 * 512 + 3 * 8192 + 6 * 2049 + 2) + 2 * 64


def test_stretched_rotary_positions_are_those_of_llama() -> None:
    """At the released sizes, where waves of every kind are: by `transformers`."""
    parameters = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    parameters |= {"original_max_position_embeddings": 8192, "rope_theta": 5e5}
    llama = LlamaConfig(hidden_size=2048, num_attention_heads=32, rope_parameters=parameters)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](llama, torch.device("cpu"))
    found = HeadShape(Shape(2048, 10, 32, 8, 8192)).rates(torch.device("cpu"))
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-5)
