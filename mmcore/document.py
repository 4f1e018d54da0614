"""Documents: ordered segments of text, images and video, as people send them and the model writes them.

    from mmcore.document import Document, Image, Text, Video
    doc = Document((Text("make the ball blue"), Video.open("clip.mp4")))
    doc.save("folder")                       # document.json with the media beside it
    assert Document.load("folder") == doc    # media in lossless files: equal to the byte

An image is a clip of one frame; nothing below this file asks which of the two it holds.
Shapes: `T` frames, `H` rows, `W` columns.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmcore.errors import MMCoreError

DOCUMENT_FILE = "document.json"


@dataclass(frozen=True)
class Text:
    """A run of text.

    Args:
        text: any string; may be empty.
        learn: whether the model is to write this (its own turn) or only to read it (the user's turn).
    """

    text: str
    learn: bool = False


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with a frame rate. Use `Image` or `Video`, which say what the frames are meant as.

    Args:
        frames: (T, H, W, 3) uint8, sRGB, T >= 1. Made read-only.
        fps: frames per second, > 0. It has no meaning for an image.
        learn: whether the model is to write this or only to read it.
    """

    frames: np.ndarray
    fps: float = 8.0
    learn: bool = False

    def __post_init__(self) -> None:
        frames = np.asarray(self.frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise MMCoreError(
                f"{type(self).__name__}: frames must be (T, H, W, 3) uint8 with nothing empty, "
                f"got {frames.shape} {frames.dtype}"
            )
        if not self.fps > 0:
            raise MMCoreError(f"{type(self).__name__}: fps must be above 0, got {self.fps}")
        frames = frames.view()
        frames.flags.writeable = False
        object.__setattr__(self, "frames", frames)

    def __eq__(self, other: object) -> bool:
        return (
            type(self) is type(other)
            and isinstance(other, Clip)
            and self.fps == other.fps
            and self.learn == other.learn
            and np.array_equal(self.frames, other.frames)
        )

    def __repr__(self) -> str:
        t, h, w, _ = self.frames.shape
        return f"{type(self).__name__}({t} frames, {w}x{h}, {self.fps:g} fps)"

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        t, h, w, _ = self.frames.shape
        return t, h, w

    def save(self, path: str | Path) -> Path:
        """Write the clip; the suffix chooses the format (.mp4 .webm .mov .mkv .gif .webp .png .jpg).

        Returns:
            The path written. The file appears whole or not at all.
        Raises:
            MMCoreError: the suffix is unknown, or the place cannot be written.
        """
        from mmcore.decoders.media import write_clip

        return write_clip(self, Path(path))

    @property
    def data_url(self) -> str:
        """The whole clip as a `data:` URL: PNG for an image, MP4 for a video."""
        kind, suffix = ("image/png", ".png") if isinstance(self, Image) else ("video/mp4", ".mp4")
        with tempfile.TemporaryDirectory() as folder:
            written = self.save(Path(folder) / f"clip{suffix}").read_bytes()
        return f"data:{kind};base64,{base64.b64encode(written).decode()}"


class Image(Clip):
    """A clip of one frame, meant as a picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.frames) != 1:
            raise MMCoreError(f"Image: one frame expected, got {len(self.frames)}; use Video")

    @classmethod
    def open(cls, path: str | Path) -> Image:
        """Read the first frame of any picture or clip.

        Raises:
            MMCoreError: the file is missing, empty, broken or not media.
        """
        from mmcore.tokenizers.media import read_clip

        clip = read_clip(Path(path), max_frames=1)
        return cls(clip.frames[:1])

    def _repr_html_(self) -> str:
        return f'<img src="{self.data_url}">'


class Video(Clip):
    """A clip meant as moving pictures."""

    @classmethod
    def open(cls, path: str | Path) -> Video:
        """Read every frame of a clip or picture.

        Raises:
            MMCoreError: the file is missing, empty, broken, too long or not media.
        """
        from mmcore.tokenizers.media import read_clip

        clip = read_clip(Path(path))
        return cls(clip.frames, clip.fps)

    def _repr_html_(self) -> str:
        return f'<video src="{self.data_url}" autoplay loop muted playsinline controls></video>'


Segment = Text | Image | Video


@dataclass(frozen=True)
class Document:
    """An ordered mix of text, images and video.

    Runs of segments with `learn=False` are what the model is given, runs with `learn=True` are its replies;
    a conversation alternates between the two.
    """

    segments: tuple[Segment, ...] = ()

    def __add__(self, other: Document) -> Document:
        return Document(self.segments + other.segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def text(self) -> str:
        """All text segments, joined by a space."""
        return " ".join(s.text for s in self.segments if isinstance(s, Text))

    @property
    def media(self) -> tuple[Image | Video, ...]:
        """All images and clips, in order."""
        return tuple(s for s in self.segments if not isinstance(s, Text))

    def learnt(self, learn: bool) -> Document:
        """The same document with every segment's `learn` set."""
        return Document(tuple(replace(s, learn=learn) for s in self.segments))

    def save(self, folder: str | Path) -> Path:
        """Write `document.json` and one lossless file for each medium (PNG strips hold the frames).

        Raises:
            MMCoreError: the folder cannot be written.
        """
        folder = Path(folder)
        entries: list[dict[str, object]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for i, segment in enumerate(self.segments):
                if isinstance(segment, Text):
                    entries.append({"type": "text", "text": segment.text, "learn": segment.learn})
                    continue
                t, h, w = segment.size
                name = f"{i:03d}.png"
                Image(segment.frames.reshape(1, t * h, w, 3)).save(folder / name)
                entries.append(
                    {
                        "type": type(segment).__name__.lower(),
                        "file": name,
                        "frames": t,
                        "fps": segment.fps,
                        "learn": segment.learn,
                    }
                )
            partial = folder / f".{DOCUMENT_FILE}.part"
            partial.write_text(json.dumps({"segments": entries}, indent=1, ensure_ascii=False) + "\n")
            partial.replace(folder / DOCUMENT_FILE)
        except OSError as error:
            raise MMCoreError(f"{folder}: cannot write the document: {error.strerror or error}") from error
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Document:
        """Read a folder that `save` wrote, or that was written by hand.

        A medium's entry may name any media file beside `document.json`; `"frames"` marks a PNG strip.

        Raises:
            MMCoreError: a file is missing or broken, an entry is malformed, or a name leads out of the folder.
        """
        folder = Path(folder)
        index = folder / DOCUMENT_FILE
        try:
            entries = list(json.loads(index.read_text())["segments"])
        except OSError as error:
            raise MMCoreError(f"{index}: cannot read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise MMCoreError(f'{index}: not a document, expected {{"segments": [...]}}: {error}') from error
        return cls(tuple(_segment(folder, i, entry) for i, entry in enumerate(entries)))


def _segment(folder: Path, i: int, entry: dict) -> Segment:
    """One entry of `document.json` as a segment."""
    where = f"{folder / DOCUMENT_FILE}: segment {i}"
    try:
        kind, learn = entry["type"], bool(entry.get("learn", False))
        if kind == "text":
            return Text(str(entry["text"]), learn)
        if kind not in ("image", "video"):
            raise MMCoreError(f'type must be "text", "image" or "video", got {kind!r}')
        path = folder / entry["file"]
        if not path.resolve().is_relative_to(folder.resolve()):
            raise MMCoreError(f"{entry['file']!r} leads out of the folder")
        if "frames" in entry:
            strip = Image.open(path).frames[0]
            frames = strip.reshape(int(entry["frames"]), -1, strip.shape[1], 3)
            fps = float(entry.get("fps", Clip.fps))
        elif kind == "image":
            frames, fps = Image.open(path).frames, Clip.fps
        else:
            clip = Video.open(path)
            frames, fps = clip.frames, clip.fps
        return Image(frames, fps, learn) if kind == "image" else Video(frames, fps, learn)
    except MMCoreError as error:
        raise MMCoreError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MMCoreError(f"{where}: malformed: {error!r}") from error
