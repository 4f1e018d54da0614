"""Clips to media files that everybody can open.

    write_clip(clip, Path("out.mp4"))     # H.264 yuv420p, plays in every browser

A file appears whole or not at all: it is written beside its place and then moved there. The same clip gives the same
bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from mmcore.document import Clip
from mmcore.errors import MMCoreError

H264 = {"crf": "12", "preset": "medium", "mbtree": "0"}
"""Of x264. Without `mbtree`, which with AVX-512 makes another file of the same small frames each time."""

CODECS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    ".mp4": ("libx264", H264, {"movflags": "+faststart"}),
    ".mov": ("libx264", H264, {"movflags": "+faststart"}),
    ".mkv": ("libx264", H264, {"fflags": "bitexact"}),
    ".webm": ("libvpx-vp9", {"crf": "15", "b:v": "0", "deadline": "good"}, {"fflags": "bitexact"}),
}
"""For each video format its codec, the codec's options and the container's."""

MOVING = (*CODECS, ".gif", ".webp")
STILL = (".png", ".jpg", ".jpeg")


def write_clip(clip: Clip, path: Path) -> Path:
    """Write a clip; the suffix chooses the format. See `write_windows`."""
    return write_windows([clip], path)


def write_windows(windows: Iterable[Clip], path: Path) -> Path:
    """Write clips of one size and frame rate as one, each as it comes; the suffix chooses the format.

    Formats with a codec (`CODECS`) hold one clip in memory at a time, the others all of them.

    Args:
        windows: frames with their rate; at least one.
        path: ends in one of MOVING, or of STILL for a clip of one frame.
    Returns:
        The path.
    Raises:
        MMCoreError: the suffix is unknown, a picture format is to hold several frames, or the place cannot be written.
    """
    import av

    check_writable(path)
    suffix = path.suffix.lower()
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        if suffix in CODECS:
            _write_av(iter(windows), partial, suffix)
        else:
            clips = list(windows)
            whole = replace(clips[0], frames=np.concatenate([clip.frames for clip in clips]))
            if suffix in STILL and len(whole.frames) > 1:
                told = f"a picture holds one frame, not {len(whole.frames)}"
                raise MMCoreError(f"{path}: {told}; use .mp4, .webm, .gif or .webp")
            _write_pillow(whole, partial, suffix)
        partial.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise MMCoreError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def check_writable(path: Path) -> None:
    """Find out before long work whether its result could be written.

    Raises:
        MMCoreError: as `write_clip`.
    """
    if path.suffix.lower() not in MOVING + STILL:
        known = " ".join(MOVING + STILL)
        raise MMCoreError(f"{path}: unknown format {path.suffix!r}; the name must end in one of: {known}")
    folder = path.parent
    if not folder.is_dir():
        raise MMCoreError(f"{path}: there is no folder {folder}; make it first")
    if path.is_dir():
        raise MMCoreError(f"{path}: is a folder; give the name of a file")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise MMCoreError(f"{path}: cannot write there: permission denied")


def _write_av(windows: Iterator[Clip], path: Path, suffix: str) -> None:
    import av
    from av.video.frame import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace
    from av.video.stream import VideoStream

    codec, options, movflags = CODECS[suffix]
    clip = next(windows)
    _, h, w = clip.size
    even = ((0, h % 2), (0, w % 2), (0, 0))  # yuv420p wants even sides
    with av.open(str(path), "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=Fraction(clip.fps).limit_denominator(1001), options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = w + w % 2, h + h % 2, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = 1
        for frame in chain(clip.frames, chain.from_iterable(window.frames for window in windows)):
            rgb = VideoFrame.from_ndarray(np.pad(frame, even, mode="edge"), "rgb24")
            yuv = rgb.reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            container.mux(stream.encode(yuv))
        container.mux(stream.encode(None))


def _write_pillow(clip: Clip, path: Path, suffix: str) -> None:
    first, *rest = [PILImage.fromarray(frame) for frame in clip.frames]
    milliseconds = round(1000 / clip.fps)
    if suffix == ".gif":
        first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, disposal=1)
    elif suffix == ".webp":
        first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, lossless=True)
    elif suffix == ".png":
        first.save(path)
    else:
        first.save(path, quality=95, subsampling=0)
