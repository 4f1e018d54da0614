"""Held-out losses: each document once, the same on any ranks, and training none the wiser. Checkpoints that stay."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcore.document import Document, Image, Text
from mmcore.errors import MMCoreError
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training import checkpoints
from mmcore.training.checkpoints import older, recover
from mmcore.training.checkpoints import replace as put
from mmcore.training.data import VALIDATION
from mmcore.training.log import read_log
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import HeldOut, Recipe, load_recipe
from mmcore.training.shards import Sample, write_shards
from mmcore.training.sources import held_out
from mmcore.training.subjects import make_validation, shape
from mmcore.training.train import train
from mmcore.training.validation import Validation
from tests.conftest import lively


def document(index: int) -> Document:
    """Words that say which document it is, and a still to write or to read."""
    frames = np.full((1, 32, 32, 3), index % 251, np.uint8)
    words = Text(f"{index} {'red ' * (index % 4)}", learn=index % 2 == 1)
    still = Image(frames, learn=index % 2 == 0)
    return Document((words, still) if still.learn else (still, words))


def small(**changes: object) -> Recipe:
    layout = "layout.room=[60, 40, 40]"
    lines = ["precision='fp32'", "log_every=1", "save_every=2", "steps=3", "layout.rows=1", "layout.waiting=3", layout]
    return replace(load_recipe("debug", lines), **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    TextTokenizer(root / "mmcore" / "bundled" / "tokenizer.model").save(tmp_path / "run")
    return tmp_path / "run"


@dataclass(frozen=True)
class Alone(Ranks):
    """One of several ranks, whose sums are of itself."""

    def sum(self, *values: float) -> tuple[float, ...]:
        return values


def test_held_out_documents_come_once_each_and_on_any_ranks(folder: Path, tmp_path: Path) -> None:
    """The words in the batches are those of the documents; parts of 1, 2 and 5 ranks add up to the same losses."""
    recipe = small(validation=HeldOut(every=2, documents=9), steps=2)
    asked: list[int] = []
    engine = train(recipe, folder, lambda i: (asked.append(i), document(i))[1], workers=0)
    text = TextTokenizer(folder / "tokenizer.model")
    validation = make_validation(engine, document, folder / "tokenizer.model")
    words = " ".join(text.decode([int(i) for i in batch.ids.flatten()]) for batch in validation.batches)
    assert all(words.count(str(VALIDATION + i)) == 1 for i in range(9))
    assert len(validation.batches) == 3, "of two ranks one has more, of five two have none"
    assert sum(i >= VALIDATION for i in asked) == 9 and max(i for i in asked if i < VALIDATION) < 100
    lively(engine.model)
    found = validation()
    assert found == validation(), "the same noise each time"
    whole = np.array(list(found.values()))
    tokens = np.array([(b.labels >= 0).sum().item() for b in validation.batches])
    patches = np.array([b.is_target_patch.sum().item() for b in validation.batches])
    for world in (2, 5):
        total = np.zeros(2)
        for rank in range(world):
            engine.ranks = Alone(rank, world)
            counts = np.array([tokens[rank::world].sum(), patches[rank::world].sum()])
            total += np.array(list(Validation(validation.batches, engine)().values())) * counts
        np.testing.assert_allclose(total / (tokens.sum(), patches.sum()), whole, rtol=1e-6)


def test_validation_changes_nothing_of_the_training(folder: Path, tmp_path: Path) -> None:
    """Losses and weights to the bit; the held-out lines stand in the log, at the end as well, and are drawn."""
    shutil.copytree(folder, tmp_path / "other")
    plain = train(small(), folder, document, workers=0)
    watched = train(small(validation=HeldOut(2, 4), keep=2), tmp_path / "other", document, workers=0)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)
    first, second = read_log(folder), read_log(tmp_path / "other")
    training = [line for line in second if "text" in line]
    assert [[line[k] for k in ("step", "text", "flow", "norm")] for line in training] == [
        [line[k] for k in ("step", "text", "flow", "norm")] for line in first
    ]
    held = [line for line in second if "valid_text" in line]
    assert [line["step"] for line in held] == [2, 3] and held[0]["valid_text"] != held[1]["valid_text"]
    assert all(np.isfinite([line["valid_text"], line["valid_flow"]]).all() for line in held)
    assert (tmp_path / "other" / "curves.png").stat().st_size > 1000
    kept = sorted(path.name for path in (tmp_path / "other").glob("checkpoint*"))
    assert kept == ["checkpoint", "checkpoint-000002"]
    shutil.rmtree(tmp_path / "other" / "checkpoint")
    train(small(keep=2), tmp_path / "other", document, workers=0)
    again = [line for line in read_log(tmp_path / "other") if "text" in line]
    assert again[-1]["text"] == training[-1]["text"] and len(again) == 3, "from the one before, the same step is made"


@pytest.mark.quick
def test_where_held_out_documents_come_from(tmp_path: Path) -> None:
    for name, many in (("train", 6), ("held", 4)):
        write_shards((Sample.of(document(i)) for i in range(many)), tmp_path / name)
    config = shape(small())
    alone = small(data={str(tmp_path / "train"): 1.0}, validation=HeldOut(5, 9))
    with pytest.raises(MMCoreError, match=r"every=5 needs documents .* validation.data=FOLDER"):
        held_out(alone, config)
    named = replace(alone, validation=HeldOut(5, 9, str(tmp_path / "held")))
    source, indexes = held_out(named, config)
    assert sorted(source(i).text for i in indexes) == sorted(document(i).text for i in range(4)), (
        "no more than there are"
    )
    mixed = small(data={"world": 1.0, str(tmp_path / "train"): 1.0}, validation=HeldOut(5, 9))
    source, indexes = held_out(mixed, config)
    assert (indexes.start, len(indexes)) == (VALIDATION, 9) and source(VALIDATION) == held_out(small(), config)[0](
        VALIDATION
    )
    for wrong in (["validation.every=-1"], ["validation.documents=0"], ["keep=0"]):
        with pytest.raises(MMCoreError, match="at least"):
            load_recipe("debug", wrong)
    with pytest.raises(MMCoreError, match=r"no \.tar shards"):
        held_out(replace(alone, validation=HeldOut(5, 9, str(tmp_path))), config)


class Killed(Exception):
    pass


def fake(folder: Path, done: int) -> Path:
    folder.mkdir()
    (folder / "engine.json").write_text(json.dumps({"done": done}))
    return folder


@pytest.mark.quick
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_kill_at_any_moment_leaves_the_last_good_checkpoint(
    keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five checkpoints in turn, ended before each of the moves and deletions that put the fifth in its place."""
    rename, remove = Path.rename, shutil.rmtree

    def ends_whole(moment: int) -> bool:
        run, left = tmp_path / str(moment), [moment]
        run.mkdir()
        newest = run / "checkpoint"

        def may_die() -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        for done in range(1, 5):
            put(fake(run / "checkpoint.part", done), newest, keep)
        assert len(older(newest)) == keep - 1
        fake(run / "checkpoint.part", 5)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", lambda a, b: (may_die(), rename(a, b))[1])
            patched.setattr(checkpoints.shutil, "rmtree", lambda *a, **k: (may_die(), remove(*a, **k)))
            try:
                put(run / "checkpoint.part", newest, keep)
                whole = True
            except Killed:
                whole = False
        recover(newest)
        dones = [json.loads((path / "engine.json").read_text())["done"] for path in (*older(newest), newest)]
        assert dones == sorted(dones) and len(dones) >= keep
        assert dones[-1] == 5 or (dones[-1] == 4 and not whole)
        if whole:
            assert dones == list(range(6 - keep, 6))
            assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in (*older(newest), newest))
        return whole

    assert next(moment for moment in count() if ends_whole(moment)) > 1, "all moments were tried"
