"""The words of the world: captions, prompts, questions with their answers, instructions.

Captions are canonical: one scene, one caption, so that what is said can be checked. What people ask is varied.
Solids are always named from left to right as they stand at the beginning.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from mmcore.training.world.scene import COLOURS, SHAPES, Scene, Solid

DOES = {
    "still": "stands still",
    "left": "slides to the left",
    "right": "slides to the right",
    "forward": "slides forward",
    "backward": "slides backward",
    "bounce": "bounces",
    "grow": "grows",
    "shrink": "shrinks",
    "appear": "appears",
    "vanish": "vanishes",
}
"""Each motion as a caption says it."""

DO = {
    "still": ("stand still", "stop"),
    "left": ("slide to the left", "go left"),
    "right": ("slide to the right", "go right"),
    "forward": ("slide forward", "come closer"),
    "backward": ("slide backward", "go away"),
    "bounce": ("bounce", "bounce up and down"),
    "grow": ("grow", "get bigger"),
    "shrink": ("shrink", "get smaller"),
    "appear": ("appear",),
    "vanish": ("vanish", "disappear"),
}
"""Each motion as one asks for it."""

PLACES = {
    "gray room": "in a gray room",
    "blue sky": "under a blue sky",
    "night": "at night",
    "green field": "in a green field",
}

NUMBERS = ("zero", "one", "two", "three")


def pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    """One of several phrasings."""
    return options[int(rng.integers(len(options)))]


def listed(parts: list[str]) -> str:
    """ "a, b and c"."""
    if not parts:
        return "nothing"
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def noun(solid: Solid, sized: bool = True) -> str:
    """A solid as it is first named: "a large red ball"."""
    sized = sized and solid.motion not in ("grow", "shrink")
    return article(f"{solid.size} {solid.name}" if sized else solid.name)


def caption(scene: Scene, clip: bool, sized: tuple[bool, ...] = (True,) * 3, placed: bool = True) -> str:
    """What there is to see.

    Args:
        scene: what is shown.
        clip: whether it is seen as a clip, so that motions are told.
        sized: for each solid, whether its size is told.
        placed: whether the backdrop is told.
    """
    nouns = [noun(s, told) for s, told in zip(scene.solids, sized, strict=False)]
    if clip:
        parts = [f"{n} {DOES[s.motion]}" for n, s in zip(nouns, scene.solids, strict=True)]
        return listed(parts) + (f", {PLACES[scene.backdrop]}" if placed else "")
    return listed(nouns) + (f" {PLACES[scene.backdrop]}" if placed else "")


def request(rng: np.random.Generator, said: str, clip: bool, polite: bool) -> str:
    """Ask for a picture or a clip by what is to be seen. Who asks politely gets a sentence with it."""
    if clip and polite:
        forms = ("please film this: {}", "can you make a clip in which {}?", "i would like to see how {}")
    elif clip:
        forms = ("{}", "{}", "film how {}", "a clip in which {}", "make a video: {}")
    elif polite:
        forms = ("please draw {}", "can you draw {}?", "i would like a picture of {}")
    else:
        forms = ("{}", "{}", "draw {}", "a picture of {}", "make an image of {}")
    return pick(rng, forms).format(said)


def ask_caption(rng: np.random.Generator) -> str:
    """Ask what there is to see."""
    return pick(rng, ("what is this?", "describe this.", "what do you see?", "what happens here?", "caption:"))


def references(scene: Scene, i: int) -> list[str]:
    """The ways to name solid i that mean no other: "ball", "red one", "red ball"."""
    solid = scene.solids[i]
    shapes = Counter(s.shape for s in scene.solids)
    colours = Counter(s.colour for s in scene.solids)
    names = [solid.name]
    if shapes[solid.shape] == 1:
        names += [solid.shape, solid.shape]
    if colours[solid.colour] == 1:
        names.append(f"{solid.colour} one")
    return names


def refer(rng: np.random.Generator, scene: Scene, i: int) -> str:
    """Name solid i: "the ball", or "it" where there is nothing else."""
    if len(scene.solids) == 1 and rng.random() < 0.4:
        return "it"
    return "the " + pick(rng, references(scene, i))


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def question(rng: np.random.Generator, scene: Scene, clip: bool) -> tuple[str, str]:
    """A question about a scene and its answer."""
    kinds = ["count", "count shape", "colour", "shape", "exists", "place", "left", "size"]
    if clip:
        kinds += ["what moves", "what moves", "does", "does", "which does"]
    while True:
        answered = _question(rng, scene, pick(rng, kinds))
        if answered is not None:
            return answered


def _question(rng: np.random.Generator, scene: Scene, kind: str) -> tuple[str, str] | None:
    """One kind of question; None where it cannot be asked of this scene."""
    solids = scene.solids
    i = int(rng.integers(len(solids)))
    solid = solids[i]
    if kind == "count":
        return pick(rng, ("how many objects are there?", "how many things do you see?")), NUMBERS[len(solids)]
    if kind == "count shape":
        shape = pick(rng, (solid.shape, pick(rng, SHAPES)))
        return f"how many {shape}s are there?", NUMBERS[sum(s.shape == shape for s in solids)]
    if kind == "colour":
        names = [n for n in references(scene, i) if n == solid.shape]
        return (f"what colour is the {names[0]}?", solid.colour) if names else None
    if kind == "shape":
        names = [n for n in references(scene, i) if n == f"{solid.colour} one"]
        return (f"what is the {names[0]}?", article(solid.shape)) if names else None
    if kind == "exists":
        name = solid.name if rng.random() < 0.5 else f"{pick(rng, tuple(COLOURS))} {pick(rng, SHAPES)}"
        return f"is there {article(name)}?", _yes(any(s.name == name for s in solids))
    if kind == "place":
        return pick(rng, ("where is this?", "what is the background?")), PLACES[scene.backdrop]
    if kind == "size":
        if solid.motion in ("grow", "shrink"):
            return None
        return f"is the {pick(rng, references(scene, i))} small or large?", solid.size
    if kind == "left":
        if len(solids) == 1:
            return None
        j = (i + 1 + int(rng.integers(len(solids) - 1))) % len(solids)
        side = pick(rng, ("left", "right"))
        a, b = pick(rng, references(scene, i)), pick(rng, references(scene, j))
        return f"is the {a} to the {side} of the {b}?", _yes((i < j) == (side == "left"))
    if kind == "what moves":
        movers = [f"the {s.name}" for s in solids if s.motion != "still"]
        return "what moves?", listed(movers) if movers else "nothing moves"
    if kind == "which does":
        doers = [f"the {s.name}" for s in solids if s.motion == solid.motion]
        return f"what {DOES[solid.motion]}?", listed(doers)
    assert kind == "does", kind
    return f"what does the {pick(rng, references(scene, i))} do?", f"it {DOES[solid.motion]}"


def casual(rng: np.random.Generator, words: str) -> str:
    """The same words as people type them: now and then a capital letter, a full stop more or less."""
    if rng.random() < 0.2:
        words = words[0].upper() + words[1:]
    if rng.random() < 0.2:
        words = words.rstrip(".") if words.endswith(".") else words if words.endswith(("?", ":")) else words + "."
    return words
