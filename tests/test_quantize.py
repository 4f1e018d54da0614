"""Weights in few bits: how far each may be off, what the model then says, and files that keep it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import mmcore
from mmcore.cli import main
from mmcore.config import MMCoreConfig
from mmcore.document import Document, Video
from mmcore.errors import MMCoreError
from mmcore.loading import describe
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.pipeline import Pipeline
from mmcore.pyramid import Convolution
from mmcore.quantize import GROUP, KINDS, Int4, Int8, count_weights, kind_of, quantize
from mmcore.sequence import document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.checkpoints import load_weights
from mmcore.training.export import export
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick

BITS = {"int8": 8, "int4": 4 + 16 / GROUP}
"""What a weight takes in a file, without the scales of rows."""


@pytest.mark.parametrize(("made", "columns", "most"), [(Int8(), 96, 127), (Int4(), GROUP, 7)])
def test_a_weight_is_off_by_half_a_step_at_most(made: Int8 | Int4, columns: int, most: int) -> None:
    """Of its own row or group: its largest weight is `most` steps, but for the rounding of the step to bfloat16."""
    weight = torch.randn(5, 96) * 10.0 ** torch.arange(-2, 3)[:, None]
    weight[0, :GROUP] = 0
    numbers, scale = made.right_inverse(weight)
    step = weight.unflatten(1, (-1, columns)).abs().amax(-1, keepdim=True) / most
    off = (made(numbers, scale) - weight).unflatten(1, (-1, columns)).abs()
    assert (off <= 0.5 * step * (1 + 2**-8) + 1e-12).all()
    assert off.max() > 0.1 * step.max(), "it is no copy"
    assert numbers.nbytes == weight.numel() * (1 if columns == 96 else 0.5)
    assert torch.equal(scale, scale.bfloat16().float())


def test_four_bits_go_two_to_a_byte() -> None:
    """A group's first half lies in the low bits, its second half in the high ones, each 8 too high."""
    weight = torch.arange(-7, 8).float().repeat(3)[:GROUP][None]
    numbers, scale = Int4().right_inverse(weight)
    assert scale.flatten().tolist() == [1.0] and numbers.shape == (1, 1, GROUP // 2)
    assert (numbers[0, 0] & 15).tolist() == (weight[0, : GROUP // 2] + 8).tolist()
    assert (numbers[0, 0] >> 4).tolist() == (weight[0, GROUP // 2 :] + 8).tolist()
    assert torch.equal(Int4()(numbers, scale), weight)


def outputs(model: MMCoreModel, document: Document, tokenizer: TextTokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and clean patches."""
    strip = document_strip(document_pieces(document, tokenizer, model.config.patch))
    with torch.no_grad():
        found = model(pack([[strip]], model.config.patch_width))
        return model.logits(found.hidden), found.patches


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.02), ("int4", 0.3)])
def test_a_quantized_model_says_about_the_same(
    kind: str, tolerance: float, model: MMCoreModel, mixed: Document, tokenizer: TextTokenizer
) -> None:
    """Logits and patches within a share of their spread, in the root mean square."""
    before, count = outputs(model, mixed, tokenizer), count_weights(model)
    held = sum(p.nbytes for p in model.parameters())
    quantize(model, kind)
    for exact, made in zip(before, outputs(model, mixed, tokenizer), strict=True):
        off = (made - exact).square().mean().sqrt() / exact.std()
        assert tolerance / 100 < off < tolerance
    matrices = [m for m in model.modules() if isinstance(m, nn.Linear)]
    plain = [m for m in matrices if not parametrize.is_parametrized(m)]
    assert all(m.in_features % KINDS[kind].columns for m in plain)
    assert sum(m.weight.numel() for m in plain) < 0.1 * count
    assert any(isinstance(m, Convolution) and parametrize.is_parametrized(m) for m in matrices)
    assert count_weights(model) == count and kind_of(model) == kind
    assert sum(p.nbytes for p in model.parameters()) < 0.5 * held
    assert not any(p.requires_grad for m in matrices if m not in plain for p in m.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_one_loads_as_it_is(kind: str, pipeline: Pipeline, tmp_path: Path) -> None:
    """To the bit, from a folder that says what it is; it answers, and takes no other kind."""
    pipeline.save(tmp_path / "full")
    loaded = mmcore.load(tmp_path / "full", quantize=kind)
    loaded.save(tmp_path / "small")
    assert json.loads((tmp_path / "small" / "config.json").read_text())["quantized"] == kind
    again = mmcore.load(tmp_path / "small")
    assert kind_of(again.model) == kind and describe(again)["parameters"] == describe(pipeline)["parameters"]
    for (name, a), b in zip(loaded.model.named_parameters(), again.model.parameters(), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), name
    made, same = (m.generate_video("a red ball", steps=2, tokens=5).frames for m in (loaded, again))
    assert np.array_equal(made, same)
    assert isinstance(again.ask(Video(noise_clip(0)), "what is this?", tokens=5), str)
    with pytest.raises(MMCoreError, match=f"quantized already, to {kind}"):
        mmcore.load(tmp_path / "small", quantize="int8")
    with pytest.raises(MMCoreError, match="quantized and cannot learn"):
        load_weights(MMCoreModel(pipeline.config), tmp_path / "small")


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundled_model_exports_to_a_small_file(kind: str, root: Path, tmp_path: Path) -> None:
    """Its matrices take their bits and no more than 0.8 MB beside; and it says what it said before."""
    export(root / "mmcore" / "bundled", tmp_path / "small", kind)
    size = sum(path.stat().st_size for path in (tmp_path / "small").glob("*.safetensors"))
    small, full = mmcore.load(tmp_path / "small"), mmcore.load()
    assert size < BITS[kind] / 8 * count_weights(full.model) + 0.8e6
    assert count_weights(small.model) == count_weights(full.model)
    asked = ("who are you?", "which shapes do you know?")
    said = [[m.generate(words, temperature=0.0).text for words in asked] for m in (full, small)]
    assert said[0] == said[1] and all(said[0])


def test_an_unknown_kind_is_one_line(pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.save(tmp_path / "full")
    capsys.readouterr()
    assert main(["info", "--model", str(tmp_path / "full"), "--quantize", "int3"]) == 2
    assert capsys.readouterr().err == "mmcore: quantize must be one of int8, int4, got 'int3'\n"
    with pytest.raises(MMCoreError, match="one of int8, int4, got 'fp4'"):
        MMCoreModel(MMCoreConfig(**{**pipeline.config.to_dict(), "quantized": "fp4"}))
    assert main(["info", "--model", str(tmp_path / "full"), "--quantize", "int8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == count_weights(pipeline.model)


def test_a_released_model_of_another_family_is_held_in_few_bits_too(tmp_path: Path) -> None:
    """A picture in 8 bits is about the one in float32: 2 of 255 levels in the mean; in 4 bits there is one."""
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")
    from tests.test_families import released
    from tests.test_families_pipeline import write_autoencoder, write_tokenizer

    released("bagel", tmp_path)
    write_autoencoder(tmp_path / "ae.safetensors")
    write_tokenizer(tmp_path / "tokenizer.json")
    full, eight, four = (mmcore.load(tmp_path, device="cpu", quantize=kind) for kind in (None, "int8", "int4"))
    drawn = [
        m.generate_image("a red ball", height=32, width=32, steps=2).frames.astype(int) for m in (full, eight, four)
    ]
    assert 0 < np.abs(drawn[1] - drawn[0]).mean() < 2 < np.abs(drawn[0] - drawn[0].mean()).mean()
    assert drawn[2].shape == drawn[0].shape and not np.array_equal(drawn[2], drawn[1])
    held = [sum(p.nbytes for p in m.weights.parameters()) for m in (full, eight, four)]
    assert held[0] > held[1] > held[2] and describe(four)["parameters"] == describe(full)["parameters"]
