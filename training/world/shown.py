"""What a document shows and what it is made of: scenes as media, with the words that ask for them. See `tasks`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.training.world.language import caption, casual, pick, say, tell
from mmcore.training.world.meaning import Meaning, meaning
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import STYLES, Scene
from mmcore.training.world.studio import OWN, sample_studio
from mmcore.training.world.styles import stands_out
from mmcore.training.world.take import FRAMES, Take
from mmcore.training.world.wear import UNTOUCHED, sample_grade, sample_wear

STYLED = 0.1
"""How often a scene that may have a style has one."""

HERE = "here it is: "
FIRST, THEN, LAST = "first, ", "then, ", "at last, "
INTRODUCTIONS = (HERE, FIRST, THEN, LAST)
"""How a sentence begins that comes before a medium and says what it shows."""


@dataclass(frozen=True)
class Shown:
    """A scene, whether it is shown as a clip or as a picture, and how much of it was asked for.

    Args:
        scene: the scene.
        clip: whether its motions are to be seen.
        sized: for each solid, whether its size was told.
        placed: whether the backdrop was told.
        before: the scene that it was made from, if it is an edit.
        after: how many frames of the same clip were given before it, if it goes on with that.
    """

    scene: Scene
    clip: bool
    sized: tuple[bool, ...] = (True,) * 4
    placed: bool = True
    before: Scene | None = None
    after: int = 0

    @property
    def caption(self) -> str:
        """What is to be seen."""
        return caption(self.scene, self.clip)

    @property
    def request(self) -> Meaning:
        """As much of it as was asked for."""
        return meaning(self.scene, self.clip, self.sized, self.placed, seen=False)

    def asked_of(self, scene: Scene) -> Meaning:
        """As much of another scene as was asked for of this one: what both say must be equal."""
        return meaning(scene, self.clip, self.sized, self.placed)

    @property
    def take(self) -> Take:
        """As the model is to write it."""
        return Take(self.scene, self.clip, True, range(self.after, FRAMES))

    def written(self) -> Image | Video:
        """Drawn or filmed, as the model is to write it."""
        return self.take.drawn()

    def given(self, rng: np.random.Generator, graded: bool = False) -> Take:
        """The same as somebody sends it, perhaps filmed elsewhere and in other colours."""
        wear, studio = sample_wear(rng), OWN
        if graded:
            wear, studio = replace(wear or UNTOUCHED, grade=sample_grade(rng)), sample_studio(rng)
        return replace(self.take, learn=False, wear=wear, studio=studio)


@dataclass(frozen=True)
class Example:
    """A document, and what each medium that the model is to write in it shows."""

    document: Document
    shown: tuple[Shown, ...] = ()


Line = Segment | Take
"""A segment, perhaps yet to be drawn."""

Lines = tuple[tuple[Line, ...], tuple[Shown, ...]]
"""What a document is to be made of, and what each learnt medium in it shows."""


def draw(rng: np.random.Generator, clip: bool, styles: bool = False) -> Shown:
    """A scene of no matter what; now and then in a style, if it may have one."""
    scene = sample_scene(rng, moving=clip and bool(rng.random() < 0.95))
    if styles and rng.random() < STYLED:
        other = replace(scene, style=pick(rng, STYLES[1:]))
        scene = other if stands_out(other) else scene
    return Shown(scene, clip)


def asked_for(rng: np.random.Generator, clip: bool) -> tuple[Text, Shown]:
    """Words that ask for a medium, some of it left open, and what they ask for."""
    shown = draw(rng, clip, styles=True)
    all_sized = bool(rng.random() < 0.5)
    sized = tuple(all_sized and bool(rng.random() < 0.8) for _ in range(4))
    shown = replace(shown, sized=sized, placed=bool(rng.random() < 0.5))
    kind = "film" if clip else "draw"
    return user(rng, say(rng, kind, scene=shown.request)), shown


def user(rng: np.random.Generator, words: str) -> Text:
    """What somebody types."""
    return Text(casual(rng, words))


def given_with(rng: np.random.Generator, medium: Line, words: str) -> tuple[Line, ...]:
    """A medium and words about it, in either order."""
    pair = (medium, user(rng, words))
    return pair if rng.random() < 0.7 else pair[::-1]


def with_sentence(shown: Shown, introduction: str = HERE) -> tuple[Line, ...]:
    """A medium after a sentence that says what it shows and where: what words have settled is not left to the noise."""
    return Text(introduction + tell(meaning(shown.scene, shown.clip, spotted=True, seen=False)), True), shown.take
