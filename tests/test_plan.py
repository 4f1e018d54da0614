"""What a run takes, by formula, against what torch counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.model import MMCoreModel, flow_losses
from mmcore.packing import PackedSequence
from mmcore.training.data import Layout, PackedBatches
from mmcore.training.flops import Load, forward_flops
from mmcore.training.gpus import GPUS
from mmcore.training.optimizers import let_learn
from mmcore.training.plain import Engine
from mmcore.training.plan import activation_bytes, make_plan, saved_bytes, state_bytes
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import load_recipe
from mmcore.training.world.tasks import sample_document

pytestmark = pytest.mark.quick

COUNT = 8 * 10**6 + 8 * 10**4


@pytest.fixture
def batch(root: Path) -> PackedSequence:
    """Two rows of the world: words, pictures and clips, some padding."""
    tokenizer = root / "mmcore" / "bundled" / "tokenizer.model"
    batches = PackedBatches(sample_document, tokenizer, (4, 16, 16), Layout(2, (120, 130, 150), waiting=12))
    return next(iter(batches))[0]


@pytest.mark.parametrize("preset", ["debug", "peer"])
def test_formula_counts_what_torch_counts(preset: str, batch: PackedSequence) -> None:
    """With a pyramid and without, forwards and backwards: the same to a thousandth."""
    config = MMCoreConfig(vocab_size=1024, **PRESETS[preset])
    model = MMCoreModel(config)
    model.backend = "dense"
    expected = forward_flops(config, Load.of(batch))
    with FlopCounterMode(display=False) as forward:
        losses = flow_losses(model, batch, torch.Generator().manual_seed(0))
    assert forward.get_total_flops() == pytest.approx(expected, rel=1e-3)
    with FlopCounterMode(display=False) as backward:
        (losses.text + losses.flow).backward()
    assert backward.get_total_flops() == pytest.approx(2 * expected, rel=0.05)  # nothing flows back into pixels


@pytest.mark.parametrize("preset", ["debug", "peer"])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("backend", ["dense", "sdpa"])
def test_activations_are_what_a_step_keeps(preset: str, bf16: bool, backend: str, batch: PackedSequence) -> None:
    """Planned from shapes alone, against the bytes that a real step keeps for its backward pass: within 6 %."""
    config = MMCoreConfig(vocab_size=1024, **PRESETS[preset])
    model = MMCoreModel(config)
    model.backend = backend

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            kept.append(flow_losses(model, batch, torch.Generator().manual_seed(0)))

    kept: list[object] = []
    measured = saved_bytes(step, model.parameters())
    assert activation_bytes(config, Load.of(batch), bf16, backend, False) == pytest.approx(measured, rel=0.06)


TUNED = {
    "all": [],
    "lora": ["lora=4"],
    "parts": ["rates.decoder=0", "rates.words=0"],
    "both": ["lora=4", "rates.text=0"],
}


@pytest.mark.parametrize("changes", TUNED.values(), ids=TUNED)
@pytest.mark.parametrize("muon", [0.01, 0.0])
def test_states_are_what_an_engine_holds(changes: list[str], muon: float, batch: PackedSequence) -> None:
    """Weights, average, gradients and optimizer states of a step in one process, to the byte.

    But for AdamW's counts of steps, four bytes a weight.
    """
    recipe = load_recipe("debug", ["precision='fp32'", f"optimizer.muon={muon}", *changes])
    model = MMCoreModel(MMCoreConfig(vocab_size=1024, **PRESETS["debug"]))
    let_learn(model, recipe)
    engine = Engine(model, recipe, Ranks())
    text, flow = engine.losses([batch], [torch.Generator().manual_seed(0)])
    engine.backward(text + flow)
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    engine.step()
    states = [t for state in engine.optimizer.state.values() for name, t in state.items() if name != "step"]
    plan = make_plan(recipe, 1, GPUS["h100"], 0.4)
    assert {name: size for name, size in plan.memory.items() if name != "activations"} == {
        "optimizer": sum(t.nbytes for t in states),
        "average": sum(p.nbytes for p in engine.averaged.parameters()),
        "gradients": gradients,
        "weights": sum(p.nbytes for p in model.parameters()),
    }
    assert plan.learnt == gradients // 4 and (plan.learnt < plan.parameters) == bool(changes)


@pytest.mark.parametrize("bf16", [False, True])
def test_zero_splits_what_it_says(bf16: bool) -> None:
    """Each stage leaves less on a rank, and stage 3 leaves its share of all."""
    totals = [sum(state_bytes(COUNT, 8 * 10**6, 8 * 10**4, bf16, False, zero, 8).values()) for zero in range(4)]
    assert totals == sorted(totals, reverse=True)
    alone = sum(state_bytes(COUNT, 8 * 10**6, 8 * 10**4, bf16, False, 3, 1).values())
    assert totals[3] == alone / 8


def test_a_large_plan_is_made_without_its_memory() -> None:
    """7 billion parameters in seconds; the whole is more than one GPU holds, and split over 64 it fits."""
    split = ["engine.kind='deepspeed'", "engine.zero=3", "engine.checkpointing=true", "optimizer.muon=0"]
    size = ["preset='7b'", "attention='sdpa'", "layout.rows=1"]
    plan = make_plan(load_recipe("tiny", size + split), 64, GPUS["h100"], 0.4)
    assert 6.5e9 < plan.parameters < 7.5e9
    assert sum(plan.memory.values()) < GPUS["h100"].memory
    assert sum(make_plan(load_recipe("tiny", size), 64, GPUS["h100"], 0.4).memory.values()) > GPUS["h100"].memory


def test_batches_that_go_through_the_model_at_once_are_counted() -> None:
    one, four = (
        make_plan(load_recipe("tiny", ["engine.batches=4", f"engine.at_once={n}"]), 1, GPUS["h100"], 0.4)
        for n in (1, 4)
    )
    assert four.positions == 4 * one.positions and four.seconds == pytest.approx(4 * one.seconds)
    assert four.memory["activations"] > 3.8 * one.memory["activations"]


def test_a_run_from_a_model_folder_has_its_shape(root: Path) -> None:
    recipe = load_recipe("finetune", [f"start='{root / 'mmcore' / 'bundled'}'"])
    model = MMCoreModel(MMCoreConfig.from_pretrained(root / "mmcore" / "bundled"))
    assert make_plan(recipe, 1, GPUS["h100"], 0.4).parameters == sum(p.numel() for p in model.parameters())
