"""Notes: what a model says of each medium that it is given stands behind that, before what people said of it.

    with_notes(document, "say where everything is", lambda medium: "a red ball (far left, near)")

    sent    <clip> is the ball left of the cube?
    read    <clip> say where everything is <reply> a red ball (far left, near) and ... <end> is the ball left of ...

What is to be compared, counted or kept then stands there in words (a scratchpad, arXiv 2112.00114). Documents that are
learnt from have the true notes; in use the model writes its own, which nobody sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

from mmcore.document import Text


class Line(Protocol):
    """What a document is made of."""

    @property
    def learn(self) -> bool:
        """Whether the model writes it."""
        ...


L = TypeVar("L", bound=Line)


def given_media(lines: Sequence[L]) -> list[L]:
    """The media that the user gave, in order."""
    return [line for line in lines if not isinstance(line, Text) and not line.learn]


def with_notes(lines: Sequence[L], question: str, note: Callable[[L], str]) -> tuple[L | Text, ...]:
    """A document with a note on each medium that the user gave; words of the same turn come after them.

    Args:
        lines: of the document.
        question: what the notes answer.
        note: what there is to say of a medium; it is asked in order.
    """
    noted: list[L | Text] = []
    for learn, turn in groupby(lines, lambda line: line.learn):
        here = list(turn)
        for medium in given_media(here):
            noted += [medium, Text(question), Text(note(medium), True)]
        noted += [line for line in here if learn or isinstance(line, Text)]
    return tuple(noted)
