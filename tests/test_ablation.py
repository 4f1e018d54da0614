"""Ablations vary what they say and nothing else, and measure what a model predicts."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.core import Block
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel, Output
from mmcore.packing import PackedSequence
from mmcore.training import ablation
from mmcore.training.ablation import (
    LEVELS,
    STILLS,
    VARIANTS,
    Result,
    Variant,
    VelocityModel,
    batches_of,
    measure,
    variant_of,
)
from mmcore.training.validation import held_out_batches

DEBUG = {**PRESETS["debug"], "vocab_size": 1024}


def small(name: str) -> Variant:
    """A variant of the smallest model."""
    return replace(VARIANTS[name], shape={**VARIANTS[name].shape, **DEBUG})


def begun(name: str) -> MMCoreModel:
    """A variant before its first step."""
    torch.manual_seed(0)
    variant = VARIANTS[name]
    model = variant.kind(MMCoreConfig(**{**ablation.SMALL, **variant.shape}))
    if variant.mend:
        with torch.no_grad():
            variant.mend(model)
    return model


def held_out(config: MMCoreConfig, task: str) -> list[PackedSequence]:
    return held_out_batches(batches_of(Variant(layout={"rows": 1}), config, {task: 1.0}, copies=1), range(4))


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("no long skips", ".skip.weight"),
        ("noise level as a token alone", ("modulate.weight", ".level")),
        ("noise level as adaLN alone", "level_out.weight"),
        ("no grid features", "patch_in.grid.weight"),
    ],
)
def test_what_a_variant_does_without_stays_at_zero(name: str, ends: str | tuple[str, ...]) -> None:
    """It is found by its names in the model, all else learns, and in the model that is varied it learns too."""
    held = {name: p for name, p in begun(name).named_parameters() if not p.requires_grad}
    assert held and all(name.endswith(ends) and not p.any() for name, p in held.items())
    whole = dict(begun("as it is").named_parameters())
    assert set(held) == {name for name in whole if name.endswith(ends)} and all(p.requires_grad for p in whole.values())


def test_one_feed_forward_is_shared() -> None:
    model, whole = begun("one feed-forward"), begun("as it is")
    assert all(isinstance(block, Block) and block.visual is block.text for block in model.core.blocks)
    each = sum(p.numel() for p in model.core.blocks[0].text.parameters())  # type: ignore[union-attr]
    assert sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in model.parameters()) == 4 * each


def test_heads_begin_alike_where_none_looks_up_places() -> None:
    def queries(name: str) -> torch.Tensor:
        return begun(name).core.blocks[0].attention.query.weight.unflatten(0, (4, -1)).flatten(1).std(1)  # type: ignore

    alike, unlike = queries("no head that looks up places"), queries("as it is")
    assert alike.max() / alike.min() < 1.1 < unlike.max() / unlike.min()


def test_a_velocity_of_zero_predicts_what_is_shown() -> None:
    """A fresh decoder says 0: as a velocity that is x_t, whose error is (1 - t)^2 (noise's variance and the data's)."""
    config = MMCoreConfig(**DEBUG)
    batches = held_out(config, "text to image")
    data = torch.cat([seq.target_patches[seq.is_target_patch] for seq in batches])
    fresh = {kind: measure(kind(config).eval(), batches, 0.7)[1] for kind in (VelocityModel, MMCoreModel)}
    assert fresh[VelocityModel] == pytest.approx(0.3**2 * (1 + data.square().mean().item()), rel=0.01)
    assert fresh[MMCoreModel] == pytest.approx(data.square().mean().item(), rel=1e-4)


def test_a_perfect_prediction_has_no_error() -> None:
    config = MMCoreConfig(**DEBUG)
    batches = held_out(config, "text to image")
    clean = iter([seq.target_patches for seq in batches])

    class Perfect(MMCoreModel):
        def forward(self, seq: PackedSequence, cache: object = None) -> Output:
            return replace(super().forward(seq), patches=next(clean))

    assert measure(Perfect(config), batches, 0.2)[1] == 0


def test_results_are_kept_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "HELD_OUT", 4)
    monkeypatch.setattr(ablation, "VARIANTS", {name: small(name) for name in ("as it is", "reading alone")})
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    row = ablation.run("reading alone", tmp_path, 0.0)
    made = Result(**json.loads((tmp_path / "reading-alone.json").read_text()))
    assert made.steps == 1 and made.errors == [] and made.text is not None and f"{made.text:.3f}" in row
    joint = ablation.train_variant(small("as it is"), 0.0)
    assert joint.text is not None and len(joint.errors) == len(LEVELS)
    (tmp_path / "reading-alone.json").write_text(json.dumps(asdict(replace(made, text=0.125))))
    assert "| 0.125 |" in ablation.run("reading alone", tmp_path, 1e9)
    again = variant_of("reading alone, another seed")
    assert again.recipe == {"seed": 1} and again.shares == ablation.READING
    with pytest.raises(MMCoreError, match="no variant 'no such'"):
        ablation.main(tmp_path, 1.0, ["no such"])


def test_shares_are_those_of_the_tasks() -> None:
    assert {task for shares in (STILLS, ablation.READING, ablation.DRAWING) for task in shares} == set(STILLS)
    for variant in VARIANTS.values():
        assert sum(variant.shares.values()) == pytest.approx(1)
