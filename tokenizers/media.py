"""Media files to clips, and clips to the size and frame rate that a model sees.

    clip = read_clip(Path("clip.mp4"))            # (T, H, W, 3) uint8, upright, at a constant frame rate
    clip = fit(clip, (64, 64), fps=8, max_frames=256)
    for begin, clip in read_windows(Path("film.mp4"), every=2.0): ...      # of any length, two seconds at a time

PyAV (FFmpeg) reads everything but webp, whose animations it cannot decode: Pillow reads that. It is imported where a
file is opened, so that training on the world does without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps, ImageSequence, UnidentifiedImageError

from mmcore.document import Clip, Image, Video
from mmcore.errors import MMCoreError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

MEDIA_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".webp")
    + (".png", ".apng", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm")
)
"""Names that end so are taken for media files where words could stand too."""

MAX_FRAMES = 1200
"""Longer clips are not read at once."""

MAX_PIXELS = 2**28
"""Pixels of all frames together: 768 MiB as RGB."""

TOO_LONG = "read it in windows, as mmcore caption --every 2 does, or cut it first: ffmpeg -i IN -t 10 OUT"
"""What to do about it."""

Timed = tuple[float, float, np.ndarray]
"""The second at which a frame is first shown, how long it says it stays (0 if it does not), and it: (H, W, 3) uint8."""


def read_clip(path: Path, max_frames: int | None = None) -> Clip:
    """Read a picture or a clip.

    A varying frame rate becomes the average one: each moment takes the frame that is on the screen. Frames are turned
    upright, transparency is laid over white, sound is left aside.

    Args:
        path: any file that FFmpeg or Pillow knows.
        max_frames: stop after so many frames; None reads all of them.
    Raises:
        MMCoreError: the file is missing, empty, broken, too long, too large, or holds no picture.
    """
    with _opened(path) as (frames, rate, length):
        if max_frames is None and length * rate > 1.5 * MAX_FRAMES:
            raise MMCoreError(
                f"{path}: is {length:.0f} s long, {length * rate:.0f} frames; at most {MAX_FRAMES} are read; {TOO_LONG}"
            )
        timed = _bounded(path, frames, max_frames)
    if not timed:
        raise MMCoreError(f"{path}: there is no frame in it; the file may be cut off")
    (first, *_), (at, lasts, _) = timed[0], timed[-1]
    if len(timed) == 1:
        return Clip(timed[0][2][None], rate)
    end = at + (lasts if lasts > 0 else (at - first) / (len(timed) - 1))
    rate = _tidy(len(timed) / (end - first)) if end > first else rate
    return Clip(np.stack(_even(timed, rate, end)), rate)


def read_windows(path: Path, every: float) -> Iterator[tuple[float, Image | Video]]:
    """Read a clip of any length window by window, holding no more than one of them.

    Args:
        path: see `read_clip`. Frames come at the rate that the file names: each moment takes the one on the screen.
        every: seconds that a window lasts; the last one may be shorter.
    Yields:
        The second at which each window begins, and its frames; a picture where there is one alone.
    Raises:
        MMCoreError: as `read_clip`, but for the length; or a window is too large.
    """
    if not every > 0:
        raise MMCoreError(f"a window must last longer than 0 s, got {every:g}")
    with _opened(path) as (frames, rate, _):
        count, begin, held = max(round(every * rate), 1), 0, list[np.ndarray]()
        for frame in _steady(frames, rate):
            if held and frame.shape != held[0].shape:
                raise MMCoreError(f"{path}: its frames change size, which is not supported")
            held.append(frame)
            if len(held) * frame.shape[0] * frame.shape[1] > MAX_PIXELS:
                raise MMCoreError(f"{path}: {every:g} s of it are too large to be read at once; take shorter windows")
            if len(held) == count:
                yield begin / rate, _taken(held, rate)
                begin += count
        if held:
            yield begin / rate, _taken(held, rate)
        elif not begin:
            raise MMCoreError(f"{path}: there is no frame in it; the file may be cut off")


def _taken(held: list[np.ndarray], rate: float) -> Image | Video:
    """Frames as a medium of their own; they are not held any more."""
    frames = np.stack(held)
    held.clear()
    return Image(frames) if len(frames) == 1 else Video(frames, rate)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[Timed], float, float]]:
    """Frames of a file, their rate and its length in seconds as far as it says so; faults are told in one line."""
    import av

    if not path.exists():
        raise MMCoreError(f"{path}: no such file")
    if path.is_dir():
        raise MMCoreError(f"{path}: is a folder, a picture or a clip is expected")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise MMCoreError(f"{path}: cannot read: {error.strerror}") from error
    if not head:
        raise MMCoreError(f"{path}: the file is empty")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    try:
        with (_open_pillow if webp else _open_av)(path) as found:
            yield found
    except (av.FFmpegError, UnidentifiedImageError, OSError, EOFError, SyntaxError) as error:
        raise MMCoreError(f"{path}: not a picture or a clip that can be read, or broken: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One line of what a library says."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(words).splitlines()[0]


def _bounded(path: Path, frames: Iterator[Timed], max_frames: int | None) -> list[Timed]:
    """Collect frames, and stop where there are too many."""
    kept: list[Timed] = []
    pixels = 0
    for timed in frames:
        frame = timed[2]
        if kept and frame.shape != kept[0][2].shape:
            raise MMCoreError(f"{path}: its frames change size, which is not supported")
        pixels += frame.shape[0] * frame.shape[1]
        if len(kept) == MAX_FRAMES or pixels > MAX_PIXELS:
            raise MMCoreError(
                f"{path}: too long or too large: at most {MAX_FRAMES} frames and {MAX_PIXELS // 10**6} million pixels "
                f"are read; {TOO_LONG}"
            )
        kept.append(timed)
        if len(kept) == max_frames:
            break
    return kept


def _even(timed: list[Timed], rate: float, end: float) -> list[np.ndarray]:
    """Frames at a constant rate: at each moment the one on the screen."""
    starts = np.array([at for at, *_ in timed])
    if np.allclose(np.diff(starts), 1 / rate, atol=0.3 / rate):
        return [frame for *_, frame in timed]
    count = max(round((end - starts[0]) * rate), 1)
    moments = starts[0] + (np.arange(count) + 0.5) / rate
    return [timed[max(i, 0)][2] for i in np.searchsorted(starts, moments, side="right") - 1]


def _steady(frames: Iterator[Timed], rate: float) -> Iterator[np.ndarray]:
    """The same as they come, one ahead; the last one is there for a moment, however long it says it stays."""
    made, begin, shown = 0, 0.0, None
    for at, _, frame in frames:
        begin = at if shown is None else begin
        while shown is not None and begin + (made + 0.5) / rate < at:
            yield shown
            made += 1
        shown = frame
    if shown is not None:
        yield shown


@contextmanager
def _open_av(path: Path) -> Iterator[tuple[Iterator[Timed], float, float]]:
    """By FFmpeg."""
    import av

    av.logging.set_level(av.logging.PANIC)
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise MMCoreError(f"{path}: there is no picture in it, only sound or text")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or Clip.fps)
        if stream.width * stream.height > MAX_PIXELS // 4:
            raise MMCoreError(f"{path}: {stream.width}x{stream.height} pixels are too many; make it smaller first")
        stream.thread_type = "AUTO"

        def frames() -> Iterator[Timed]:
            for i, frame in enumerate(container.decode(stream)):
                base = float(frame.time_base or 0)
                at = frame.pts * base if frame.pts is not None else i / rate
                yield at, (frame.duration or 0) * base, _upright(_rgb(frame), frame.rotation)

        yield frames(), rate, (container.duration or 0) / av.time_base


def _tidy(rate: float) -> float:
    """A rate without the dust of integer time bases: 7.9998 is 8."""
    nearest = min((float(max(round(rate), 1)), *(n * 1000 / 1001 for n in (24, 30, 60))), key=lambda r: abs(r - rate))
    return nearest if abs(rate - nearest) < 1e-3 * rate else rate


def _rgb(frame: VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8, transparency over white."""
    from av.video.reformatter import ColorRange, Colorspace

    if any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8":
        rgba = frame.reformat(format="rgba").to_ndarray().astype(np.uint16)
        alpha = rgba[..., 3:]
        return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if frame.format.is_rgb or frame.format.name.startswith("gray"):
        return frame.reformat(format="rgb24").to_ndarray()
    # Untagged video follows its size: high definition is BT.709, the rest BT.601. JPEG uses the full range.
    space = frame.colorspace
    if space not in (Colorspace.ITU709, Colorspace.ITU601, Colorspace.SMPTE170M, Colorspace.SMPTE240M):
        space = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return frame.reformat(
        format="rgb24",
        src_colorspace=space,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()


def _upright(frame: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a frame counterclockwise by what its display matrix says, in quarter turns."""
    return np.ascontiguousarray(np.rot90(frame, round(rotation / 90) % 4))


@contextmanager
def _open_pillow(path: Path) -> Iterator[tuple[Iterator[Timed], float, float]]:
    """By Pillow."""

    def frames() -> Iterator[Timed]:
        clock = 0.0
        for page in ImageSequence.Iterator(image):
            rgba = ImageOps.exif_transpose(page).convert("RGBA")
            white, lasts = PILImage.new("RGBA", rgba.size, "white"), page.info.get("duration", 0) / 1000
            yield clock, lasts, np.asarray(PILImage.alpha_composite(white, rgba).convert("RGB"))
            clock += lasts

    with PILImage.open(path) as image:
        image.load()  # else the first page does not say how long it stays
        lasts = image.info.get("duration", 0) / 1000
        yield frames(), 1 / lasts if lasts else Clip.fps, 0.0


def fit(clip: Image | Video, size: tuple[int, int], fps: float, max_frames: int) -> Image | Video:
    """A clip as a model sees it: cropped to the shape at its middle, resized, at another frame rate.

    Args:
        clip: an image or a video; the result is of the same class.
        size: (height, width).
        fps: frame rate; each moment takes the frame on the screen.
        max_frames: what comes later is cut off.
    """
    frames = clip.frames
    if len(frames) > 1 and clip.fps != fps:
        count = max(round(len(frames) * fps / clip.fps), 1)
        moments = ((np.arange(count) + 0.5) / fps * clip.fps).astype(int)
        frames = frames[moments.clip(0, len(frames) - 1)]
    if len(frames) > max_frames:
        frames = frames[:max_frames]
    if frames.shape[1:3] != size:
        pictures = (PILImage.fromarray(frame) for frame in frames)
        filtered = [ImageOps.fit(p, (size[1], size[0]), PILImage.Resampling.LANCZOS) for p in pictures]
        frames = np.stack([np.asarray(p) for p in filtered])
    if frames is clip.frames:
        return clip
    return type(clip)(frames, fps if len(frames) > 1 else clip.fps, clip.learn)
