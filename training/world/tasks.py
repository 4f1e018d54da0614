"""Documents of the world: one seed, one document, the same bytes each time.

    document = sample_document(seed=0)                  # any task, by the mixture
    document = sample_document(seed=0, task="chat")

What the user says has `learn=False`, what the model is to answer `learn=True`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmcore.document import Document, Text
from mmcore.training.world.edits import animate, find_edit, sample_edit
from mmcore.training.world.foreign import describe_foreign
from mmcore.training.world.heldout import Dice
from mmcore.training.world.language import OWN, pick, say
from mmcore.training.world.mixtures import MIXTURES
from mmcore.training.world.notes import noted
from mmcore.training.world.questions import in_both, question
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.shots import answer_shots, describe_shots, write_shots
from mmcore.training.world.shown import (
    Example,
    Line,
    Lines,
    Shown,
    asked_for,
    draw,
    given_with,
    user,
    with_sentence,
)
from mmcore.training.world.stories import continuation, story, uniform_motion
from mmcore.training.world.take import Take
from mmcore.training.world.talk import missing, no_scene, small_talk
from mmcore.training.world.wear import sample_wear


def write_medium(rng: np.random.Generator, clip: bool) -> Lines:
    """Words to a picture or a clip."""
    asked, shown = asked_for(rng, clip)
    return (asked, *with_sentence(shown)), (shown,)


def describe(rng: np.random.Generator, clip: bool, graded: bool = False) -> Lines:
    """A picture or a clip to words."""
    shown = draw(rng, clip, styles=True)
    return (*given_with(rng, shown.given(rng, graded), say(rng, "caption")), Text(shown.caption, True)), ()


def describe_graded(rng: np.random.Generator, clip: bool) -> Lines:
    """The same of one in other colours than the world's, which are called by the same names."""
    return describe(rng, clip, graded=True)


def answer(rng: np.random.Generator, clip: bool) -> Lines:
    """One to three questions about a picture or a clip; of one in a style, only what that is."""
    shown = draw(rng, clip, styles=True)
    if shown.scene.style != "plain":
        return (*given_with(rng, shown.given(rng), say(rng, "style")), Text(OWN["style"][shown.scene.style], True)), ()
    asked, said = question(rng, shown.scene, clip)
    segments = [*given_with(rng, shown.given(rng), asked), Text(said, True)]
    for _ in range(int(rng.integers(3))):
        asked, said = question(rng, shown.scene, clip)
        segments += [user(rng, asked), Text(said, True)]
    return tuple(segments), ()


def edit(rng: np.random.Generator, clip: bool) -> Lines:
    """A picture or a clip, changed by instruction."""
    shown = draw(rng, clip)
    change = sample_edit(rng, shown.scene, clip)
    changed = Shown(change.scene, clip, before=shown.scene)
    return (*given_with(rng, shown.given(rng), change.instruction), *with_sentence(changed)), (changed,)


def image_to_video(rng: np.random.Generator, _: bool) -> Lines:
    """A picture, set in motion."""
    while True:
        change = animate(rng, sample_scene(rng, moving=False))
        if change is not None:
            break
    first = Take(change.scene, clip=False, wear=sample_wear(rng))
    changed = Shown(change.scene, True, before=change.scene.at_rest)
    return (*given_with(rng, first, change.instruction), *with_sentence(changed)), (changed,)


ORDINALS = ("first", "second", "third")


def chat(rng: np.random.Generator, _: bool) -> Lines:
    """Two to six turns that mix words, pictures and clips, and go back to earlier ones."""
    seen: list[Shown] = []
    written: list[Shown] = []
    segments: list[Line] = []
    for _turn in range(int(rng.integers(2, 7))):
        kind = "new" if not seen else ("new", "edit", "edit", "question")[int(rng.integers(4))]
        if kind in ("new", "edit") and len(seen) == 3:
            kind = "question"
        change = _edit_earlier(rng, seen) if kind == "edit" else None
        if kind == "question" or (kind == "edit" and change is None):
            asked, said = _question_about(rng, seen)
            segments += [user(rng, asked), Text(said, True)]
            continue
        if kind == "new" and rng.random() < 0.4:
            shown = draw(rng, bool(rng.random() < 0.5))
            segments += [*given_with(rng, shown.given(rng), say(rng, "caption")), Text(shown.caption, True)]
            seen.append(shown)
            continue
        if change is None:
            words, shown = asked_for(rng, bool(rng.random() < 0.5))
        else:
            instruction, shown = change
            words = user(rng, instruction)
        segments += [words, *with_sentence(shown)]
        seen.append(shown)
        written.append(shown)
    return tuple(segments), tuple(written)


def _question_about(rng: np.random.Generator, seen: list[Shown]) -> tuple[str, str]:
    """A question about one of the media of a chat, or about the last two, and its answer."""
    if len(seen) > 1 and rng.random() < 0.2:
        return in_both(rng, seen[-2].scene, seen[-1].scene)
    which = _some(rng, seen)
    shown, forms = seen[which], ["{}"]
    if which < len(seen) - 1:
        forms = ["in " + point + ", {}" for point in _names(seen, which)]
        if rng.random() < 0.4:
            forms = [point + ": {}" for point in _names(seen, which)]
            return pick(rng, forms).format(say(rng, "caption")), shown.caption
    asked, said = question(rng, shown.scene, shown.clip)
    return pick(rng, forms).format(asked), said


def _some(rng: np.random.Generator, seen: list[Shown]) -> int:
    """Which of a chat's media it goes on with: as often the last as one before."""
    return len(seen) - 1 if len(seen) == 1 or rng.random() < 0.5 else int(rng.integers(len(seen) - 1))


def _names(seen: list[Shown], which: int) -> list[str]:
    """What one of a chat's media may be called."""
    kind = "clip" if seen[which].clip else "picture"
    alike = [s for s in seen if s.clip == seen[which].clip]
    names = [f"the {ORDINALS[alike.index(seen[which])]} {kind}"]
    if len(seen) - which == 2:
        names += ["the one before", "the last but one"]
    if len(alike) == 1 and len(seen) > 1:
        names.append(f"the {kind}")
    return names


def _edit_earlier(rng: np.random.Generator, seen: list[Shown]) -> tuple[str, Shown] | None:
    """An instruction about one of the media of a chat, and what it leads to; None where nothing can be changed."""
    which = _some(rng, seen)
    shown = seen[which]
    if not shown.clip and rng.random() < 0.3:
        change = animate(rng, shown.scene)
        if change is not None:
            return _pointed(rng, change.instruction, seen, which), Shown(change.scene, True, before=shown.scene)
    change = find_edit(rng, shown.scene, shown.clip)
    if change is None:
        return None
    return _pointed(rng, change.instruction, seen, which), Shown(change.scene, shown.clip, before=shown.scene)


def _pointed(rng: np.random.Generator, words: str, seen: list[Shown], which: int) -> str:
    """An instruction with words on which of a chat's media it is about; the last one needs none."""
    alike, (point, *others) = [s for s in seen if s.clip == seen[which].clip], _names(seen, which)
    forms = [f"in {point}, {{}}", f"{{}} in {point}", f"{point}: {{}}", *(f"in {other}, {{}}" for other in others)]
    if which == len(seen) - 1:
        forms = ["{}", "{}", "{}", "now {}", "and now {}", "next, {}"]
    if len(seen[which].scene.solids) == 1 and " it " in f" {words} " and len(seen) == len(alike) > 1:
        one = f" {words} ".replace(" it ", f" the {ORDINALS[alike.index(seen[which])]} one ", 1).strip()
        forms += [one, f"now {one}"]
    return pick(rng, forms).format(words)


Writer = Callable[[np.random.Generator, bool], Lines]

TASKS: dict[str, tuple[Writer, bool]] = {
    "text to image": (write_medium, False),
    "text to video": (write_medium, True),
    "image to text": (describe, False),
    "video to text": (describe, True),
    "image question": (answer, False),
    "video question": (answer, True),
    "image edit": (edit, False),
    "video edit": (edit, True),
    "image to video": (image_to_video, True),
    "chat": (chat, True),
    "continuation": (continuation, True),
    "uniform motion": (uniform_motion, True),
    "story": (story, True),
    "text to shots": (write_shots, True),
    "shots to text": (describe_shots, True),
    "shots question": (answer_shots, True),
    "small talk": (small_talk, False),
    "missing in image": (missing, False),
    "missing in video": (missing, True),
    "other image": (no_scene, False),
    "other video": (no_scene, True),
    "graded image to text": (describe_graded, False),
    "graded video to text": (describe_graded, True),
    "foreign video to text": (describe_foreign, True),
}
"""For each task who writes it, and whether it is about clips. The foreign ones are in no mixture: they are to score."""

GROUPS: dict[str, tuple[str, ...]] = {
    "t2i": ("text to image",),
    "t2v": ("text to video",),
    "i2v": ("image to video",),
    "caption": ("image to text", "video to text"),
    "question": ("image question", "video question"),
    "edit": ("image edit", "video edit"),
    "shots": ("text to shots", "shots to text", "shots question"),
}
"""Short names for one task or two."""


def sample_lines(
    seed: int, task: str | None = None, mixture: str = "all", held_out: str = "", most: int = 4, notes: bool = False
) -> Lines:
    """Draw what a document of the world is made of, its pictures and clips yet to be drawn, with the scenes behind it.

    Args:
        seed: decides everything; >= 0.
        task: one of TASKS; drawn from the mixture where it is None.
        mixture: one of MIXTURES.
        held_out: "pairs" or "phrasings" for what training never sees; see `heldout`.
        most: solids that a scene has at most.
        notes: whether there are notes on the media that the user gives (see `notes`).
    """
    rng = Dice(seed, held_out, most)
    if task is None:
        shares = MIXTURES[mixture]
        task = str(rng.choice(list(shares), p=list(shares.values())))
    writer, clip = TASKS[task]
    lines = writer(rng, clip)
    return noted(lines, np.random.default_rng((seed, 1))) if notes else lines


def sample_example(
    seed: int, task: str | None = None, mixture: str = "all", held_out: str = "", most: int = 4
) -> Example:
    """Draw a document of the world with the scenes behind it; see `sample_lines`."""
    lines, shown = sample_lines(seed, task, mixture, held_out, most)
    return Example(drawn(lines), shown)


def sample_document(seed: int, task: str | None = None, mixture: str = "all", most: int = 4) -> Document:
    """Draw a document of the world; see `sample_lines`."""
    return drawn(sample_lines(seed, task, mixture, most=most)[0])


def drawn(lines: tuple[Line, ...]) -> Document:
    """A document with its pictures and clips."""
    return Document(tuple(line.drawn() if isinstance(line, Take) else line for line in lines))
