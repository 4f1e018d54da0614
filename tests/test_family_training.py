"""Released families tuned by the library's own loop: documents to lessons, adapters alone, resume, a folder to load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmcore
from mmcore.cli import main
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.teaching import Teacher, teacher
from mmcore.pipeline import FamilyPipeline
from mmcore.replies import Request
from mmcore.training.data import DataState, Layout
from mmcore.training.family import LessonBatches, hidden
from mmcore.training.log import read_log
from mmcore.training.lora import IN, OUT
from mmcore.training.recipe import Recipe, load_recipe
from mmcore.training.shards import Sample, write_shards
from mmcore.training.train import train
from tests.conftest import noise_clip  # type: ignore[import-not-found]
from tests.test_five_turns import FAMILIES, released_folder, small_media  # type: ignore[import-not-found]

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_media(monkeypatch)


@pytest.fixture(scope="module", params=FAMILIES)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each family in its released layout."""
    torch.manual_seed(0)
    return released_folder(request.param, tmp_path_factory.mktemp("released"))


def document(index: int) -> Document:
    """A picture to be drawn, or a question about one that is to be answered."""
    picture = noise_clip(index % 2, 1, 32)
    if index % 2:
        return Document((Image(picture), Text("what is it?"), Text("noise", True)))
    return Document((Text("some noise"), Image(picture, learn=True)))


def tuning(start: Path, **changes: Any) -> Recipe:
    lines = [f"start={start}", "precision=fp32", "lora=4", "steps=4", "log_every=1"]
    lines += ["optimizer.adam=0.02", "optimizer.warmup=1", "optimizer.cooldown=1"]
    changes = {"layout": Layout(rows=2, hide_all=0, hide_text=0, hide_context=0), **changes}
    return replace(load_recipe("finetune", lines), **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded = mmcore.load(folder, device="cpu")
    return {name: p.detach().clone() for name, p in loaded.weights.named_parameters()}


def taught(start: Path) -> Teacher:
    loaded = mmcore.load(start, device="cpu")
    assert isinstance(loaded, FamilyPipeline)
    return teacher(start, loaded.backbone, loaded.translator)


def test_the_losses_fall_and_everything_else_stays(start: Path, tmp_path: Path) -> None:
    """Both losses over 30 steps on two documents; every released weight is as it was, to the bit."""
    engine = train(tuning(start, steps=30), tmp_path / "run", document)
    lines = read_log(tmp_path / "run")
    for loss in ("text", "flow"):
        first, last = (fmean(line[loss] for line in part) for part in (lines[:5], lines[-5:]))
        assert last < 0.92 * first, loss
    assert "tflops" not in lines[0] and lines[0]["tokens"] > 20
    given = weights(start)
    for name, p in engine.model.named_parameters():
        if name.endswith((IN, OUT)):
            assert p.dtype == torch.float32 and p.abs().max() > 0, name
        else:
            assert torch.equal(p, given.pop(name)), name
    assert not given, "nothing was lost on the way"


def test_two_steps_and_two_more_are_four(start: Path, tmp_path: Path) -> None:
    """Adapters, their average and the order of documents, to the bit."""
    whole = train(tuning(start), tmp_path / "whole", document)

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(tuning(start, save_every=2, sample_every=3), tmp_path / "parts", document, on_sample=stop)
    asked: list[int] = []
    again = train(tuning(start), tmp_path / "parts", lambda i: (asked.append(i), document(i))[1])
    assert min(asked) == 4, "what was seen is not seen again"
    for name, p in whole.adapters.items():
        assert torch.equal(p, again.adapters[name]) and torch.equal(whole.mean[name], again.mean[name]), name


def test_what_is_exported_is_a_folder_of_the_family(start: Path, tmp_path: Path, capsys: Any) -> None:
    """From shards to a folder by commands. Its answers are those of the averaged adapters, to 1e-4 of the largest
    velocity, and not those of the start; what the adapters do not touch is the same to the bit."""
    write_shards([Sample.of(document(i)) for i in range(2)], tmp_path / "shards")
    lines = [f"data={tmp_path / 'shards'}", f"start={start}", "lora=2", "steps=3", "precision=fp32", "layout.rows=1"]
    lines += [
        "optimizer.adam=0.02",
        "optimizer.warmup=1",
        "validation.every=3",
        f"validation.data={tmp_path / 'shards'}",
    ]
    assert main(["train", "finetune", *lines, "--out", str(tmp_path / "run")]) == 0
    assert {"valid_text", "valid_flow"} <= set(read_log(tmp_path / "run")[-1])
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "tuned")]) == 0
    capsys.readouterr()
    averaged = load_file(tmp_path / "run" / "checkpoint" / "averaged.safetensors")
    before, after = weights(start), weights(tmp_path / "tuned")
    assert before.keys() == after.keys()
    for name, p in after.items():
        stem = name.removesuffix("weight")
        change = averaged[stem + OUT] @ averaged[stem + IN] if stem + OUT in averaged else torch.zeros_like(p)
        assert torch.equal(p, before[name] + change), name
    assert any(not torch.equal(p, before[name]) for name, p in after.items())
    tuned, plain = (mmcore.load(folder, device="cpu") for folder in (tmp_path / "tuned", start))
    made, other = (m.generate_image("some noise", height=32, width=32, steps=2).frames for m in (tuned, plain))
    assert not np.array_equal(made, other)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_released_precision_is_tuned_too(start: Path, tmp_path: Path, precision: str) -> None:
    """Weights in bfloat16, adapters in float32; running blocks again in the backward pass changes nothing."""
    half = tmp_path / start.name
    half.mkdir()
    for path in [*start.iterdir(), *(p for p in start.parent.iterdir() if p.is_dir() and p != start)]:
        target = (half if path.parent == start else tmp_path) / path.name
        if path.suffix == ".safetensors" and path.name != "vit.safetensors":
            save_file({k: v.bfloat16() for k, v in load_file(path).items()}, target)
        else:
            target.symlink_to(path)
    recipe = tuning(half, precision=precision, steps=2)
    engine = train(recipe, tmp_path / "run", document)
    assert {p.dtype for n, p in engine.model.named_parameters() if ".self_attn.q_proj.weight" in n} == {torch.bfloat16}
    assert {p.dtype for p in engine.adapters.values()} == {torch.float32}
    again = train(replace(recipe, engine=replace(recipe.engine, checkpointing=True)), tmp_path / "again", document)
    assert all(torch.equal(p, again.adapters[name]) for name, p in engine.adapters.items())


def test_a_lesson_is_laid_out_as_it_is_asked_for(start: Path) -> None:
    """What a prompt gives the model stands in the lesson at the same rotary positions and as the same numbers."""
    loaded = mmcore.load(start, device="cpu")
    known = teacher(start, loaded.backbone, loaded.translator)
    words, still = Text("some noise"), Image(noise_clip(0, 1, 32))
    for want, learnt in (("text", Text("so", True)), ("image", Image(noise_clip(1, 1, 32), learn=True))):
        seen: list[Any] = []
        model: Any = loaded.weights
        forward = model.forward
        model.forward = lambda new, *rest, seen=seen, forward=forward: (seen.append(new), forward(new, *rest))[1]
        request = loaded._fitted(Request(Document((still, words)), want))
        loaded.backbone.read([loaded.translator.order(request, loaded.translator.sizes(request)).pieces])
        model.forward = forward
        lesson = known.lesson(Document((still, words, learnt)), torch.Generator().manual_seed(0), (0.0, 1.0))
        inside = torch.cat(lesson.strand.lanes[0].values)
        asked = seen[0].x[0, : seen[0].lengths[0]]
        n = len(asked)
        torch.testing.assert_close(inside[:n], asked, atol=2e-5, rtol=0)
        coords = np.concatenate(lesson.strand.lanes[0].coords)[:n]
        np.testing.assert_array_equal(coords, seen[0].coords[0, :n].numpy())


def test_words_and_media_are_hidden_in_their_shares() -> None:
    """Of documents in which a medium is learnt; where words alone are, nothing is."""
    edit = Document((Image(noise_clip(0, 1)), Text("blue"), Image(noise_clip(1, 1), learn=True)))
    layout, rng = Layout(hide_all=0.2, hide_text=0.3, hide_context=0.1), np.random.default_rng(0)
    found = [tuple(type(s).__name__ for s in hidden(edit, layout, rng)) for _ in range(2000)]
    whole = ("Image", "Text", "Image")
    shares = {kinds: found.count(kinds) / 2000 for kinds in ((whole[2:]), whole[1:], (whole[0], whole[2]), whole)}
    assert shares == pytest.approx({whole[2:]: 0.2, whole[1:]: 0.1, (whole[0], whole[2]): 0.3, whole: 0.4}, abs=0.04)
    told = document(1)
    assert all(hidden(told, replace(layout, hide_all=1, hide_text=0, hide_context=0), rng) is told for _ in range(9))


def test_noise_follows_the_recipe(start: Path) -> None:
    """Of 60 documents the logit of t has the mean and the spread that are asked for; each has noise of its own."""
    known, generator = taught(start), torch.Generator().manual_seed(0)
    lessons = [known.lesson(document(0), generator, (-1.0, 0.5)) for _ in range(60)]
    logits = torch.tensor([1 - lesson.goals[0].level for lesson in lessons]).logit()
    assert float(logits.mean()) == pytest.approx(-1, abs=0.2) and float(logits.std()) == pytest.approx(0.5, abs=0.15)
    assert not torch.equal(lessons[0].goals[0].velocity, lessons[1].goals[0].velocity)


def test_what_cannot_be_learnt_is_said_in_one_line(start: Path, tmp_path: Path) -> None:
    known, generator = taught(start), torch.Generator()
    clip = Video(noise_clip(0, 5, 32), learn=True)
    with pytest.raises(MMCoreError, match=f"{known.name} does not learn to set a picture in motion yet"):
        known.lesson(Document((Image(noise_clip(0, 1, 32)), clip)), generator, (0, 1))
    with pytest.raises(MMCoreError, match="nothing in the document is to be learnt"):
        known.lesson(Document((Text("words"),)), generator, (0, 1))
    if known.name == "BAGEL":
        with pytest.raises(MMCoreError, match=r"BAGEL can learn from none of the last 100 .* pictures, not clips"):
            next(iter(LessonBatches(lambda _: Document((clip,)), known, tuning(start), DataState())))
    else:
        lesson = known.lesson(Document((Text("noise"), clip)), generator, (0, 1))
        assert len(lesson.goals) == 1, "the other two learn to film"
    for change, why in (({"lora": 0}, "lora=0"), ({"rates": {"words": 0.5}}, "rates"), ({"compile": True}, "compile")):
        with pytest.raises(MMCoreError, match=f"adapters alone are trained, in one process.*{why}"):
            train(tuning(start, **change), tmp_path / "run", document)
    with pytest.raises(MMCoreError, match="this is for the library's own"):
        from mmcore.training.subjects import shape

        shape(tuning(start))
