"""Filters of documents: each takes one, and gives back what is left of it: nothing, itself, or its parts.

    Brightness(least=20)(document)       # () or (document,)

`training/build.py` runs a chain of them over shards. A threshold is in the units of its own line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image as PILImage

from mmcore.document import Document, Image, Text, Video

Filter = Callable[[Document], tuple[Document, ...]]


def gray(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames (T, H, W, 3) as small gray ones (T, rows, columns) float32, 0 to 255; `size` is (columns, rows)."""
    small = [PILImage.fromarray(f).convert("L").resize(size, PILImage.Resampling.BOX) for f in frames]
    return np.stack([np.asarray(f, np.float32) for f in small])


def changes(video: Video) -> np.ndarray:
    """(T - 1,) mean difference of each frame to the one before, 0 to 255."""
    return np.abs(np.diff(gray(video.frames, (32, 32)), axis=0)).mean((1, 2))


def kept(document: Document, good: bool) -> tuple[Document, ...]:
    """The document, or nothing."""
    return (document,) if good else ()


@dataclass(frozen=True)
class Size:
    """Removes what has a medium of too few or too many pixels on a side.

    Args:
        least: pixels of the shorter side.
        most: pixels of the longer side.
    """

    least: int = 64
    most: int = 8192

    def __call__(self, document: Document) -> tuple[Document, ...]:
        """Filter one document."""
        sides = [m.size[1:] for m in document.media]
        return kept(document, all(min(s) >= self.least and max(s) <= self.most for s in sides))


@dataclass(frozen=True)
class Length:
    """Removes what has a clip that is too short or too long.

    Args:
        least: seconds.
        most: seconds.
    """

    least: float = 0.5
    most: float = 60.0

    def __call__(self, document: Document) -> tuple[Document, ...]:
        """Filter one document."""
        seconds = [len(m.frames) / m.fps for m in document.media if isinstance(m, Video)]
        return kept(document, all(self.least <= s <= self.most for s in seconds))


@dataclass(frozen=True)
class Brightness:
    """Removes what has a medium that is too dark or too bright.

    Args:
        least: mean gray, 0 to 255.
        most: mean gray, 0 to 255.
    """

    least: float = 10.0
    most: float = 245.0

    def __call__(self, document: Document) -> tuple[Document, ...]:
        """Filter one document."""
        means = [float(gray(m.frames, (32, 32)).mean()) for m in document.media]
        return kept(document, all(self.least <= mean <= self.most for mean in means))


@dataclass(frozen=True)
class Static:
    """Removes what has a clip in which nothing moves.

    Args:
        least: the mean change from frame to frame, 0 to 255, of gray frames of 32x32.
    """

    least: float = 0.5

    def __call__(self, document: Document) -> tuple[Document, ...]:
        """Filter one document."""
        clips = [m for m in document.media if isinstance(m, Video)]
        return kept(document, all(len(c.frames) > 1 and changes(c).mean() >= self.least for c in clips))


@dataclass(frozen=True)
class Shots:
    """Splits a document with one clip at its cuts: each shot becomes a document with the same words.

    A cut is a change that is large and stands out from the clip's usual one. What has several clips is left as it is:
    cut apart, they would not fit each other.

    Args:
        least: change from frame to frame at a cut, 0 to 255, of gray frames of 32x32.
        times: how many times the clip's median change it is at least.
    """

    least: float = 25.0
    times: float = 5.0

    def __call__(self, document: Document) -> tuple[Document, ...]:
        """Split one document."""
        clips = [m for m in document.media if isinstance(m, Video)]
        if len(clips) != 1:
            return (document,)
        change = changes(clips[0])
        usual = float(np.median(change)) if len(change) else 0.0
        cuts = np.flatnonzero((change >= self.least) & (change >= self.times * usual)) + 1
        if not len(cuts):
            return (document,)
        shots = [Video(frames, clips[0].fps, clips[0].learn) for frames in np.split(clips[0].frames, cuts)]
        return tuple(Document(tuple(shot if s is clips[0] else s for s in document)) for shot in shots)


@dataclass(frozen=True)
class Words:
    """Removes what has a text, to read or to write, that breaks a rule.

    Args:
        least: words in all texts of the document together.
        most: words in all texts of the document together.
        without: regular expressions that are found nowhere in it; upper and lower case are the same.
    """

    least: int = 1
    most: int = 1000
    without: tuple[str, ...] = ()

    def __call__(self, document: Document) -> tuple[Document, ...]:
        """Filter one document."""
        text = document.text
        banned = any(re.search(rule, text, re.IGNORECASE) for rule in self.without)
        return kept(document, self.least <= len(text.split()) <= self.most and not banned)


@dataclass(frozen=True)
class Duplicates:
    """Removes what came before: the same words around media that look the same. It stands last in a chain.

    Media look the same if the 64-bit difference hashes of their first, middle and last frames differ in few bits.

    Args:
        distance: bits in which the hashes of two frames differ at most, 0 to 15.
        words: whether the words must be the same too; else only the kinds of the segments and who writes them.
    """

    distance: int = 3
    words: bool = True

    def signature(self, document: Document) -> tuple[str, list[int]]:
        """What must be equal, and the hashes that must be near."""
        equal = [(type(s).__name__, s.learn, s.text if isinstance(s, Text) and self.words else "") for s in document]
        hashes = [h for medium in document.media for h in difference_hashes(medium)]
        return repr(equal), hashes


def difference_hashes(medium: Image | Video) -> list[int]:
    """64 bits for each of the first, middle and last frames: which of two neighbours in 9x8 gray pixels is brighter."""
    frames = medium.frames[[0, len(medium.frames) // 2, -1]]
    brighter = np.diff(gray(frames, (9, 8)), axis=2) > 0
    return [int.from_bytes(np.packbits(bits).tobytes()) for bits in brighter]


class Seen:
    """Signatures that came before, found by bands: hashes that differ in d bits agree in one of d + 1 bands.

    Args:
        distance: bits in which each two hashes differ at most.
    """

    def __init__(self, distance: int) -> None:
        self.distance = distance
        self._found: dict[tuple[str, int, int], list[list[int]]] = {}
        edges = np.linspace(0, 64, distance + 2).round().astype(int).tolist()
        self.bands = [(low, (1 << high - low) - 1) for low, high in pairwise(edges)]

    def add(self, equal: str, hashes: list[int]) -> bool:
        """Remember a signature; whether it was there already, in which case it is not."""
        first = hashes[0] if hashes else 0
        keys = [(equal, band, first >> low & mask) for band, (low, mask) in enumerate(self.bands)]
        for key in keys:
            for other in self._found.get(key, ()):
                if all((a ^ b).bit_count() <= self.distance for a, b in zip(hashes, other, strict=True)):
                    return True
        for key in keys:
            self._found.setdefault(key, []).append(hashes)
        return False


FILTERS: dict[str, type] = {
    "size": Size,
    "length": Length,
    "brightness": Brightness,
    "static": Static,
    "shots": Shots,
    "words": Words,
    "duplicates": Duplicates,
}
