"""What is to be noted of the world's pictures and clips: what they show, and where. See `mmcore.notes`."""

from __future__ import annotations

import numpy as np

from mmcore.document import Text
from mmcore.notes import with_notes
from mmcore.training.world.language import tell
from mmcore.training.world.meaning import meaning
from mmcore.training.world.shown import Line, Lines
from mmcore.training.world.take import Take

QUESTION = "say where everything is"

ALONE = 0.25
"""Share of the documents with a given medium that end with the note on their first one."""


def noted(lines: Lines, rng: np.random.Generator) -> Lines:
    """A document with notes on the media that the user gave; of what is no scene the note is the answer itself.

    Args:
        lines: the document, and what its learnt media show.
        rng: decides whether it ends with the first note.
    """
    segments, shown = lines
    answer = next((line.text for line in segments if isinstance(line, Text) and line.learn), "")

    def note(medium: Line) -> str:
        if not isinstance(medium, Take):
            return answer
        return tell(meaning(medium.scene, medium.clip, spotted=True))

    whole = with_notes(segments, QUESTION, note)
    if len(whole) == len(segments) or rng.random() >= ALONE:
        return whole, shown
    end = whole.index(Text(QUESTION)) + 2
    return whole[:end], shown[: sum(isinstance(line, Take) and line.learn for line in whole[:end])]
