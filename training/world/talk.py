"""Tasks that are answered in plain words: small talk, what is not there, and what is no scene of solids."""

from __future__ import annotations

import numpy as np

from mmcore.document import Image, Text, Video
from mmcore.training.world.edits import sample_edit
from mmcore.training.world.heldout import split
from mmcore.training.world.language import pick, say
from mmcore.training.world.meaning import Thing
from mmcore.training.world.others import sample_other
from mmcore.training.world.scene import COLOURS, SHAPES
from mmcore.training.world.shown import Lines, draw, given_with, user
from mmcore.training.world.take import FPS, FRAMES, SIZE

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("who are you?", "what are you?", "what is your name?", "are you a person?", "tell me about yourself."),
        "i am mmcore, a small model that reads and writes words, pictures and clips",
    ),
    (
        ("what can you do?", "how can you help me?", "what are you good at?", "help", "what can i ask you?"),
        "i can draw, film, describe and edit scenes of solids: cubes, balls, cones and cylinders in eight colours",
    ),
    (("hello", "hi", "hello there", "good morning", "hey"), "hello, what shall i draw or film?"),
    (("thank you", "thanks", "thank you very much", "great, thanks", "well done"), "you are welcome"),
    (("goodbye", "bye", "see you", "good night", "that was all"), "goodbye"),
    (
        ("which colours do you know?", "what colours are there?", "name your colours.", "which colours can i use?"),
        "i know " + ", ".join(COLOURS),
    ),
    (
        ("which shapes do you know?", "what shapes are there?", "name your shapes.", "which shapes can i use?"),
        "i know " + ", ".join(SHAPES),
    ),
    (
        ("tell me a joke.", "how is the weather?", "what is 2 + 2?", "who won the match?", "write a poem."),
        "i do not know: i only know scenes of solids",
    ),
)
"""What people say to whoever answers, and what it says."""


def small_talk(rng: np.random.Generator, _: bool) -> Lines:
    """One or two exchanges that are about no picture."""
    segments: list[Text] = []
    for _turn in range(int(rng.integers(1, 3))):
        asked, said = SMALL_TALK[int(rng.integers(len(SMALL_TALK)))]
        segments += [user(rng, pick(rng, split(rng, asked))), Text(said, True)]
    return tuple(segments), ()


def missing(rng: np.random.Generator, clip: bool) -> Lines:
    """An edit of a solid that is not there: the answer says so."""
    shown = draw(rng, clip)
    there = {solid.name for solid in shown.scene.solids}
    shapes = {solid.shape for solid in shown.scene.solids}
    while True:
        colour, shape = pick(rng, tuple(COLOURS)), pick(rng, SHAPES)
        name, thing = f"{colour} {shape}", Thing(colour, shape)
        if rng.random() < 0.5:
            name, thing = shape, Thing(None, shape)
        if name not in there and (name != shape or shape not in shapes):
            break
    asked = say(rng, "recolour", thing=thing, colour=pick(rng, tuple(COLOURS)))
    if rng.random() < 0.4:
        asked = say(rng, "remove", thing=thing)
    return (*given_with(rng, shown.given(rng), asked), Text(f"there is no {name}", True)), ()


def no_scene(rng: np.random.Generator, clip: bool) -> Lines:
    """A picture or a clip of something else, with a question or an edit: the answer says what it is."""
    name, frames = sample_other(rng, FRAMES if clip else 1, SIZE)
    asked = say(rng, "caption")
    if rng.random() < 0.4:
        asked = sample_edit(rng, draw(rng, clip).scene, clip).instruction
    medium = (Video if clip else Image)(frames, FPS)
    return (*given_with(rng, medium, asked), Text(f"this is no scene of solids: it shows {name}", True)), ()
