"""Files: what is written is read again, odd files are read right, bad files give one clear line."""

from __future__ import annotations

import io
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import pytest
from PIL import Image as PILImage

from mmcore.decoders.media import MOVING, STILL, check_writable, write_clip
from mmcore.document import Image, Video
from mmcore.errors import MMCoreError
from mmcore.tokenizers import media
from mmcore.tokenizers.media import fit, read_clip

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

pytestmark = pytest.mark.quick


def moving_square(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """A white square that goes right over a soft colour gradient."""
    y, x = np.mgrid[:height, :width]
    base = np.stack((60 + 100 * x / width, 80 + 60 * y / height, np.full(x.shape, 120)), -1)
    clip = np.repeat(base[None], frames, 0)
    for f in range(frames):
        clip[f, 16:32, 4 * f : 4 * f + 12] = 230
    return clip.astype(np.uint8)


def error(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("suffix", MOVING)
def test_a_clip_comes_back(suffix: str, tmp_path: Path) -> None:
    """Mean error below 2.5 of 255 (chroma has half the resolution); animated webp is exact."""
    clip = Video(moving_square(), 8.0)
    again = read_clip(clip.save(tmp_path / f"clip{suffix}"))
    assert error(again.frames, clip.frames) < (0.01 if suffix == ".webp" else 2.5)
    assert again.fps == pytest.approx(8.0, rel=0.05)
    assert [p.name for p in tmp_path.iterdir()] == [f"clip{suffix}"]


@pytest.mark.parametrize("suffix", [*STILL, ".mp4", ".gif", ".webp"])
def test_a_picture_comes_back(suffix: str, tmp_path: Path) -> None:
    image = Image(moving_square(1))
    again = read_clip(image.save(tmp_path / f"image{suffix}"))
    assert error(again.frames, image.frames) < (0.01 if suffix in (".png", ".webp") else 2.5)


@pytest.mark.parametrize("suffix", MOVING)
def test_the_same_clip_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    rng = np.random.default_rng(0)
    clip = Video(np.roll(rng.integers(0, 256, (1, 64, 64, 3), np.uint8).repeat(16, 0), 3, axis=1), 8)
    square = Video(moving_square(16, 64, 64), 8)
    for made in (clip, square):
        written = {write_clip(made, path).read_bytes() for _ in range(10)}
        assert len(written) == 1


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    path = Video(moving_square(5, 31, 45), 8.0).save(tmp_path / "odd.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (46, 32), "odd sides are made even"
        assert stream.average_rate == 8 and stream.frames == 5
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it starts before all of it is there"


def test_flat_colours_stay(tmp_path: Path) -> None:
    """A wrong matrix or range moves saturated colours by 10 and more."""
    for colour in ((215, 38, 38), (45, 80, 215), (45, 165, 60), (0, 0, 0), (255, 255, 255)):
        frames = np.full((3, 32, 32, 3), colour, np.uint8)
        again = read_clip(Video(frames).save(tmp_path / "flat.mp4"))
        assert np.abs(again.frames.astype(int) - frames).max() <= 4


def encode(path: Path, codec: str, pix_fmt: str, pts: list[int], rotation: int = 0, sound: bool = False) -> np.ndarray:
    frames = moving_square(len(pts))
    with av.open(str(path), "w") as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
        tone = cast("AudioStream", container.add_stream("aac", rate=16000)) if sound else None
        for frame, at in zip(frames, pts, strict=True):
            made = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=pix_fmt)
            made.pts, made.time_base = at, Fraction(1, 10)
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
        if tone is not None:
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            wave.sample_rate, wave.pts = 16000, 0
            container.mux(tone.encode(wave))
            container.mux(tone.encode(None))
    return frames


def test_sound_and_ten_bits_are_no_hindrance(tmp_path: Path) -> None:
    frames = encode(tmp_path / "a.mp4", "libx264", "yuv420p10le", list(range(8)), sound=True)
    assert error(read_clip(tmp_path / "a.mp4").frames, frames) < 3


def test_a_varying_frame_rate_becomes_constant(tmp_path: Path) -> None:
    """Frames at 0, 1, 2, 6, 7, 8 tenths: the third stays on the screen for four tenths."""
    frames = encode(tmp_path / "v.mp4", "libx264", "yuv420p", [0, 1, 2, 6, 7, 8])
    clip = read_clip(tmp_path / "v.mp4")
    assert len(clip.frames) == 6 and clip.fps == pytest.approx(6 / 0.9, rel=0.02)
    shown = [int(np.abs(frames.astype(int) - f).mean((1, 2, 3)).argmin()) for f in clip.frames]
    assert shown == [0, 2, 2, 2, 3, 5]


def test_pictures_of_all_kinds(tmp_path: Path) -> None:
    rgb = moving_square(1)[0]
    PILImage.fromarray(rgb[..., 0]).save(tmp_path / "gray.png")
    gray = read_clip(tmp_path / "gray.png").frames[0]
    assert error(gray, rgb[..., :1].repeat(3, -1)) < 0.01
    alpha = np.zeros((48, 64, 1), np.uint8)
    alpha[:24] = 255
    PILImage.fromarray(np.concatenate((rgb, alpha), -1)).save(tmp_path / "alpha.png")
    over = read_clip(tmp_path / "alpha.png").frames[0]
    assert error(over[:24], rgb[:24]) < 0.01 and (over[24:] == 255).all(), "transparency lies over white"
    PILImage.fromarray(rgb).quantize(256).save(tmp_path / "palette.gif")
    assert error(read_clip(tmp_path / "palette.gif").frames[0], rgb) < 3
    PILImage.fromarray((np.arange(48 * 64).reshape(48, 64) * 20).astype(np.uint16)).save(tmp_path / "deep.png")
    deep = read_clip(tmp_path / "deep.png").frames[0]
    assert abs(int(deep[-1, -1, 0]) - 239) <= 1


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    rgb = moving_square(1)[0]
    exif = PILImage.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    PILImage.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert error(read_clip(tmp_path / "turned.jpg").frames[0], np.rot90(rgb, -1)) < 4


def test_the_first_frames_are_enough_if_asked(tmp_path: Path) -> None:
    path = Video(moving_square(9)).save(tmp_path / "clip.mp4")
    assert len(read_clip(path, max_frames=2).frames) == 2
    assert len(Image.open(path).frames) == 1


def bad_files(folder: Path) -> dict[str, Path]:
    clip = Video(moving_square(12)).save(folder / "whole.mp4")
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:700])
    (folder / "empty.mp4").touch()
    (folder / "text.png").write_text("these are words\n" * 40)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    picture = Image(moving_square(1)).save(folder / "whole.png")
    (folder / "cut.png").write_bytes(picture.read_bytes()[:200])
    with zipfile.ZipFile(folder / "zip.mov", "w") as archive:
        archive.writestr("a", "b")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        tone = container.add_stream("aac", rate=16000)
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        wave.sample_rate = 16000
        container.mux(tone.encode(wave))
        container.mux(tone.encode(None))
    with av.open(str(folder / "none.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(None))
    names = ("cut.mp4", "empty.mp4", "text.png", "noise.mp4", "cut.png", "zip.mov", "sound.mp4", "none.mp4")
    return {name: folder / name for name in (*names, "missing.mp4")} | {"a folder": folder}


def test_bad_files_give_one_clear_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, path in bad_files(tmp_path).items():
        with pytest.raises(MMCoreError) as raised:
            read_clip(path)
        message = str(raised.value)
        assert path.name in message and "\n" not in message, name
    assert capfd.readouterr().err == "", "FFmpeg keeps quiet"


def test_long_and_large_files_are_refused_before_they_are_read(tmp_path: Path, monkeypatch) -> None:
    path = Video(moving_square(12)).save(tmp_path / "clip.mp4")
    monkeypatch.setattr(media, "MAX_FRAMES", 6)
    with pytest.raises(MMCoreError, match=r"clip.mp4: is 2 s long, 12 frames; at most 6 are read"):
        read_clip(path)
    monkeypatch.setattr(media, "MAX_FRAMES", 11)
    with pytest.raises(MMCoreError, match="too long or too large"):
        read_clip(path)
    monkeypatch.setattr(media, "MAX_PIXELS", 1000)
    with pytest.raises(MMCoreError, match="64x48 pixels are too many"):
        read_clip(path, max_frames=1)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    image, clip = Image(moving_square(1)), Video(moving_square(2))
    with pytest.raises(MMCoreError, match=r"unknown format '.xyz'.*\.mp4"):
        write_clip(clip, tmp_path / "a.xyz")
    with pytest.raises(MMCoreError, match="there is no folder"):
        check_writable(tmp_path / "nowhere" / "a.mp4")
    with pytest.raises(MMCoreError, match="holds one frame, not 2"):
        write_clip(clip, tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MMCoreError, match="is a folder"):
        write_clip(image, tmp_path / "folder.png")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = Image(moving_square(1)).save(tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        (tmp_path / ".a.part.png").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmcore.decoders.media._write_pillow", fail)
    with pytest.raises(MMCoreError, match="No space left"):
        Image(moving_square(1)).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_fitting() -> None:
    clip = Video(moving_square(12), 8.0)
    assert fit(clip, (48, 64), 8.0, 100) is clip
    half = fit(clip, (48, 64), 4.0, 100)
    assert len(half.frames) == 6 and half.fps == 4.0 and isinstance(half, Video)
    assert [int((f[20, :, 0] == 230).argmax()) // 4 for f in half.frames] == [1, 3, 5, 7, 9, 11]
    square = fit(clip, (24, 24), 8.0, 5)
    assert square.size == (5, 24, 24)
    middle = np.asarray(PILImage.fromarray(clip.frames[0][:, 8:56]).resize((24, 24), PILImage.Resampling.LANCZOS))
    assert error(square.frames[0], middle) < 1.5
    image = fit(Image(moving_square(1)), (48, 48), 8.0, 5)
    assert isinstance(image, Image)


def test_bytes_of_a_gif_hold_its_durations(tmp_path: Path) -> None:
    path = Video(moving_square(6), 8.0).save(tmp_path / "a.gif")
    with PILImage.open(io.BytesIO(path.read_bytes())) as gif:
        assert gif.info["duration"] in (120, 130) and gif.info["loop"] == 0
