"""What is said in the world: captions and answers in the model's own words, requests in the many words of people.

    caption(scene, clip=True)                        # canonical: one scene, one caption, so that it can be checked
    say(rng, "recolour", thing=thing, colour="red")  # one of many phrasings, with other names now and then

Solids are named from left to right as they stand at the beginning.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from mmcore.training.world.commands import COMMANDS, REQUESTS, WRAPS
from mmcore.training.world.heldout import split
from mmcore.training.world.meaning import Meaning, Said, Thing, meaning
from mmcore.training.world.names import NAMES, OTHER_NAME
from mmcore.training.world.queries import QUESTIONS
from mmcore.training.world.scene import Scene, Solid

FORMS = COMMANDS | REQUESTS | QUESTIONS

OWN = {slot: {value: names[0] for value, names in table.items()} for slot, table in NAMES.items()}
"""The names that the model itself uses."""


def pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    """One of several."""
    return options[int(rng.integers(len(options)))]


def name(rng: np.random.Generator | None, slot: str, value: str) -> str:
    """A name for a value: the model's own (rng None), or one that people use."""
    names = NAMES[slot][value]
    if rng is None or len(names) == 1 or rng.random() > OTHER_NAME:
        return names[0]
    return pick(rng, names[1:])


def listed(parts: list[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def noun(solid: Said, rng: np.random.Generator | None = None) -> str:
    """A solid as it is brought in: "a large red ball"."""
    parts = [("size", solid.size), ("colour", solid.colour), ("shape", solid.shape)]
    return article(" ".join(name(rng, slot, value) for slot, value in parts if value))


def clause(solid: Said, rng: np.random.Generator | None = None) -> str:
    """A solid with where it stands and what it does, if that is told."""
    where = f" ({solid.spot})" if solid.spot else ""
    return noun(solid, rng) + where + (f" {name(rng, 'does', solid.motion)}" if solid.motion else "")


FILMED = (" as the camera ", "; the camera ")
"""What comes before what the camera does; the first is the model's own."""

CUT = "; cut to "
"""What stands between two shots, in the model's own words."""

CUTS = ("{}; cut to {}", "first {}; then, after a cut, {}", "{}; and in a second shot {}")
"""How people tell of two shots."""


def tell(said: Meaning) -> str:
    """A scene in the model's own words."""
    return CUT.join(tell_shot(shot) for shot in said.shots)


def tell_shot(said: Meaning) -> str:
    """One shot in the model's own words."""
    words = listed([clause(solid) for solid in said.solids])
    if said.backdrop is not None:
        moving = any(solid.motion for solid in said.solids)
        words += ("," if moving else "") + f" {name(None, 'place', said.backdrop)}"
    words += f"{FILMED[0]}{name(None, 'camera', said.camera)}" if said.camera else ""
    return words + (f", {name(None, 'style', said.style)}" if said.style else "")


def caption(scene: Scene, clip: bool, sized: tuple[bool, ...] = (True,) * 4, placed: bool = True) -> str:
    """What there is to see, in the model's own words; arguments as in `meaning`."""
    return tell(meaning(scene, clip, sized, placed))


def describe(rng: np.random.Generator, said: Meaning) -> str:
    """A scene as people tell of it: shot by shot."""
    told = describe_shot(rng, said)
    return pick(rng, CUTS).format(told, describe(rng, said.then)) if said.then else told


def describe_shot(rng: np.random.Generator, said: Meaning) -> str:
    """A shot as people tell of it: other names, the place first or last, two solids by where they stand."""
    parts = [clause(solid, rng) for solid in said.solids]
    words = listed(parts)
    if len(parts) == 2:
        moving = any(solid.motion for solid in said.solids)
        forms = (
            ("{0}, while {1}",) if moving else ("{0} to the left of {1}", "{1} to the right of {0}", "{0} next to {1}")
        )
        if rng.random() < 0.25:
            words = pick(rng, forms).format(*parts)
    if said.backdrop is not None:
        place = name(rng, "place", said.backdrop)
        words = f"{place}, {words}" if rng.random() < 0.2 else f"{words}{pick(rng, (',', ''))} {place}"
    words += pick(rng, FILMED) + name(rng, "camera", said.camera) if said.camera else ""
    return words + (f"{pick(rng, (',', ''))} {name(rng, 'style', said.style)}" if said.style else "")


def refer(rng: np.random.Generator, thing: Thing) -> str:
    """A solid as people refer to it."""
    if thing == Thing():
        return "it"
    colour = f"{name(rng, 'colour', thing.colour)} " if thing.colour else ""
    return f"the {colour}{name(rng, 'shape', thing.shape) if thing.shape else 'one'}"


def say(rng: np.random.Generator, kind: str, **slots: str | Thing | Said | Meaning) -> str:
    """A request, a command or a question, in one of its phrasings.

    Args:
        rng: decides which; see `heldout` for those that it may not use.
        kind: one of FORMS.
        slots: what the phrasing's slots stand for: values of NAMES, and solids, things and scenes by their meaning.
    """
    filled: dict[str, str] = {}
    for slot, value in slots.items():
        if isinstance(value, Thing):
            filled[slot] = refer(rng, value)
        elif isinstance(value, Said):
            filled[slot] = noun(value, rng)
        elif isinstance(value, Meaning):
            filled[slot] = describe(rng, value)
        else:
            filled[slot] = name(rng, slot, value)
    form = pick(rng, split(rng, FORMS[kind]))
    if kind in COMMANDS:
        form = pick(rng, split(rng, WRAPS)).format(form)
    return re.sub(r"\ba (?=[aeiou])", "an ", form.format(**filled))


def casual(rng: np.random.Generator, words: str) -> str:
    """The same words as people type them: now and then capitals, a full stop more or less."""
    if rng.random() < 0.2:
        words = words[0].upper() + words[1:]
    elif rng.random() < 0.02:
        words = words.upper()
    if rng.random() < 0.2:
        words = words.rstrip(".") if words.endswith(".") else words if words.endswith(("?", ":")) else words + "."
    return words


def things(scene: Scene, i: int) -> list[Thing]:
    """The ways to refer to solid i that mean no other: "the ball", "the red one", "the red ball"."""
    solid = scene.solids[i]
    found = [Thing(solid.colour, solid.shape)]
    if Counter(s.shape for s in scene.solids)[solid.shape] == 1:
        found += [Thing(None, solid.shape)] * 2
    if Counter(s.colour for s in scene.solids)[solid.colour] == 1:
        found.append(Thing(solid.colour))
    return found


def some_thing(rng: np.random.Generator, scene: Scene, i: int, it: bool = True) -> Thing:
    """One way to refer to solid i; "it" now and then, where there is nothing else and `it` allows it."""
    if it and len(scene.solids) == 1 and rng.random() < 0.4:
        return Thing()
    found = things(scene, i)
    return found[int(rng.integers(len(found)))]


def definite(solid: Solid) -> str:
    """A solid of a scene in the model's own words: "the red ball"."""
    return f"the {solid.name}"
