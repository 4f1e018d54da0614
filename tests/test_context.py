"""Long contexts: what they cost each kind of core, by formula and as counted, and what a clip showed long ago."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcore.cache import Cache
from mmcore.chains import CHUNK
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel, flow_losses
from mmcore.packing import PackedSequence, pack
from mmcore.sequence import IGNORE, VIDEO_END, Strip
from mmcore.training import bench_context, needle
from mmcore.training.bench_context import costs, panels
from mmcore.training.curves import draw
from mmcore.training.flops import Load, forward_flops
from mmcore.training.plan import activation_bytes, saved_bytes
from mmcore.training.recipe import load_recipe
from mmcore.training.subjects import shape
from tests.conftest import lively  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


@pytest.fixture
def words() -> PackedSequence:
    """Two rows of words, each some full chunks."""
    rows = []
    for row in range(2):
        strip = Strip()
        strip.text(range(9 + row, 9 + row + 2 * CHUNK), range(10 + row, 10 + row + 2 * CHUNK))
        rows.append([strip])
    return pack(rows, 12)


def core(linear: int) -> MMCoreModel:
    config = {**PRESETS["debug"], "depth": 4, "linear": linear, "patch": (1, 2, 2), "floors": ()}
    return lively(MMCoreModel(MMCoreConfig(**config)))


@pytest.mark.parametrize("linear", [3, 4])
def test_a_plan_is_what_a_step_takes(linear: int, words: PackedSequence) -> None:
    """Arithmetic forwards to a thousandth; what linear blocks keep for the way back, beside full ones, within 3 %."""
    load = Load.of(words)
    planned, measured = [], []
    for blocks in (0, linear):
        model, kept = core(blocks), []
        model.backend = "dense"
        with FlopCounterMode(display=False) as counter:
            losses = partial(flow_losses, model, words, torch.Generator().manual_seed(0))
            measured.append(saved_bytes(lambda kept=kept, run=losses: kept.append(run()), model.parameters()))
        assert counter.get_total_flops() == pytest.approx(forward_flops(model.config, load), rel=1e-3)
        planned.append(activation_bytes(model.config, load, False, "dense", False))
    assert planned[1] - planned[0] == pytest.approx(measured[1] - measured[0], rel=0.03)


def test_a_recipe_can_ask_for_it() -> None:
    assert shape(load_recipe("debug", ["linear=3"])).linear == 3
    with pytest.raises(MMCoreError, match="linear must be 0 to 4"):
        load_recipe("debug", ["linear=5"])
    with pytest.raises(MMCoreError, match="0 where the shape"):
        load_recipe("debug", ["linear=3", "preset=start", "start=somewhere"])


def test_what_a_long_past_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear blocks take and keep the same behind 256 and 1024 positions; the hybrid's one full block of four takes and
    keeps a quarter of what four do."""
    monkeypatch.setattr(bench_context, "TRIES", 1)
    lengths = (256, 1024)
    found = costs({**PRESETS["debug"], "depth": 4, "patch": (1, 2, 2), "floors": ()}, lengths)
    more = {name: (long.work - short.work, long.memory - short.memory) for name, (short, long) in found.items()}
    assert more["linear"] == (0, 0)
    assert more["full"] == pytest.approx((4 * 4 * 768 * 64, 4 * 2 * 4 * 768 * 64))
    assert more["hybrid"] == pytest.approx(tuple(grown / 4 for grown in more["full"]))
    assert draw(panels(found, lengths), columns=3).size[0] > 1000
    assert all(cost.seconds > 0 for line in found.values() for cost in line)


def test_a_lesson_shows_its_facts_first_and_asks_for_them() -> None:
    """Each colour that is to be told stands, with its glyph, in one patch of the first window and nowhere else."""
    config = needle.small_config(0)
    seq = needle.lesson(config, [3, 4], 3)
    code = torch.randn(2, needle.GLYPHS, config.patch_width // 2, generator=torch.Generator().manual_seed(0)).sign()
    for row in range(2):
        asked = (seq.labels[row] != IGNORE).nonzero()[:, 0]
        assert len(asked) == needle.GLYPHS
        for at in asked.tolist():
            glyph, colour = seq.ids[row, at] - VIDEO_END - 1, seq.labels[row, at] - VIDEO_END - 1 - needle.GLYPHS
            assert seq.ids[row, at + 1] == seq.labels[row, at]
            found = (seq.patches[row] == torch.cat((code[0, glyph], code[1, colour]))).all(-1).nonzero()[:, 0]
            assert len(found) == 1 and found < needle.WINDOW - 2


@pytest.mark.parametrize("name", list(needle.CORES))
@torch.no_grad()
def test_asking_behind_a_cache_is_asking_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers within 1e-4, twice, since questions are not kept."""
    model, seen = lively(MMCoreModel(needle.small_config(needle.CORES[name]))), []
    whole = [needle.answers(model, needle.lesson(model.config, [-1, -2], windows))[0] for windows in (4, 8)]
    told = needle.answers

    def recorded(model: MMCoreModel, seq: PackedSequence, cache: Cache | None = None):
        seen.append(told(model, seq, cache)[0])
        return told(model, seq, cache)

    monkeypatch.setattr(needle, "answers", recorded)
    needle.recall(model, 2, (300, 300, 600))
    for cached, at_once in zip(seen, (whole[0], *whole), strict=True):
        torch.testing.assert_close(cached, at_once, atol=1e-4, rtol=0)


def test_a_core_learns_from_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which tokens are colours, at the least, within some steps, from clips of every number of windows."""
    made, windows = needle.lesson, []

    def recorded(config: MMCoreConfig, seeds: Sequence[int], count: int) -> PackedSequence:
        windows.append(count)
        return made(config, seeds, count)

    monkeypatch.setattr(needle, "POSITIONS", 400)
    monkeypatch.setattr(needle, "TRAINED", 3)
    monkeypatch.setattr(needle, "lesson", recorded)
    losses = list(needle.learn(MMCoreModel(needle.small_config(3)), 20))
    assert losses[-1] < losses[0] - 0.3
    assert windows[0] == 1 and set(windows) == {1, 2, 3}
