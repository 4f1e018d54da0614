"""Long clips, window by window: each goes on from the last and from what was asked; nothing grows with the length."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

import mmcore
from mmcore.backbone import Native
from mmcore.cache import Cache
from mmcore.cli import main
from mmcore.decoders.media import write_windows
from mmcore.document import Document, Text, Video
from mmcore.errors import MMCoreError
from mmcore.loading import load
from mmcore.pipeline import GO_ON, Pipeline, make_settings
from mmcore.replies import Request
from mmcore.training.world.readout import read_scene
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick


def test_each_window_goes_on_from_the_last_and_from_what_was_asked(pipeline: Pipeline) -> None:
    """Every window is the reply to what was asked, what was said first and the window before; the last is cut."""
    asked, settings = Text("a red ball"), make_settings({"steps": 2, "tokens": 3})
    windows = list(pipeline.film(asked, frames=10, window=4, seed=3, steps=2, tokens=3))
    assert [w.size[0] for w in windows] == [4, 4, 2]
    first = pipeline.reply([Request(Document((asked,)), "video", (4, None, None), 3)], settings)[0]
    assert first.text and np.array_equal(windows[0].frames, first.media[0].frames)
    for k in (1, 2):
        before = Document((asked, Text(first.text, True), windows[k - 1], Text(GO_ON)))
        alone = pipeline.reply([Request(before, "video", (4, None, None), 3 + 4 * k)], settings)[0].media[0]
        assert np.array_equal(windows[k].frames, alone.frames[: len(windows[k].frames)])


def test_what_was_asked_for_stays() -> None:
    """With the bundled model: the ruler finds it in the 104th frame, where "go on" alone had led to green cubes."""
    asked = "a large yellow cylinder stands still, at night"
    *_, last = load().film(asked, frames=104, window=8, seed=3, steps=5)
    scene = read_scene(last.frames[-1:]).scene
    assert [(s.size, s.name) for s in scene.solids] == [("large", "yellow cylinder")] and scene.backdrop == "night"


def test_memory_does_not_follow_the_length(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache lives at a time, of the same size in every window from the second on."""
    caches: list[weakref.ref[Cache]] = []
    sizes: list[int] = []
    read = Native.read

    def watched(self: Native, prompts):  # type: ignore[no-untyped-def]
        gc.collect()
        assert sum(ref() is not None for ref in caches) == 0, "an earlier window's cache is still held"
        past, logits = read(self, prompts)
        caches.append(weakref.ref(past.cache))  # type: ignore[attr-defined]
        sizes.append(past.cache.bytes)  # type: ignore[attr-defined]
        return past, logits

    monkeypatch.setattr(Native, "read", watched)
    for window in pipeline.film("a red ball", frames=24, window=4, steps=1, tokens=0):
        assert window.size[0] == 4
    assert len(sizes) == 6 and len(set(sizes[1:])) == 1


def test_windows_are_written_as_they_come(tmp_path: Path) -> None:
    """One file, the same as of the whole clip; and nothing of it if a window fails."""
    whole = Video(noise_clip(0, 12, 31), 8.0)
    parts = [Video(whole.frames[i : i + 5], 8.0) for i in range(0, 12, 5)]
    for suffix in (".mp4", ".gif"):
        write_windows(parts, tmp_path / f"parts{suffix}")
        whole.save(tmp_path / f"whole{suffix}")
        assert (tmp_path / f"parts{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()

    def failing():  # type: ignore[no-untyped-def]
        yield parts[0]
        raise MMCoreError("no room")

    with pytest.raises(MMCoreError, match="no room"):
        write_windows(failing(), tmp_path / "broken.mp4")
    assert not list(tmp_path.glob("*broken*")) and not list(tmp_path.glob(".*"))


def test_the_command_films_long_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "long.mp4"
    asked = ["generate", "a red ball slides to the left", "--steps", "1", "--frames", "20", "--window", "8"]
    assert main([*asked, "-o", str(out)]) == 0
    assert mmcore.Video.open(out).size == (20, 64, 64)
    capsys.readouterr()
    assert main([*asked, "-o", str(tmp_path / "long.png")]) == 2
    assert "--window N wants" in capsys.readouterr().err
