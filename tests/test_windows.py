"""Long clips, written and read window by window: what was asked for stays, and nothing grows with the length."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mmcore
from mmcore.backbone import Native
from mmcore.cache import Cache
from mmcore.cli import main
from mmcore.decoders.media import write_windows
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.generate import make_settings
from mmcore.loading import load
from mmcore.pipeline import GO_ON, Pipeline
from mmcore.replies import Request
from mmcore.tokenizers import media
from mmcore.tokenizers.media import read_clip, read_windows
from mmcore.training.world.readout import read_scene
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick


def test_each_window_goes_on_from_the_last_and_from_what_was_asked(pipeline: Pipeline) -> None:
    """Every window follows what was asked, what was said first, the window before, and that again; the last is cut."""
    asked, settings = Text("a red ball"), make_settings({"steps": 2, "tokens": 3})
    windows = list(pipeline.film(asked, frames=10, window=4, seed=3, steps=2, tokens=3))
    assert [w.size[0] for w in windows] == [4, 4, 2]
    first = pipeline.reply([Request(Document((asked,)), "video", (4, None, None), 3)], settings)[0]
    assert first.text and np.array_equal(windows[0].frames, first.media[0].frames)
    for k in (1, 2):
        said = Text(first.text, True)
        before = Document((asked, said, windows[k - 1], Text(GO_ON), said))
        alone = pipeline.reply([Request(before, "video", (4, None, None), 3 + 4 * k)], settings)[0].media[0]
        assert np.array_equal(windows[k].frames, alone.frames[: len(windows[k].frames)])


def test_what_was_asked_for_stays() -> None:
    """With the bundled model: the ruler finds it in the 104th frame."""
    asked = "a large blue cube spins, under a blue sky"
    *_, last = load().film(asked, frames=104, window=8, seed=3, steps=5)
    scene = read_scene(last.frames[-1:]).scene
    assert [(s.size, s.name) for s in scene.solids] == [("large", "blue cube")] and scene.backdrop == "blue sky"


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


def steps(count: int) -> Iterator[Video]:
    """A clip of 16 x 16 at 10 fps, in parts: its gray changes every 30 frames."""
    for i in range(0, count, 30):
        yield Video(np.full((30, 16, 16, 3), 30 * (i // 30 % 8), np.uint8), 10.0)


@pytest.mark.parametrize("count", [300, 3000])
def test_a_long_clip_is_read_in_flat_memory(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, in order; never are more frames alive than one window and two, whatever the length."""
    path, alive, most, upright = write_windows(steps(count), tmp_path / "long.mp4"), 0, 0, media._upright

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def watched(frame: np.ndarray, rotation: int) -> np.ndarray:
        nonlocal alive, most
        made = upright(frame, rotation).copy()
        weakref.finalize(made, gone)
        alive += 1
        most = max(most, alive)
        return made

    monkeypatch.setattr(media, "_upright", watched)
    read, grays = 0, list[int]()
    for begin, clip in read_windows(path, 2.0):
        assert begin == pytest.approx(read / 10) and clip.size == (20, 16, 16) and clip.fps == 10
        read += len(clip.frames)
        grays += clip.frames.mean((1, 2, 3)).round().astype(int).tolist()
        assert alive <= 2
    assert read == count and most <= 22
    expected = np.concatenate([part.frames[:, 0, 0, 0] for part in steps(count)])
    assert np.abs(np.array(grays) - expected).max() <= 4


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_windows_together_are_the_clip(suffix: str, tmp_path: Path) -> None:
    """The last one is shorter; a picture is one window."""
    if suffix == ".png":
        path, sizes = Image(noise_clip(0, 1, 32)).save(tmp_path / "a.png"), [1]
    else:
        path, sizes = Video(noise_clip(0, 11, 32), 8.0).save(tmp_path / f"a{suffix}"), [4, 4, 3]
    whole, parts = read_clip(path), [clip for _, clip in read_windows(path, 0.5)]
    assert [len(part.frames) for part in parts] == sizes
    assert np.array_equal(np.concatenate([part.frames for part in parts]), whole.frames)
    assert isinstance(parts[0], Image) == (suffix == ".png")


def test_windows_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Video(noise_clip(0, 8, 16), 8.0).save(tmp_path / "a.mp4")
    with pytest.raises(MMCoreError, match="longer than 0 s, got 0"):
        next(read_windows(path, 0))
    with pytest.raises(MMCoreError, match="no such file"):
        next(read_windows(tmp_path / "b.mp4", 1))
    monkeypatch.setattr(media, "MAX_PIXELS", 4 * 16 * 16)
    assert len(list(read_windows(path, 0.5))) == 2
    with pytest.raises(MMCoreError, match=r"a.mp4: 1 s of it are too large .* take shorter windows"):
        list(read_windows(path, 1))


def test_each_window_is_told_by_itself(pipeline: Pipeline, tmp_path: Path) -> None:
    path = Video(noise_clip(0, 10, 8), 8.0).save(tmp_path / "a.mp4")
    told = list(pipeline.captions(path, 0.5, tokens=6))
    assert [(seen.begin, len(seen.clip.frames)) for seen in told] == [(0.0, 4), (0.5, 4), (1.0, 2)]
    assert [seen.text for seen in told] == [pipeline.caption(seen.clip, tokens=6) for seen in told]


def test_the_command_reads_long_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Video(noise_clip(0, 24, 64), 8.0).save(tmp_path / "a.mp4")
    assert main(["caption", str(path), "--every", "1", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [seen["begin"] for seen in told] == [0, 1, 2] and all(seen["text"] for seen in told)
