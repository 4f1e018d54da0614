"""Batches that are drawn by the device that learns from them hold what batches of drawn documents hold."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document
from mmcore.packing import PackedSequence
from mmcore.training.data import DataState, Layout, PackedBatches, Turns
from mmcore.training.recipe import load_recipe
from mmcore.training.subjects import draws_itself
from mmcore.training.undrawn import UndrawnBatches, UndrawnSequence, steps_of
from mmcore.training.world.shown import Line
from mmcore.training.world.tasks import sample_document, sample_lines

TOKENIZER = Path(__file__).parents[1] / "mmcore" / "bundled" / "tokenizer.model"
LAYOUT = Layout(rows=1, room=(200, 150, 300), copies=2, waiting=6)
TASKS = ("other image", "image edit", "small talk", "other video", "text to video", "image to video", "text to shots")
"""Media that come as pixels and media that are yet to be drawn, and words alone."""


def drawn(index: int) -> Document:
    return sample_document(index, TASKS[index % len(TASKS)])


def undrawn(index: int) -> tuple[Line, ...]:
    return sample_lines(index, TASKS[index % len(TASKS)])[0]


def stream(state: DataState | None = None) -> UndrawnBatches:
    return UndrawnBatches(undrawn, TOKENIZER, (4, 16, 16), LAYOUT, state)


@pytest.fixture(scope="module")
def batches() -> list[UndrawnSequence]:
    found = [seq for seq, _ in islice(stream(), 4)]
    assert all(isinstance(seq, UndrawnSequence) for seq in found)
    assert any(len(seq.pixels) for seq in found) and all(len(seq.sheet) for seq in found)  # type: ignore[attr-defined]
    return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def true() -> list[PackedSequence]:
    return [seq.to("cpu") for seq, _ in islice(PackedBatches(drawn, TOKENIZER, (4, 16, 16), LAYOUT), 4)]


def equal_but_for_drawing(a: PackedSequence, b: PackedSequence) -> None:
    """All tensors are the same; pixels but for rounding, and for the codec's."""
    for name in (f.name for f in fields(PackedSequence)):
        one, other = getattr(a, name), getattr(b, name)
        if name != "patches" and isinstance(one, Tensor):
            assert torch.equal(one, other), name
    assert all(torch.equal(getattr(a.marks, f.name), getattr(b.marks, f.name)) for f in fields(a.marks))
    far = (a.patches - b.patches).abs() * 127.5
    assert a.patches.shape == b.patches.shape and float(far.mean()) < 0.1 and float((far > 3).float().mean()) < 0.01


def test_what_is_drawn_on_arrival_is_what_documents_show(
    batches: list[UndrawnSequence], true: list[PackedSequence]
) -> None:
    for seq, other in zip(batches, true, strict=True):
        arrived = seq.to("cpu")
        assert type(arrived) is PackedSequence and arrived.patches.dtype == torch.float32
        equal_but_for_drawing(arrived, other)


def test_several_are_drawn_as_one(batches: list[UndrawnSequence], true: list[PackedSequence]) -> None:
    equal_but_for_drawing(batches[0].above(*batches[1:]).to("cpu"), true[0].above(*true[1:]))


def test_a_batch_is_the_same_after_a_way_between_processes(batches: list[UndrawnSequence]) -> None:
    """It travels as arrays, by value, and is much less than its pixels."""
    sent = pickle.dumps(batches[0])
    come = pickle.loads(sent)
    assert isinstance(come, UndrawnSequence) and come.lengths == batches[0].lengths and come.size == (16, 16)
    for name in (f.name for f in fields(UndrawnSequence)):
        if isinstance(tensor := getattr(batches[0], name), Tensor):
            assert torch.equal(getattr(come, name), tensor), name
    assert torch.equal(come.marks.span, batches[0].marks.span)
    drawn_alone = next(seq for seq in batches if not len(seq.pixels))
    assert len(pickle.dumps(drawn_alone)) < drawn_alone.to("cpu").patches.numel() / 4


def test_each_medium_is_drawn_once(batches: list[UndrawnSequence]) -> None:
    """Copies of a target, and its clean one, are of the same patches; no patch is drawn for nobody."""
    for seq in batches:
        places = seq.patches[seq.is_patch]
        assert set(places[places > 0].tolist()) == set(range(1, 1 + len(seq.steps) * seq.planes))
        assert set((-places[places < 0]).tolist()) == set(range(1, 1 + len(seq.pixels)))
        assert len(places) > len(places.unique()) and not seq.patches[~seq.is_patch].any()


def test_a_stream_goes_on_where_it_was(batches: list[UndrawnSequence]) -> None:
    (_, state), *_ = islice(stream(), 1)
    for seq, (again, _) in zip(batches[1:], stream(state), strict=False):
        assert isinstance(again, UndrawnSequence)
        assert torch.equal(seq.sheet, again.sheet) and torch.equal(seq.patches, again.patches)


def test_other_processes_make_the_same(batches: list[UndrawnSequence]) -> None:
    (turn,) = islice(Turns([stream()]).loader(1), 1)
    assert torch.equal(turn[0][0].sheet, batches[0].sheet) and torch.equal(turn[0][0].marks.doc, batches[0].marks.doc)


def test_the_last_frame_fills_the_last_step() -> None:
    assert steps_of(1, 4).tolist() == [[0, 0, 0, 0]]
    assert steps_of(6, 4).tolist() == [[0, 1, 2, 3], [4, 5, 5, 5]]


def test_a_gpu_draws_what_it_learns_from_where_it_can() -> None:
    recipe, config, gpu = load_recipe("debug"), MMCoreConfig(**PRESETS["debug"]), torch.device("cuda")
    assert draws_itself(recipe, config, gpu) and not draws_itself(recipe, config, torch.device("cpu"))
    assert not draws_itself(replace(recipe, data={"photos": 1.0}), config, gpu)
    assert not draws_itself(recipe, MMCoreConfig(**PRESETS["1b-480p"]), gpu)
