"""What is to be noted of the world's media: what they show, where it stands, and what is nearer. See `mmcore.notes`."""

from __future__ import annotations

import numpy as np

from mmcore.document import Text
from mmcore.notes import with_notes
from mmcore.training.world.language import listed, noun, tell
from mmcore.training.world.meaning import Said, meaning
from mmcore.training.world.questions import question
from mmcore.training.world.shown import Line, Lines, user
from mmcore.training.world.take import Take

QUESTION = "say where everything is"

ALONE = 0.25
"""Share of the documents with a given medium that end with the note on their first one."""

MORE = 4
"""So many more questions are asked at most where only words are answered."""

FROM_NEAR = "; from near to far "
"""What stands before the order of solids from the camera on."""


def note_of(take: Take) -> str:
    """What there is to see, in which part of the room each solid stands and, of a single shot, which are nearer."""
    told = meaning(take.scene, take.clip, spotted=True)
    if take.scene.then or len(told.solids) == 1:
        return tell(told)
    order = sorted(range(len(told.solids)), key=lambda i: take.scene.solids[i].z)
    named = (Said(told.solids[i].shape, told.solids[i].colour) for i in order)
    return tell(told) + FROM_NEAR + listed([noun(solid) for solid in named])


def noted(lines: Lines, rng: np.random.Generator) -> Lines:
    """A document with notes on the media that the user gave; of what is no scene the note is the answer itself.

    Args:
        lines: the document, and what its learnt media show.
        rng: decides whether it ends with the first note, and what is asked besides.
    """
    segments, shown = lines
    answer = next((line.text for line in segments if isinstance(line, Text) and line.learn), "")
    whole = with_notes(segments, QUESTION, lambda medium: note_of(medium) if isinstance(medium, Take) else answer)
    if len(whole) == len(segments):
        return lines
    if rng.random() < ALONE:
        end = whole.index(Text(QUESTION)) + 2
        return whole[:end], shown[: sum(isinstance(line, Take) and line.learn for line in whole[:end])]
    return (*whole, *_more(segments, rng)), shown


def _more(segments: tuple[Line, ...], rng: np.random.Generator) -> list[Line]:
    """More questions and answers about the one plain take of a document whose replies are words alone."""
    takes = [line for line in segments if isinstance(line, Take)]
    if len(takes) != 1 or takes[0].learn or takes[0].scene.then or takes[0].scene.style != "plain":
        return []
    more: list[Line] = []
    for _ in range(int(rng.integers(MORE + 1))):
        asked, said = question(rng, takes[0].scene, takes[0].clip)
        more += [user(rng, asked), Text(said, True)]
    return more
