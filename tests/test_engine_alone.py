"""A run in one process: what is refused, what a step averages over, what stops it and what is left then."""

from __future__ import annotations

import json
import os
import resource
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mmcore.document import Document, Image, Text
from mmcore.errors import MMCoreError
from mmcore.model import flow_losses
from mmcore.training import data
from mmcore.training.checkpoints import Shards
from mmcore.training.data import DataState, Layout, PackedBatches, step_generator
from mmcore.training.plain import Engine
from mmcore.training.ranks import Ranks, join
from mmcore.training.recipe import Driver, Recipe, load_recipe
from mmcore.training.train import train, train_step
from tests.test_engine import job  # type: ignore[import-not-found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    job(tmp_path / "run")
    return tmp_path / "run"


def small(**engine: object) -> Recipe:
    changes = ["precision='fp32'", "log_every=1", "save_every=2", "steps=4", "layout.rows=1", "layout.waiting=3"]
    return replace(load_recipe("debug", changes), engine=Driver(**engine))  # type: ignore[arg-type]


def still(index: int) -> Document:
    frames = np.full((1, 32, 32, 3), index % 256, np.uint8)
    return Document((Text("a gray " * (1 + index % 4)), Image(frames, learn=True)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["engine.kind=jax"], "kind must be torch or deepspeed"),
        (["engine.zero=4"], "zero must be 0, 1, 2 or 3"),
        (["engine.zero=2"], "set engine.kind=deepspeed"),
        (["engine.batches=0"], "batches must be at least 1"),
        (["engine.batches=4", "engine.at_once=3"], "at_once must divide engine.batches=4, got 3"),
        (["engine.offload=true"], "needs engine.zero=1, 2 or 3"),
        (["engine.kind=deepspeed", "engine.zero=1"], "Muon needs whole ones.*set optimizer.muon=0"),
    ],
)
def test_wrong_engines_are_one_clear_line(changes: list[str], message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        load_recipe("debug", changes)


def test_ranks_that_do_not_fit_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MMCoreError, match=r"2 were started; set engine\.kind=deepspeed"):
        join(Driver())
    with pytest.raises(MMCoreError, match="batches=3 cannot be dealt out to 2 ranks"):
        join(Driver("deepspeed", batches=3))
    with pytest.raises(MMCoreError, match="set a multiple of 4"):
        join(Driver("deepspeed", batches=6, at_once=2))


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_step_averages_over_tokens_not_over_batches(at_once: int, folder: Path) -> None:
    """Two batches of unequal size: losses and gradient are those of the sums, divided by all tokens."""
    recipe = small(batches=2, at_once=at_once)
    engine = train(replace(recipe, steps=0), folder, still, workers=0)
    streams = [PackedBatches(still, folder / "tokenizer.model", (4, 16, 16), Layout(1, waiting=n)) for n in (3, 9)]
    batches = [next(iter(stream))[0].to("cpu") for stream in streams]
    found = [flow_losses(engine.model, b, step_generator(0, i, engine.device)) for i, b in enumerate(batches)]
    tokens = [(losses.text_tokens, losses.flow_tokens) for losses in found]
    assert len(set(tokens)) == 2, "or it would show nothing"
    text = torch.stack([x.text * x.text_tokens for x in found]).sum() / sum(n for n, _ in tokens)
    flow = torch.stack([x.flow * x.flow_tokens for x in found]).sum() / sum(n for _, n in tokens)
    total = torch.autograd.grad(text + recipe.flow_weight * flow, list(engine.model.parameters()), allow_unused=True)
    norm = torch.stack([g.norm() for g in total if g is not None]).norm()
    report = train_step(engine, batches)
    expected = {"text": float(text), "flow": float(flow), "norm": float(norm)}
    assert report == pytest.approx(expected, rel=1e-4)


def test_streams_share_the_documents_and_none_twice(folder: Path) -> None:
    seen: list[list[int]] = [[], [], []]

    def noted(stream: int) -> Callable[[int], Document]:
        return lambda index: (seen[stream].append(index), still(index))[1]

    for s in range(3):
        path, layout = folder / "tokenizer.model", Layout(rows=1, waiting=4)
        batches = iter(PackedBatches(noted(s), path, (4, 16, 16), layout, DataState(s), stride=3))
        _, (_, state) = next(batches), next(batches)
        assert state.next == 3 * len(seen[s]) + s
    together = sorted(i for indices in seen for i in indices)
    assert len(set(together)) == len(together) and together[:9] == list(range(9))


def broken_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Engine.losses

    def broken(engine: Engine, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        text, flow = losses(engine, *given)  # type: ignore[arg-type]
        return text * (float("nan") if engine.done + 1 == step else 1), flow

    monkeypatch.setattr(Engine, "losses", broken)


def test_what_is_not_finite_stops_the_run_with_its_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(3, monkeypatch)
    with pytest.raises(MMCoreError, match="step 3: text is nan, norm is nan; lower"):
        train(small(), folder, still, workers=0)
    assert json.loads((folder / "checkpoint" / "engine.json").read_text())["done"] == 2


def test_or_its_step_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(3, monkeypatch)
    engine = train(small(skip=True), folder, still, workers=0)
    assert all(p.isfinite().all() for p in engine.model.parameters()) and int(engine.ema.n_averaged) == 3
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [("text" in line, line.get("skipped")) for line in lines] == [(True, None)] * 2 + [(False, 1), (True, 1)]


@pytest.mark.parametrize("ends", [lambda: os._exit(1), threading.Event().wait], ids=["dies", "hangs"])
def test_a_data_worker_that_fails_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ends: Callable[[], object]
) -> None:
    monkeypatch.setattr(data, "PATIENCE", 2)
    parent = os.getpid()

    def source(index: int) -> Document:
        if index == 4:
            assert os.getpid() != parent
            ends()
        return still(index)

    with pytest.raises(MMCoreError, match=r"step \d: no batch came: .*start it again"):
        train(small(), folder, source)


def test_a_full_disk_is_one_clear_line_and_the_last_checkpoint_stays(folder: Path) -> None:
    train(replace(small(), steps=2), folder, still, workers=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MMCoreError, match=r"checkpoint: cannot write at step 4: .*make room"):
            train(small(), folder, still, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (folder / "checkpoint.part").exists()
    engine = train(small(), folder, still, workers=0)
    assert engine.done == 4


def test_a_run_goes_on_with_the_same_batches_only(folder: Path) -> None:
    train(replace(small(), steps=2), folder, still, workers=0)
    with pytest.raises(MMCoreError, match=r"written with engine\.batches=1; go on with the same, not 2"):
        train(small(batches=2), folder, still, workers=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_any_stretch_is_read_from_any_cut(
    tmp_path_factory: pytest.TempPathFactory, cut: list[int], drawn: st.DataObject
) -> None:
    """A vector cut in pieces, a file each, is read at any place; a missing file is noticed."""
    where = tmp_path_factory.mktemp("cut")
    values, starts = torch.arange(sum(cut), dtype=torch.float32), np.cumsum([0, *cut])
    for i, (start, length) in enumerate(zip(starts, cut, strict=False)):
        save_file({f"ema/a.b/{start}": values[start : start + length].clone()}, where / f"{i}.safetensors")
    a, b = sorted(drawn.draw(st.tuples(st.integers(0, sum(cut)), st.integers(0, sum(cut)))))
    with Shards(where) as shards:
        assert torch.equal(shards.read("ema/a.b", a, b), values[a:b])
    gone = drawn.draw(st.integers(0, len(cut) - 1))
    (where / f"{gone}.safetensors").unlink()
    with Shards(where) as shards, pytest.raises(MMCoreError, match="not all there"):
        shards.read("ema/a.b", 0, sum(cut))


def test_one_rank_adds_up_alone() -> None:
    assert Ranks().sum(1, 2.5) == (1, 2.5) and float(Ranks().add(torch.ones(()))) == 1
