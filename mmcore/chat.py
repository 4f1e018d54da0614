"""A conversation that remembers.

    chat = mmcore.load().chat()
    chat.send("what is this?", "clip.mp4").text
    chat.send("make it bounce").media

What was said and shown is its `document`: it can be saved, read back and trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.document import Document
from mmcore.generate import make_settings
from mmcore.parts import Part, user_turn
from mmcore.replies import Reply, Request

if TYPE_CHECKING:
    from mmcore.pipeline import Pipeline


@dataclass
class Chat:
    """A conversation: everything said and shown stays in it.

    Args:
        pipeline: who answers.
        settings: fields of `Settings`; what suits each turn says the rest.
        document: what was said and shown so far.
        seed: decides everything that is drawn.
    """

    pipeline: Pipeline
    settings: dict[str, object] = field(default_factory=dict)
    document: Document = field(default_factory=Document)
    seed: int = 0

    def send(self, *parts: Part, want: str = "any", seed: int | None = None) -> Reply:
        """Say or show something, and get the answer.

        Args:
            parts: words, paths of media files, media.
            want: "text" for words alone, "image" or "video" for one of that, "any" to let the model decide.
            seed: decides everything that is drawn; that of the conversation, moved by the number of segments so far,
                where it is None.
        """
        so_far = self.document + user_turn(parts)
        request = Request(so_far, want, seed=self.seed + len(so_far) if seed is None else seed)
        chosen = make_settings(self.settings, self.pipeline.suited(request))
        reply = self.pipeline.reply([request], chosen)[0]
        self.document = so_far + reply.document
        return reply
