"""Clips to media files that everybody can open.

    write_clip(clip, Path("out.mp4"))     # H.264 yuv420p, plays in every browser

A file appears whole or not at all: it is written beside its place and then moved there.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image as PILImage

from mmcore.document import Clip
from mmcore.errors import MMCoreError

CODECS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "12", "preset": "medium"}, {"movflags": "+faststart"}),
    ".mov": ("libx264", {"crf": "12", "preset": "medium"}, {"movflags": "+faststart"}),
    ".mkv": ("libx264", {"crf": "12", "preset": "medium"}, {}),
    ".webm": ("libvpx-vp9", {"crf": "15", "b:v": "0", "deadline": "good"}, {}),
}
"""For each video format its codec, the codec's options and the container's."""

MOVING = (*CODECS, ".gif", ".webp")
STILL = (".png", ".jpg", ".jpeg")


def write_clip(clip: Clip, path: Path) -> Path:
    """Write a clip; the suffix chooses the format.

    Args:
        clip: frames with their rate.
        path: ends in one of MOVING, or of STILL for a clip of one frame.
    Returns:
        The path.
    Raises:
        MMCoreError: the suffix is unknown, a picture format is to hold several frames, or the place cannot be written.
    """
    check_writable(path)
    suffix = path.suffix.lower()
    if suffix in STILL and len(clip.frames) > 1:
        raise MMCoreError(f"{path}: a picture holds one frame, not {len(clip.frames)}; use .mp4, .webm, .gif or .webp")
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        if suffix in CODECS:
            _write_av(clip, partial, suffix)
        else:
            _write_pillow(clip, partial, suffix)
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


def _write_av(clip: Clip, path: Path, suffix: str) -> None:
    codec, options, movflags = CODECS[suffix]
    _, h, w = clip.size
    frames = np.pad(clip.frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")  # yuv420p wants even sides
    with av.open(str(path), "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=Fraction(clip.fps).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = 1
        for frame in frames:
            rgb = VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
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
