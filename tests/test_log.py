"""What a run says of itself: its figures against known ones, its log after any end, its curves where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.packing import PackedSequence
from mmcore.training import log, meter
from mmcore.training.curves import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Curve, Panel, draw, labels
from mmcore.training.data import Layout, PackedBatches
from mmcore.training.flops import Load, forward_flops
from mmcore.training.gpus import GPUS, known_gpu
from mmcore.training.log import Log, read_log
from mmcore.training.meter import Meter, packed_work
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import load_recipe
from mmcore.training.world.tasks import sample_document

pytestmark = pytest.mark.quick


@pytest.fixture
def batch(root: Path) -> PackedSequence:
    tokenizer = root / "mmcore" / "bundled" / "tokenizer.model"
    return next(iter(PackedBatches(sample_document, tokenizer, (4, 16, 16), Layout(2, waiting=6))))[0]


class TwoAlike(Ranks):
    """As if another rank did just the same."""

    def sum(self, *values: float) -> tuple[float, ...]:
        return tuple(2 * value for value in values)


@pytest.mark.parametrize("ranks", [Ranks(), TwoAlike(0, 2)], ids=["one", "two"])
def test_figures_of_steps_whose_times_are_known(
    ranks: Ranks, batch: PackedSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second of waiting and three of work, twice; two ranks that do the same do twice as much in that time."""
    clock = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock[0])
    config = MMCoreConfig(vocab_size=1024, **PRESETS["debug"])
    measured = Meter(partial(packed_work, config), load_recipe("debug"), ranks, samples=100, tokens=1000)

    def slow() -> Iterator[PackedSequence]:
        for _ in range(2):
            clock[0] += 1
            yield batch

    for number, made in enumerate(measured.timed(slow())):
        clock[0] += 3
        measured.add([made], {"text": float(number)} if number else None)
        clock[0] += 50  # a checkpoint, say
    tokens = sum(int((batch.marks.doc[:, i] >= 0).sum()) for i in range(batch.marks.doc.shape[1]))
    documents = sum(len(set(row.tolist()) - {-1}) for row in batch.marks.doc)
    flops = 3 * forward_flops(config, Load.of(batch))
    measured.peak = 1e12
    line = measured.line()
    world = ranks.world
    assert line["samples"] == 100 + 2 * world * documents and line["tokens"] == 1000 + 2 * world * tokens
    assert line["tokens_per_s"] == pytest.approx(world * tokens / 4)
    assert line["tflops"] == pytest.approx(world * flops / 4 / 1e12)
    assert line["mfu"] == pytest.approx(flops / 4 / 1e12)
    assert line["data_wait"] == pytest.approx(0.25)
    assert line["padding"] == pytest.approx(1 - tokens / batch.marks.doc.numel()) and 0 < line["padding"] < 1
    assert line["samples_per_s"] == pytest.approx(2 * world * documents / 108)
    assert (line["text"], line["skipped"]) == (1.0, 1)
    assert 50 < line["memory_mb"] < 50_000
    assert measured.work == meter.Work(), "the next line begins anew"


def test_on_a_processor_there_is_no_peak_to_compare_with() -> None:
    if not torch.cuda.is_available():
        assert Meter(partial(packed_work, MMCoreConfig()), load_recipe("debug"), Ranks()).peak is None


def test_gpus_are_known_by_what_their_driver_calls_them() -> None:
    names = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100", "NVIDIA GeForce RTX 4090": "rtx4090"}
    assert {name: known_gpu(name) for name in names} == {name: GPUS[kind] for name, kind in names.items()}
    assert known_gpu("NVIDIA H100 PCIe") is known_gpu("NVIDIA H200 NVL") is known_gpu("Radeon") is None


def test_a_log_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    """Lines of later steps, and half a line that a killed run left, are forgotten."""
    first = Log(tmp_path, 0)
    for step in (10, 20, 30):
        first.write(step, {"text": step / 7})
    first.close()
    with (tmp_path / log.LOG_FILE).open("a") as file:
        file.write('{"step": 40, "te')
    assert [line["step"] for line in read_log(tmp_path)] == [10, 20, 30]
    second = Log(tmp_path, 20)
    second.write(25, {"text": 3.123456})
    second.close()
    lines = [json.loads(line) for line in (tmp_path / log.LOG_FILE).read_text().splitlines()]
    assert lines == [{"step": 10, "text": 1.42857}, {"step": 20, "text": 2.85714}, {"step": 25, "text": 3.12346}]


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, steps in ((0, (1, 2, 3)), (1, (2, 3))):
        written = Log(tmp_path, done)
        for step in steps:
            written.write(step, {"text": step + done / 2})
        written.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("text")] == [(1, 1.0), (2, 2.5), (3, 3.5)]


def test_without_tensorboard_nothing_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "find_spec", lambda _: None)
    written = Log(tmp_path, 0)
    written.write(1, {"text": 2.0})
    written.draw()
    written.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]


def places(picture: np.ndarray, colour: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a colour below the title."""
    rgb = [int(COLOURS[colour][i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero((picture == rgb).all(-1))
    inside = rows >= TOP - 3
    return rows[inside], columns[inside]


def test_curves_lie_where_their_points_are() -> None:
    """Linear and logarithmic axes; what is not finite, or has no place on the axis, is left out."""
    line = [(0.0, 1.0), (50.0, 10.0), (60.0, float("nan")), (100.0, 100.0)]
    dots = [(25.0, 100.0), (75.0, 0.0)]
    panel = Panel("loss", [Curve("a", line), Curve("b", dots, dots=True, colour=1)], log_y=True)
    picture = np.asarray(draw([panel, Panel("nothing", [Curve("", [])])]))
    assert picture.shape == (HEIGHT, WIDTH, 3), "a panel without points takes no room"
    rows, columns = places(picture, 0)
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    for x, y in ((left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, top)):
        assert np.hypot(columns - x, rows - y).min() < 2.5
    straight = (columns - left) / (right - left) + (rows - top) / (bottom - top)
    assert abs(straight - 1).max() < 0.02, "straight on a logarithmic axis"
    rows, columns = places(picture, 1)
    assert abs(columns.mean() - (left + (right - left) / 4)) < 1 and abs(rows.mean() - top) < 1 and np.ptp(columns) <= 7


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_ticks_are_few_round_and_on_the_axis(low: float, more: float, log_axis: bool) -> None:
    axis = Axis.over([low, low + more * low], 0, 100, log_axis)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 20 and ticks == sorted(ticks)
    assert all(-1e-6 <= axis(tick) <= 100 + 1e-6 for tick in ticks)
    assert len(set(labels(ticks))) == len(ticks)


def test_labels_are_short() -> None:
    assert labels([0, 0.05, 300, 2000, 1.5e6, 1e-7]) == ["0", "0.05", "300", "2k", "1.5M", "1e-07"]
    assert labels([2990, 2991]) == ["2.99k", "2.991k"], "or one would stand there twice"
