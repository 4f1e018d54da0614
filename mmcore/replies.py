"""What goes into the pipeline and what comes out of it: requests, replies, and updates while a reply is written."""

from __future__ import annotations

import html
from dataclasses import dataclass

from mmcore.document import Document, Image, Segment, Text, Video


@dataclass(frozen=True)
class Reply:
    """What the model wrote.

    Args:
        document: its segments.
    """

    document: Document

    @property
    def text(self) -> str:
        """All that was said."""
        return self.document.text

    @property
    def media(self) -> tuple[Image | Video, ...]:
        """All that was drawn and filmed."""
        return self.document.media

    def _repr_html_(self) -> str:
        return "".join(
            f"<p>{html.escape(s.text)}</p>" if isinstance(s, Text) else s._repr_html_() for s in self.document
        )


@dataclass(frozen=True)
class Update:
    """One event of a reply being written, in the terms of people.

    Args:
        row: which document of a batch.
        text: new words, or "".
        preview: the medium being written, as it looks so far.
        step: sampling steps made, of `steps`.
        steps: sampling steps in all.
        segment: a finished segment.
    """

    row: int = 0
    text: str = ""
    preview: Image | Video | None = None
    step: int = 0
    steps: int = 0
    segment: Segment | None = None


@dataclass(frozen=True)
class Glimpse:
    """What was said of one window of a long clip.

    Args:
        begin: the second at which it begins.
        clip: its frames.
        text: what was said.
    """

    begin: float
    clip: Image | Video
    text: str


@dataclass(frozen=True)
class Request:
    """One document to be continued.

    Args:
        document: what was said and shown so far, ending with the user's turn.
        want: "text" for words alone, "image" or "video" for one of that, "any" to let the model decide.
        size: (frames, height, width) of a medium that is written; None for what the document suggests.
        seed: decides everything that is drawn.
    """

    document: Document
    want: str = "any"
    size: tuple[int | None, int | None, int | None] = (None, None, None)
    seed: int = 0
