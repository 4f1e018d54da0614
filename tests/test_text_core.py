"""Text cores of transformers in ours: the same logits with cache and without, and back again; what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mmcore.backbone import NativePast
from mmcore.config import MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.layers import rotary_angles
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.sequence import Strip
from mmcore.text_core import fill_core, read_core, write_core
from mmcore.training.lora import add_adapters
from tests.conftest import lively

pytestmark = pytest.mark.quick

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    "llama3": {**LLAMA3, "rope_theta": 5e5, "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6, "original_max_position_embeddings": 16},
}
VARIANTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen2 untied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 biased": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 24, "attention_bias": True, "rms_norm_eps": 1e-3}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    "llama one key": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 1, "attention_bias": True}),
    **{f"llama {kind}": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": r}) for kind, r in SCALED.items()},
    "qwen3 yarn": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, "rope_parameters": SCALED["yarn"]}),
}


def saved(name: str, folder: Path) -> Any:
    """A small random model of transformers, every weight of it with something to say, and its folder."""
    config, kind, changes = VARIANTS[name]
    theirs = lively(kind(config(**{**SIZES, **changes})).float())
    theirs.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return theirs


def ours_of(folder: Path, **changes: Any) -> MMCoreModel:
    source = read_core(folder)
    model = MMCoreModel(MMCoreConfig(**{**source.shape, "decoder_depth": 1, "patch": (1, 4, 4), **changes}))
    fill_core(model, source)
    return model.eval()


def logits_of(model: MMCoreModel, ids: list[int]) -> Tensor:
    strip = Strip()
    strip.text(ids)
    with torch.no_grad():
        return model.logits(model(pack([[strip]], model.config.patch_width)).hidden)[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_on_text_it_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    """Float32, to 1e-4 in every logit: whole, and in three pieces through the cache."""
    theirs = saved(name, tmp_path)
    ids = torch.randint(0, SIZES["vocab_size"], (40,)).tolist()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
    model = ours_of(tmp_path)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits_of(model, ids), expected, atol=1e-4, rtol=0)
    past = NativePast(model, 1)
    for begin, end in ((0, 17), (17, 18), (18, 40)):
        torch.testing.assert_close(past.tokens([ids[begin:end]])[0], expected[end - 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen2", "qwen3 biased", "llama llama3"])
def test_the_text_part_goes_back_to_transformers(name: str, tmp_path: Path) -> None:
    """Every tensor to the bit, words that were added beyond; and transformers computes the same with them."""
    theirs = saved(name, tmp_path / "theirs")
    model = ours_of(tmp_path / "theirs", vocab_size=101)
    (tmp_path / "back").mkdir()
    write_core(model, tmp_path / "back")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    assert type(again) is type(theirs) and again.config.vocab_size == 101
    for (key, a), b in zip(theirs.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b[: len(a)]), key
    ids = torch.randint(0, 96, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits[..., :96], theirs(ids).logits, atol=1e-5, rtol=0)
    new = model.embedding.weight[96:]
    assert 0.3 < new.std() / model.embedding.weight[:96].std() < 3 and new.unique(dim=0).shape == new.shape


def test_scaling_as_older_configurations_have_it(tmp_path: Path) -> None:
    """`rope_scaling` and `rope_theta` apart, as most released folders have them, say the same."""
    saved("llama llama3", tmp_path)
    path, table = tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text())
    new = read_core(tmp_path).shape
    rope = table.pop("rope_parameters")
    table |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    path.write_text(json.dumps(table))
    old = read_core(tmp_path).shape
    assert old["rope_rates"] == new["rope_rates"] and old["rope_rates"][-1] < 5e5 ** -(5 / 6) / 7


def test_adapters_begin_as_nothing_beside_biases(tmp_path: Path) -> None:
    saved("qwen2", tmp_path)
    model, ids = ours_of(tmp_path), list(range(20))
    before = logits_of(model, ids)
    add_adapters(model, model.core.blocks, 2)
    assert torch.equal(logits_of(model, ids), before)


def test_the_visual_feed_forward_begins_as_a_copy(tmp_path: Path) -> None:
    saved("qwen3", tmp_path)
    for block in ours_of(tmp_path).core.blocks:
        text, visual = block.get_submodule("text").state_dict(), block.get_submodule("visual").state_dict()
        assert text.keys() == visual.keys() and all(torch.equal(text[key], visual[key]) for key in text)


def test_the_axes_share_the_frequencies(tmp_path: Path) -> None:
    """On text the axes are one; a patch further along any single one is told apart."""
    saved("qwen3", tmp_path)
    model = ours_of(tmp_path)

    def angles(*position: int) -> Tensor:
        return torch.cat(rotary_angles(torch.tensor(position)[None, None], model.config), -1)

    for moved in ((6, 3, 3), (3, 6, 3), (3, 3, 6)):
        assert (angles(*moved) - angles(3, 3, 3)).abs().max() > 0.2


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(MMCoreError, match=r"no config.json here"):
        read_core(tmp_path)
    theirs = saved("qwen3", tmp_path)
    path, table = tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text())

    def refused(match: str, **changes: object) -> None:
        path.write_text(json.dumps({**table, **changes}))
        with pytest.raises(MMCoreError, match=match):
            ours_of(tmp_path)

    refused("llama, qwen2, qwen3 is expected, this is 'gpt2'", model_type="gpt2")
    refused("rotary positions are of type 'dynamic'", rope_parameters={"rope_type": "dynamic", "factor": 2.0})
    refused("sliding window", use_sliding_window=True, sliding_window=8, max_window_layers=1, layer_types=None)
    refused("its activation is 'gelu'", hidden_act="gelu")
    refused(
        r"layers.0.mlp.gate_proj.weight is \(80, 48\), \(88, 48\) is expected; .*layers.1.mlp", intermediate_size=88
    )
    refused(r"model.embed_tokens.weight is \(96, 48\), \(97, 48\) is expected", vocab_size=97)
    refused(r"model.layers.2.self_attn.q_proj.weight is missing", num_hidden_layers=3, layer_types=None)
    refused(r"model.layers.1.input_layernorm.weight is unknown", num_hidden_layers=1, layer_types=None)
    path.write_text(json.dumps(table))
    weights = sorted(tmp_path.glob("*.safetensors"))
    weights[0].write_bytes(weights[0].read_bytes()[:900])
    with pytest.raises(MMCoreError, match="cannot read the weights"):
        ours_of(tmp_path)
    for file in weights:
        file.unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MMCoreError, match=r"no .safetensors file here; nothing else is read"):
        ours_of(tmp_path)
    with pytest.raises(MMCoreError, match="core is our own"):
        write_core(MMCoreModel(MMCoreConfig(depth=1, decoder_depth=1, width=32, heads=2)), tmp_path)
