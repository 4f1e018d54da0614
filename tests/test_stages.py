"""Recipes that come after each other: what comes before is trained first, and is what the next one starts from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmcore.errors import MMCoreError
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.log import read_log
from mmcore.training.recipe import load_recipe
from mmcore.training.release import stages
from mmcore.training.train import train

SHORT = 'preset = "debug"\nprecision = "fp32"\nsteps = {steps}\nlog_every = 1\nsample_every = 0\nvocabulary = 1024\n'
SMALL = "[layout]\nrows = 1\nwaiting = 6\n"


@pytest.fixture
def second(root: Path, tmp_path: Path) -> Path:
    """A recipe that comes after another, whose run begins with the bundled text tokenizer."""
    (tmp_path / "runs" / "first").mkdir(parents=True)
    TextTokenizer(root / "mmcore" / "bundled" / "tokenizer.model").save(tmp_path / "runs" / "first")
    (tmp_path / "first.toml").write_text(SHORT.format(steps=2) + SMALL)
    (tmp_path / "second.toml").write_text(SHORT.format(steps=3) + 'after = "first"\n' + SMALL)
    return tmp_path / "second.toml"


def test_what_comes_before_is_trained_first(second: Path, tmp_path: Path) -> None:
    """The second run is the one that starts from the first; and once it is there, the first is not trained again."""
    runs = tmp_path / "runs"
    train(load_recipe(second), runs / "second", workers=0)
    assert [(s.name, s.steps) for s in stages(runs / "second")] == [("first", 2), ("second", 3)]
    by_hand = load_recipe(second, [f"start={runs / 'first'}"])
    assert not by_hand.after
    train(by_hand, tmp_path / "by hand", workers=0)

    def losses(run: Path) -> list[tuple[float, float]]:
        return [(line["text"], line["flow"]) for line in read_log(run)]

    assert losses(runs / "second") == losses(tmp_path / "by hand")
    log, weights = runs / "first" / "log.jsonl", runs / "first" / "checkpoint" / "model" / "model.safetensors"
    before = log.read_text(), weights.stat().st_mtime_ns
    train(load_recipe(second, ["steps=4"]), runs / "second", workers=0)
    assert (log.read_text(), weights.stat().st_mtime_ns) == before and len(losses(runs / "second")) == 4


def test_ranks_go_from_one_stage_to_the_next(second: Path, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    for recipe in (second, tmp_path / "first.toml"):
        recipe.write_text(recipe.read_text() + "[optimizer]\nmuon = 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mmcore"]
        + ["train", str(second), "--out", str(tmp_path / "runs" / "second")]
        + ["engine.kind=deepspeed", "engine.zero=1", "engine.batches=2"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [(s.name, s.steps) for s in stages(tmp_path / "runs" / "second")] == [("first", 2), ("second", 3)]


@pytest.mark.quick
def test_the_bundled_model_is_one_recipe_from_nothing() -> None:
    names, steps, recipe = ["tiny"], 0, load_recipe("tiny")
    while True:
        assert recipe.preset == "tiny" and not recipe.start
        steps += recipe.steps
        if not recipe.after:
            break
        names.insert(0, Path(recipe.after).stem)
        recipe = load_recipe(recipe.after)
    assert names == ["reading", "stills", "single", "clips", "whole", "three", "everything", "words", "noise", "tiny"]
    assert steps == 20500


@pytest.mark.quick
def test_a_fault_in_an_earlier_recipe_is_told_before_anything_is_trained(second: Path, tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text("colour = 3\n")
    with pytest.raises(MMCoreError, match=r"first.toml: unknown key 'colour'"):
        load_recipe(second)
    (tmp_path / "first.toml").write_text('after = "second"\n')
    with pytest.raises(MMCoreError, match="in a circle: second after first after second"):
        load_recipe(second)
    for wrong in ("'../first'", "3", "'.'"):
        with pytest.raises(MMCoreError, match="after must be the name of a recipe"):
            load_recipe(second, [f"after={wrong}"])
    (tmp_path / "first.toml").unlink()
    with pytest.raises(MMCoreError, match=r"first.toml: no such recipe"):
        load_recipe(second)
