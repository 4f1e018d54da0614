"""Training is real: golden losses, a run that resumes exactly, and eight documents learnt by heart."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcore.attention import PADDING
from mmcore.backbone import Guidance
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.generate import Settings
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.data import DataState, Layout, PackedBatches, fill_rows
from mmcore.training.muon import Muon, orthogonalize
from mmcore.training.optimizers import average, rate
from mmcore.training.plain import Engine
from mmcore.training.recipe import Optimizer, Recipe, load_recipe
from mmcore.training.release import stages
from mmcore.training.scores import psnr
from mmcore.training.sources import recipe_source
from mmcore.training.train import train
from mmcore.training.world.tasks import sample_document

GOLDEN = Path(__file__).parent / "golden" / "debug_losses.json"


@pytest.fixture
def run_folder(root: Path, tmp_path: Path) -> Path:
    """A run that begins with the bundled text tokenizer."""
    tokenizer = TextTokenizer(root / "mmcore" / "bundled" / "tokenizer.model")
    (tmp_path / "run").mkdir()
    tokenizer.save(tmp_path / "run")
    return tmp_path / "run"


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def short(**changes: object) -> Recipe:
    recipe = load_recipe("debug", ["precision='fp32'", "log_every=1", "save_every=3"])
    return replace(recipe, **changes)  # type: ignore[arg-type]


def test_golden_losses(run_folder: Path) -> None:
    """Six steps of the debug recipe in float32; a refactor leaves them as they are (relative tolerance 1e-3).

    To write them anew after a change that is meant: copy the losses of `mmcore train debug precision=fp32 log_every=1`.
    """
    train(short(steps=6), run_folder, workers=0)
    found = [{k: line[k] for k in ("step", "text", "flow")} for line in log_of(run_folder)]
    golden = json.loads(GOLDEN.read_text())
    assert len(found) == len(golden) == 6
    for a, b in zip(found, golden, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_resumed_equals_unbroken(run_folder: Path, tmp_path: Path) -> None:
    """Three steps, a new process's worth of fresh objects, three more: the same weights to the bit as six at once."""
    whole = tmp_path / "whole"
    whole.mkdir()
    TextTokenizer(run_folder / "tokenizer.model").save(whole)
    six = train(short(steps=6), whole, workers=0)
    calls: list[int] = []

    def interrupted(i: int) -> Document:
        return sample_document(i)

    class Stop(Exception):
        pass

    def stop(engine: Engine, _: Path) -> None:
        calls.append(engine.done)
        raise Stop

    with pytest.raises(Stop):
        train(short(steps=6, sample_every=4), run_folder, interrupted, workers=0, on_sample=stop)
    assert calls == [4], "one step was made after the checkpoint, and is lost"
    again = train(short(steps=6), run_folder, workers=0)
    for (name, a), b in zip(six.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(six.averaged.parameters(), again.averaged.parameters(), strict=True):
        assert torch.equal(a, b)
    assert log_of(whole)[-1]["text"] == log_of(run_folder)[-1]["text"]


def test_a_run_starts_from_another_runs_average(run_folder: Path, tmp_path: Path) -> None:
    """Weights and tokenizer are taken over before the first step; a run that is not there is one clear line."""
    first = train(short(steps=3), run_folder, workers=0)
    (tmp_path / "next").mkdir()
    second = train(short(steps=0, start=str(run_folder)), tmp_path / "next", workers=0)
    for a, b in zip(first.averaged.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "next" / "tokenizer.model").read_bytes() == (run_folder / "tokenizer.model").read_bytes()
    train(short(steps=2, start=str(run_folder)), tmp_path / "next", workers=0)
    assert [(stage.name, stage.steps) for stage in stages(tmp_path / "next")] == [("run", 3), ("next", 2)]
    with pytest.raises(MMCoreError, match="no checkpoint here"):
        stages(tmp_path)
    Pipeline(first.averaged, TextTokenizer(run_folder / "tokenizer.model")).save(tmp_path / "model")
    (tmp_path / "fourth").mkdir()
    fourth = train(short(steps=0, start=str(tmp_path / "model")), tmp_path / "fourth", workers=0)
    for a, b in zip(first.averaged.parameters(), fourth.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(MMCoreError, match=r"nowhere: cannot start from it"):
        train(short(steps=1, start="nowhere"), tmp_path / "third", workers=0)


def test_a_broken_checkpoint_is_one_clear_line(run_folder: Path) -> None:
    train(short(steps=3), run_folder, workers=0)
    weights = run_folder / "checkpoint" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(MMCoreError, match=r"checkpoint: cannot resume"):
        train(short(steps=6), run_folder, workers=0)


def gradient_clip(seed: int, frames: int) -> np.ndarray:
    """Soft colours that drift: (T, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(20, 235, (2, 2, 2, 3))
    t, y, x = np.meshgrid(np.linspace(0, 1, frames), np.linspace(0, 1, 32), np.linspace(0, 1, 32), indexing="ij")
    weights = [np.stack((1 - axis, axis), -1) for axis in (t, y, x)]
    return np.einsum("tyxa,tyxb,tyxc,abcd->tyxd", *weights, corners).round().astype(np.uint8)


def eight_documents() -> list[Document]:
    """Every way in and out: words, stills and clips, read and written, and both in one reply."""
    clips = [Video(gradient_clip(i, 8)) for i in range(6)]
    stills = [Image(gradient_clip(10 + i, 1)) for i in range(6)]

    def learn(segment: Segment) -> Segment:
        return replace(segment, learn=True)

    return [
        Document((Text("a red ball"), learn(stills[0]))),
        Document((Text("a blue cube bounces"), learn(clips[0]))),
        Document((stills[1], Text("what is this?"), Text("a small green cone at night", True))),
        Document((clips[1], Text("what is this?"), Text("a large pink ball grows", True))),
        Document((stills[2], Text("make it blue"), learn(stills[3]))),
        Document((clips[2], Text("make it bounce"), Text("here it is", True), learn(clips[3]))),
        Document((stills[4], Text("make it grow"), learn(clips[4]), Text("it grows", True))),
        Document((Text("hello"), Text("two", True), Text("and now?"), learn(stills[5]), learn(clips[5]))),
    ]


def test_eight_mixed_documents_are_learnt_by_heart(run_folder: Path) -> None:
    """Trained by the loop, written by the pipeline: text exactly, media above 30 dB."""
    documents = eight_documents()
    layout = Layout(2, (96, 80, 80), 16, last_context=1.0, hide_all=0.0, hide_text=0.0, hide_context=0.0)
    optimizer = Optimizer(muon=0.02, adam=4e-3, weight_decay=0.0, warmup=10, cooldown=250, ema=0.98)
    recipe = Recipe(
        "debug", steps=600, save_every=600, sample_every=0, log_every=100, layout=layout, optimizer=optimizer, seed=1
    )
    engine = train(recipe, run_folder, lambda i: documents[i % 8], workers=0)
    engine.averaged.config.height = engine.averaged.config.width_px = 32
    pipeline = Pipeline(engine.averaged, TextTokenizer(run_folder / "tokenizer.model"))
    requests, truths = [], []
    for document in documents:
        segments = document.segments
        begin = max(i for i in range(len(segments)) if not segments[i].learn) + 1
        requests.append(Request(Document(segments[:begin]), size=(8, 32, 32)))
        truths.append(segments[begin:])
    replies = pipeline.reply(requests, Settings(steps=20, guidance=Guidance(1.0)), progress=False)
    for reply, truth in zip(replies, truths, strict=True):
        assert [type(s) for s in reply.document] == [type(s) for s in truth]
        for made, true in zip(reply.document, truth, strict=True):
            if isinstance(true, Text):
                assert isinstance(made, Text) and made.text == true.text
            else:
                assert not isinstance(made, Text) and psnr(made.frames, true.frames) > 30  # type: ignore[union-attr]


@pytest.mark.quick
def test_muon_makes_updates_orthogonal() -> None:
    """Singular values come to lie in [0.6, 1.3]; stacked equals one at a time; tall and wide alike."""
    matrices = torch.randn(3, 24, 40)
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6 and values.max() < 1.3
    one = torch.cat([orthogonalize(m[None]) for m in matrices])
    torch.testing.assert_close(orthogonalize(matrices), one, atol=1e-5, rtol=0)
    torch.testing.assert_close(orthogonalize(matrices.mT), orthogonalize(matrices).mT, atol=1e-5, rtol=0)


@pytest.mark.quick
def test_muon_descends_and_decays() -> None:
    target, p = torch.randn(16, 8), torch.nn.Parameter(torch.zeros(16, 8))
    optimizer = Muon([p], lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(120):
        loss = (p - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.quick
def test_the_average_forgets_its_beginning_and_settles_on_its_decay() -> None:
    """Weights that jump from 0 to 1: after n steps little of the 0 is left; late on the decay is the one asked for."""
    averaged, current = [torch.zeros(3)], [torch.ones(3)]
    for n in range(1, 60):
        average(averaged, current, n, decay=0.999)
    assert averaged[0].min() > 0.99 and current[0].max() == 1
    late = [torch.zeros(3)]
    average(late, current, torch.tensor(10**6), decay=0.999)
    torch.testing.assert_close(late[0], torch.full((3,), 0.001), rtol=1e-3, atol=0)


@pytest.mark.quick
def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate(i, 100, 10, 20) for i in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[50] == rates[80] == 1.0
    assert rates[90] == 0.5 and 0 < rates[99] < 0.1


@pytest.mark.quick
def test_rows_are_filled_without_overflow_and_the_oldest_goes_first() -> None:
    rng = np.random.default_rng(0)
    drawn = {i: rng.integers(0, (60, 70, 70)) for i in range(10, 60)}
    lengths = {i: (int(t), int(c), int(x)) for i, (t, c, x) in drawn.items()}
    rows = fill_rows(lengths, 4, (112, 148, 148))
    used = [i for row in rows for i in row]
    assert len(set(used)) == len(used) and rows[0][0] == 10
    for row in rows:
        assert (np.sum([lengths[i] for i in row], 0) <= (112, 148, 148)).all()
    assert np.mean([np.sum([lengths[i] for i in row]) / 408 for row in rows]) > 0.8


@pytest.mark.quick
@given(st.lists(st.tuples(*[st.integers(0, 10)] * 3), min_size=1, max_size=6), st.tuples(*[st.integers(10, 25)] * 3))
def test_a_row_of_few_documents_is_the_fullest_there_is(
    lengths: list[tuple[int, int, int]], room: tuple[int, int, int]
) -> None:
    """Against all subsets that hold the oldest."""
    (row,) = fill_rows(dict(enumerate(lengths)), 1, room)
    subsets = (s for k in range(len(lengths)) for s in combinations(range(1, len(lengths)), k))
    sums = [np.sum([lengths[i] for i in (0, *s)], 0) for s in subsets]
    assert row[0] == 0 and (np.sum([lengths[i] for i in row], 0) <= room).all()
    assert sum(map(sum, (lengths[i] for i in row))) == max(total.sum() for total in sums if (total <= room).all())


def test_the_bundled_mixture_leaves_little_room_empty(root: Path) -> None:
    """Less than 5 % of the positions of twelve batches of the recipe `three`, in each lane."""
    recipe = load_recipe("three")
    source = recipe_source(recipe, MMCoreConfig())
    stream = PackedBatches(source, root / "mmcore" / "bundled" / "tokenizer.model", (4, 16, 16), recipe.layout)
    empty = torch.stack([batch.marks.doc == PADDING for batch, _ in islice(stream, 12)]).float().mean((0, 1))
    for lane, wasted in zip(("text", "context", "target"), empty.split(recipe.layout.room), strict=True):
        assert wasted.mean() < 0.05, lane


@pytest.mark.quick
def test_a_stream_resumes_where_it_was(run_folder: Path) -> None:
    def stream(state: DataState | None) -> PackedBatches:
        layout = Layout(rows=2, waiting=10)
        return PackedBatches(sample_document, run_folder / "tokenizer.model", (4, 16, 16), layout, state)

    batches = iter(stream(None))
    (_, state), (expected, after) = next(batches), next(batches)
    found, again = next(iter(stream(state)))
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.patches, expected.patches) and again == after


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stepz=3"], "unknown key 'stepz'; known are: preset"),
        (["layout.row=3"], "unknown key 'row'"),
        (["steps=many"], "steps must be int, got 'many'"),
        (["steps"], "key=value"),
        (["preset=huge"], "preset must be one of debug"),
        (["mixture=none"], "mixture must be one of reading, stills, all"),
        (["layout=3"], "'layout' is a table"),
        (["solids=5"], "solids must be 1, 2, 3 or 4, got 5"),
        (["begin=-1"], "begin must be 0 to 549755813887, got -1"),
        (["layout.copies=0"], "copies must be at least 1"),
    ],
)
def test_wrong_recipes(changes: list[str], message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        load_recipe("debug", changes)


@pytest.mark.quick
def test_recipes_are_read_and_changed(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["steps=7", "optimizer.adam=1", "layout.room=[8, 9, 10]"])
    assert (recipe.steps, recipe.optimizer.adam, recipe.layout.room) == (7, 1.0, (8, 9, 10))
    with pytest.raises(
        MMCoreError, match=r"no such recipe.*debug, everything, finetune, joint, .*, stills, three, tiny"
    ):
        load_recipe("none")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(MMCoreError, match=r"bad.toml: cannot read"):
        load_recipe(tmp_path / "bad.toml")


@pytest.mark.quick
def test_the_tiny_preset_is_within_its_bound() -> None:
    with torch.device("meta"):
        model = MMCoreModel(MMCoreConfig(**PRESETS["tiny"]))
    assert sum(p.numel() for p in model.parameters()) <= 25e6
