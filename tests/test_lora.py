"""Adapters: they begin as nothing, they alone learn, and merged into the matrices they say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.pipeline import Pipeline
from mmcore.sequence import document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.checkpoints import load_weights
from mmcore.training.data import Layout
from mmcore.training.lora import IN, OUT, AdaptedLinear, add_adapters, merged
from mmcore.training.recipe import Recipe, load_recipe
from mmcore.training.train import train
from tests.conftest import lively


def adapted(name: str) -> bool:
    return name.endswith((IN, OUT))


def outputs(model: MMCoreModel, document: Document, tokenizer: TextTokenizer) -> torch.Tensor:
    strip = document_strip(document_pieces(document, tokenizer, model.config.patch))
    with torch.no_grad():
        found = model(pack([[strip]], model.config.patch_width))
    return torch.cat((found.hidden.flatten(), found.patches.flatten()))


@pytest.mark.quick
def test_adapters_begin_as_nothing_and_merge_into_the_same_function(
    model: MMCoreModel, config: MMCoreConfig, mixed: Document, tokenizer: TextTokenizer
) -> None:
    """To 1e-4 of the largest output, in float32."""
    before = outputs(model, mixed, tokenizer)
    add_adapters(model, model.core.blocks, 3)
    assert torch.equal(outputs(model, mixed, tokenizer), before)
    linear = sum(isinstance(m, nn.Linear) for m in model.core.blocks.modules())
    assert linear == sum(isinstance(m, AdaptedLinear) for m in model.core.blocks.modules()) == 10 * config.depth
    for name, p in model.named_parameters():
        assert p.requires_grad == adapted(name)
        if name.endswith(OUT):
            nn.init.normal_(p, std=0.05)
    tuned = outputs(model, mixed, tokenizer)
    assert (tuned - before).abs().max() > 0.05 * before.abs().max(), "the adapters have something to say"
    plain = MMCoreModel(config)
    plain.load_state_dict(merged(model.state_dict()), strict=True)
    plain.eval()
    torch.testing.assert_close(outputs(plain, mixed, tokenizer), tuned, rtol=0, atol=1e-4 * float(tuned.abs().max()))


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Path:
    """A model folder of the `debug` size, with a vocabulary of its own."""
    tokenizer = TextTokenizer(root / "mmcore" / "bundled" / "tokenizer.model")
    model = MMCoreModel(MMCoreConfig(vocab_size=len(tokenizer), **PRESETS["debug"]))
    Pipeline(lively(model), tokenizer).save(tmp_path / "start")
    return tmp_path / "start"


def tuning(start: Path, **changes: object) -> Recipe:
    changes = {"layout": Layout(rows=1, waiting=8), **changes}
    recipe = load_recipe("finetune", [f"start={start}", "precision=fp32", "lora=2", "steps=4"])
    return replace(recipe, **changes)  # type: ignore[arg-type]


def test_tuning_changes_the_adapters_alone_and_resumes(start: Path, tmp_path: Path) -> None:
    """Every weight of the start is as it was; two steps and two more are four; what is saved loads as a plain model."""
    engine = train(tuning(start), tmp_path / "whole", workers=0)
    plain = MMCoreModel(engine.model.config)
    load_weights(plain, start)
    given = {name: p.detach().clone() for name, p in plain.named_parameters()}
    for name, p in engine.model.named_parameters():
        if adapted(name):
            assert p.abs().max() > 0, name
        else:
            assert torch.equal(p, given[name]), name

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(tuning(start, save_every=2, sample_every=3), tmp_path / "parts", workers=0, on_sample=stop)
    again = train(tuning(start), tmp_path / "parts", workers=0)
    for (name, a), b in zip(engine.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    load_weights(plain, tmp_path / "whole" / "checkpoint" / "ema")
    expected = merged(engine.averaged.state_dict())
    assert all(torch.equal(p, expected[name]) for name, p in plain.state_dict().items())
    assert any(not torch.equal(p, given[name]) for name, p in expected.items() if name in given)
