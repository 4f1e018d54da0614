"""Split over ranks: frozen weights (parts, beneath adapters, an eye), and what a rank's batch leaves unused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.model import MMCoreModel, part_of
from mmcore.training.checkpoints import load_averaged
from tests.test_engine import (  # type: ignore[import-not-found]
    HERE,
    TOLERANCE,
    Job,
    free_port,
    job,
    launch,
    numbers,
    sharded,
    torchrun,
)
from tests.test_eye import saved_tower, seeing, speak  # type: ignore[import-not-found]

WAYS = {"frozen": "rates={attention=0}", "lora": "lora=2", "bare": "", "eye": ""}
"""Changes to a recipe; the last two learn from documents of which every other one has nothing but words."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with an eye that says something, as a change to a recipe."""
    folder = tmp_path_factory.mktemp("eyed")
    saved_tower("siglip2", folder / "tower")
    model = seeing(folder / "tower", MMCoreConfig(**PRESETS["debug"]))
    speak(model)
    model.save_pretrained(folder / "model")
    shutil.copy(HERE.parent / "mmcore" / "bundled" / "tokenizer.model", folder / "model")
    return f"start={folder / 'model'}"


def some(folder: Path, start: str, way: str, *changes: str, **more: object) -> Job:
    begun = ("preset=start", start) if way == "eye" else ()
    more |= {"bare": way in ("bare", "eye")}
    return job(folder, *filter(None, (WAYS[way], *begun)), "validation.every=0", *changes, **more)


@pytest.fixture(scope="module")
def one(start: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in one process by torch."""
    pytest.importorskip("deepspeed")
    where = tmp_path_factory.mktemp("one")
    launch([some(where / way, start, way, "optimizer.muon=0") for way in WAYS], where)
    return where


@pytest.fixture(scope="module")
def two(one: Path, start: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two ranks; one computes in bfloat16, the last is killed in its fourth step."""
    where = tmp_path_factory.mktemp("two")
    jobs = [some(where / f"{way}{zero}", start, way, *sharded(zero)) for way in WAYS for zero in (2, 3)]
    jobs += [some(where / "rounded", start, "frozen", *sharded(1), "precision='bf16'", average=True)]
    jobs += [some(where / "killed", start, "frozen", *sharded(3), die=(1, 4, "step"))]
    launch(jobs, where, torchrun(free_port()), dies=True)
    return where


def averaged(run: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a run, adapters merged."""
    checkpoint = run / "checkpoint"
    config = next(path for name in ("shards", "ema") if (path := checkpoint / name).is_dir())
    model = MMCoreModel(MMCoreConfig.from_pretrained(config))
    load_averaged(model, checkpoint)
    return model.state_dict()


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("way", list(WAYS))
def test_split_equals_whole(one: Path, two: Path, way: str, zero: int) -> None:
    """The same losses and norms, and the same averages; to the bit what is frozen."""
    plain = numbers(one / way)
    assert len(plain) == 4
    np.testing.assert_allclose(numbers(two / f"{way}{zero}"), plain, rtol=TOLERANCE, atol=2e-5)
    expected, found = averaged(one / way), averaged(two / f"{way}{zero}")
    frozen = {"frozen": "attention", "eye": "eye", "lora": "decoder", "bare": None}[way]
    for name, weight in expected.items():
        atol = 0 if part_of(name) == frozen else 1e-4
        torch.testing.assert_close(found[name], weight, rtol=0, atol=atol, msg=name)


def test_what_is_frozen_is_not_rounded(one: Path, two: Path) -> None:
    """Where it computes in bfloat16 too, in a checkpoint and in the gathered average."""
    begun = averaged(one / "frozen")
    gathered = MMCoreModel.from_pretrained(two / "rounded" / "averaged").state_dict()
    for found in (averaged(two / "rounded"), gathered):
        frozen = [name for name in begun if part_of(name) == "attention"]
        assert frozen and all(torch.equal(found[name], begun[name]) for name in frozen)


def test_a_killed_run_goes_on_from_what_it_began_with(one: Path, two: Path, start: str, tmp_path: Path) -> None:
    """At another stage and in one process; and from something else it does not."""
    for name in ("on", "other"):
        shutil.copytree(two / "killed", tmp_path / name)
    jobs = [some(tmp_path / "on", start, "frozen", *sharded(2))]
    jobs += [some(tmp_path / "other", start, "frozen", *sharded(2), "seed=1")]
    launch(jobs, tmp_path, dies=True)
    np.testing.assert_allclose(numbers(tmp_path / "on"), numbers(one / "frozen"), rtol=TOLERANCE, atol=2e-5)
    assert "is frozen, and not what it was" in (tmp_path / "jobs-0-0.err").read_text()
