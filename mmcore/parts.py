"""What people send, as segments: words stay words, a path is read, frames become a picture or a clip."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.tokenizers.media import MEDIA_SUFFIXES, read_clip

Part = str | Path | Image | Video | Text | np.ndarray
"""Words, a media file's path, a medium, or frames (T, H, W, 3) or (H, W, 3) uint8."""


def user_turn(parts: Iterable[Part]) -> Document:
    """What a user sends, as a document; what a model wrote is the user's where the user sends it.

    A string is the path of a medium if it names a file that exists, or looks like nothing but a media file's name.

    Raises:
        MMCoreError: there is nothing in it, or a medium cannot be read.
    """
    document = Document(tuple(Text(p) if isinstance(p, str) and not _is_path(p) else as_segment(p) for p in parts))
    if not any(not isinstance(s, Text) or s.text.strip() for s in document):
        raise MMCoreError("nothing to answer: give some words, a picture or a clip")
    return document.learnt(False)


def as_medium(part: Part) -> Image | Video:
    """A picture or a clip; a string is always a path here.

    Raises:
        MMCoreError: it cannot be read, or is not a medium.
    """
    segment = as_segment(part)
    if isinstance(segment, Text):
        raise MMCoreError(f"a picture or a clip is expected here, got the words {segment.text[:40]!r}")
    return segment


def as_segment(part: Part) -> Segment:
    """One part; a string is a path here. A file of one frame is an image."""
    if isinstance(part, Text | Image | Video):
        return part
    if isinstance(part, np.ndarray):
        frames = part[None] if part.ndim == 3 else part
        return Image(frames) if len(frames) == 1 else Video(frames)
    if not isinstance(part, str | Path):
        raise MMCoreError(f"words, a path, a medium or frames are expected, got {type(part).__name__}")
    clip = read_clip(Path(part))
    return Image(clip.frames) if len(clip.frames) == 1 else Video(clip.frames, clip.fps)


def split_want(line: str) -> tuple[str, str]:
    """A typed line as what it is to be answered with and what it says: "/image a red ball" wants a picture."""
    first, _, rest = line.partition(" ")
    return (first[1:], rest) if first in ("/text", "/image", "/video") else ("any", line)


def split_words(line: str) -> list[str]:
    """A typed line as parts: the names of media files in it stand alone, what is between them stays together."""
    parts: list[str] = []
    words: list[str] = []
    for word in line.split():
        if not _is_path(word):
            words.append(word)
            continue
        if words:
            parts.append(" ".join(words))
            words = []
        parts.append(word)
    return [*parts, " ".join(words)] if words else parts


def _is_path(words: str) -> bool:
    if "\n" in words or len(words) > 1024:
        return False
    path = Path(words)
    looks = path.suffix.lower() in MEDIA_SUFFIXES and " " not in path.name
    return looks or path.is_file()
