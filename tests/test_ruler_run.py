"""The ruler inside training: the scores of `mmcore eval` on the average, to the bit, and training none the wiser."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from PIL import ImageColor

from mmcore.document import Document, Text
from mmcore.errors import MMCoreError
from mmcore.training import ruler
from mmcore.training.curves import COLOURS
from mmcore.training.evaluate import evaluate
from mmcore.training.export import averaged_pipeline
from mmcore.training.log import Log, read_log
from mmcore.training.plain import Engine
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import Recipe, Scoring, load_recipe
from mmcore.training.train import train
from mmcore.training.world.mixtures import MIXTURES

TASKS = tuple(MIXTURES["reading"])


def reading(root: Path, steps: int, **changes: object) -> Recipe:
    """The bundled model, which answers some of the questions, reads on."""
    changed = [f"start='{root / 'mmcore' / 'bundled'}'", f"steps={steps}", "mixture=reading", "solids=1", "log_every=1"]
    changed += ["layout.rows=1", "layout.waiting=2", "layout.room=[100, 40, 24]", "precision=fp32", "save_every=2"]
    return replace(load_recipe("finetune", changed), **changes)  # type: ignore[arg-type]


def lines(folder: Path, *keys: str) -> list[list[float]]:
    """What those lines of a log that have the keys say of them."""
    return [[line["step"], *(line[key] for key in keys)] for line in read_log(folder) if keys[0] in line]


def state() -> tuple[bytes, bytes]:
    """Of the random numbers that a process has in common."""
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002


class Stop(Exception):
    pass


def stop(*_: object) -> None:
    raise Stop


def test_scores_are_those_of_the_average_and_change_nothing(root: Path, tmp_path: Path) -> None:
    """With the ruler and without, at once and in two parts: the same losses, weights, random state and scores."""
    plain = train(reading(root, 3), tmp_path / "plain", workers=0)
    drawn = state()
    scored = reading(root, 3, ruler=Scoring(2, 2))
    engine = train(scored, tmp_path / "scored", workers=0)
    assert state() == drawn
    for a, b in zip(plain.model.parameters(), engine.model.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = lines(tmp_path / "plain", "text", "norm", "tokens")
    assert len(losses) == 3 and lines(tmp_path / "scored", "text", "norm", "tokens") == losses

    with torch.no_grad():
        for p in engine.model.parameters():
            p.zero_()  # the ruler looks at the average alone
    found = ruler.Ruler(engine, tmp_path / "scored")()
    report = evaluate(averaged_pipeline(tmp_path / "scored"), 2, TASKS, progress=False, held_out=())
    rows = {f"{s.measure}/{s.task}": s.value for s in report.scores}
    assert {"right/image to text", "right/image question", "right kind/all of these"} == rows.keys()
    assert found == rows | {"right/words": np.mean([rows[f"right/{task}"] for task in TASKS])}
    assert found["right/words"] > 0, "or the test would see nothing"
    scores = lines(tmp_path / "scored", *found)
    assert [line[0] for line in scores] == [2, 3] and scores[-1][1:] == pytest.approx(list(found.values()), abs=1e-5)

    with pytest.raises(Stop):
        train(replace(scored, sample_every=3), tmp_path / "parts", workers=0, on_sample=stop)
    train(scored, tmp_path / "parts", workers=0)
    assert lines(tmp_path / "parts", *found) == scores
    assert lines(tmp_path / "parts", "text", "norm", "tokens") == losses


@dataclass(frozen=True)
class Second(Ranks):
    """The other of two ranks; notes that it waits."""

    waited: list[bool] = None  # type: ignore[assignment]

    def wait(self) -> None:
        self.waited.append(True)


def test_other_ranks_gather_the_average_and_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> None:
    recipe = reading(root, 0)
    engine = train(recipe, tmp_path / "run", workers=0)
    measure, waited, gathered = ruler.Ruler(engine, tmp_path / "run"), list[bool](), list[bool]()
    engine.ranks = Second(1, 2, waited=waited)
    monkeypatch.setattr(Engine, "averaged", property(lambda _: gathered.append(not waited)))
    monkeypatch.setattr(ruler, "evaluate", stop)
    assert measure() == {} and waited == gathered == [True]


@pytest.mark.quick
def test_the_ruler_is_for_runs_on_the_world(root: Path, tmp_path: Path) -> None:
    def own(index: int) -> Document:
        return Document((Text("red", learn=True),))

    (tmp_path / "run").mkdir()
    shutil.copy(root / "mmcore" / "bundled" / "tokenizer.model", tmp_path / "run")
    recipe = replace(load_recipe("debug", ["ruler.every=5"]), steps=0)
    for wrong, source in ((recipe, own), (replace(recipe, data={str(tmp_path): 1.0}), None)):
        with pytest.raises(MMCoreError, match=r"ruler\.every=5 scores .* of the world.*set ruler\.every=0"):
            train(wrong, tmp_path / "run", source, workers=0)
    for changes in (["ruler.every=-1"], ["ruler.documents=0"]):
        with pytest.raises(MMCoreError, match="at least"):
            load_recipe("debug", changes)


@pytest.mark.quick
def test_scores_are_drawn(tmp_path: Path) -> None:
    log = Log(tmp_path, 0)
    for step in (1, 2):
        log.write(step, {"right/words": 0.5, "right/clips": 0.2, "psnr/image edit": 20.0})
    log.draw()
    log.close()
    with Picture.open(tmp_path / "curves.png") as picture:
        drawn = {pixel for _, pixel in picture.convert("RGB").getcolors(10**6) or ()}
    assert {ImageColor.getrgb(COLOURS[i]) for i in (0, 2)} <= drawn and ImageColor.getrgb(COLOURS[1]) not in drawn
