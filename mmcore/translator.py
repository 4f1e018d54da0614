"""What stands between people's documents and a backbone: words and media to pieces, and pieces back.

A family of models brings one beside its `mmcore.backbone.Backbone`; with the two, `mmcore.pipeline` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mmcore.document import Image, Video
from mmcore.generate import Order, Settings
from mmcore.replies import Request
from mmcore.sequence import Patches

Size = tuple[int, int, int]
"""Frames, rows and columns in pixels."""


class Translator(Protocol):
    """Documents to pieces and back, for one model."""

    @property
    def settings(self) -> Settings:
        """How to write where nobody says otherwise."""
        ...

    @property
    def editing(self) -> Settings:
        """The same, where a medium is changed by instruction."""
        ...

    @property
    def frames(self) -> int:
        """Frames of a clip that nobody asked another length for; 1 if the model makes pictures alone."""
        ...

    @property
    def facts(self) -> dict[str, object]:
        """What the model is, for `mmcore info`."""
        ...

    def fit(self, medium: Image | Video) -> Image | Video:
        """A medium at the size and frame rate that the model sees."""
        ...

    def sizes(self, request: Request) -> dict[int, Size]:
        """The size of each medium that the reply to a fitted request may hold, by opener."""
        ...

    def order(self, request: Request, sizes: dict[int, Size]) -> Order:
        """A fitted request as the writing loop takes it."""
        ...

    def words(self, ids: Sequence[int]) -> str:
        """What text tokens say."""
        ...

    def medium(self, patches: Patches, size: Size) -> Image | Video:
        """A medium that the model has written."""
        ...

    def preview(self, patches: Patches, size: Size) -> Image | Video | None:
        """A medium that is being written, or None where showing it would take longer than a step."""
        ...
