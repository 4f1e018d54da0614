"""What a conversation on the page is made of: turns, the media in them, and how a reply is to be written.

turn = Turn([Text("a red ball bounces")], writing=True)
choice = Choice(want="video", steps=8, seed=7)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from mmcore.document import Image, Text, Video
from mmcore.replies import Update


@dataclass(frozen=True)
class Choice:
    """How a reply is to be written.

    Args:
        want: "any", "text", "image" or "video".
        frames: of a clip; None for as many as the clip that it is made from.
        steps: sampling steps for each medium; None for what suits the model.
        guidance: weight of the words; None for what suits the model.
        seed: decides everything that is drawn.
    """

    want: str = "any"
    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0

    @property
    def settings(self) -> dict[str, object]:
        """What was chosen, as fields of `Settings`. Words alone are the likeliest ones."""
        heat = 0.0 if self.want == "text" else None
        chosen = {"steps": self.steps, "guidance": self.guidance, "temperature": heat}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Shown:
    """A medium of the conversation.

    Args:
        medium: as the model sees it.
        number: its place among the media of the conversation, from 1.
        file: an MP4 or PNG file of it.
        strip: all its frames side by side, a PNG file.
    """

    medium: Image | Video
    number: int
    file: Path
    strip: Path


@dataclass
class Turn:
    """What a user sent, and what the model made of it.

    Args:
        asked: the user's words and media.
        said: the finished segments of the reply.
        words: the words being written.
        sketch: the medium being written, after its last step.
        seed: that the reply was drawn with.
        note: "stopped", "full", or one sentence on what went wrong; empty if nothing did.
        refused: whether the message could not be taken, so that the model never sees it.
        writing: whether there is more to come.
    """

    asked: list[Text | Shown] = field(default_factory=list)
    said: list[Text | Shown] = field(default_factory=list)
    words: str = ""
    sketch: Update | None = None
    seed: int = 0
    note: str = ""
    refused: bool = False
    writing: bool = False

    @property
    def text(self) -> str:
        """What the user typed."""
        return "\n".join(part.text for part in self.asked if isinstance(part, Text))


def keep(medium: Image | Video, number: int, root: Path) -> Shown:
    """Write the files of a medium.

    Args:
        medium: a still becomes a PNG file, a clip an MP4 file.
        number: its place in the conversation, from 1.
        root: they go into a new folder in it, whose name nobody can guess.
    """
    folder = Path(mkdtemp(dir=root))
    name = f"picture-{number}.png" if isinstance(medium, Image) else f"clip-{number}.mp4"
    strip = Image(np.concatenate(list(medium.frames), 1)[None])
    return Shown(medium, number, medium.save(folder / name), strip.save(folder / "strip.png"))
