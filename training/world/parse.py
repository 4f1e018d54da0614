"""From words back to what they say: the other half of the ruler, beside `readout`, which reads pixels.

    parse("a small red ball bounces and a blue cube stands still, at night")     # the model's own words, or None
    Meaning(solids=(Said("ball", "red", "small", "bounce"), Said("cube", "blue", None, "still")), backdrop="night")
    hear("could you paint the sphere violet?")                                    # people's: all that it can mean
    [Heard("recolour", {"thing": Thing(None, "ball"), "colour": "purple"})]

Whole sentences only: one that holds anything else says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from mmcore.training.world.commands import COMMANDS, WRAPS
from mmcore.training.world.language import CUT, CUTS, FILMED, FORMS, OWN
from mmcore.training.world.meaning import ACROSS, DEEP, Meaning, Said, Thing
from mmcore.training.world.names import NAMES

Value = str | Thing | Said | Meaning


@dataclass(frozen=True)
class Heard:
    """One thing that somebody's words can mean.

    Args:
        kind: one of `language.FORMS`.
        slots: what fills its phrasing's slots.
    """

    kind: str
    slots: dict[str, Value]


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


OWN_NAMES = {slot: {own: value for value, own in table.items()} for slot, table in OWN.items()}
ALL_NAMES = {slot: {name: value for value, names in table.items() for name in names} for slot, table in NAMES.items()}


class Reader:
    """Reads descriptions that use given names.

    Args:
        names: for each slot what each name stands for.
        places_first: whether a place may also come first.
        relations: whether two solids may be told by where they stand.
        cuts: what tells of two shots.
    """

    def __init__(
        self, names: dict[str, dict[str, str]], places_first: bool, relations: bool, cuts: tuple[str, ...]
    ) -> None:
        self.names, self.relations = names, relations
        self.cuts = [re.compile(re.escape(cut).replace(r"\{\}", "(.+)")) for cut in cuts]
        any_of = {slot: _any_of(table) for slot, table in names.items()}
        colour = rf"(?:(?P<colour>{any_of['colour']}) )" + ("" if relations else "?")
        self.solid = re.compile(
            rf"an? (?:(?P<size>{any_of['size']}) )?{colour}(?P<shape>{any_of['shape']})"
            rf"(?: \((?P<spot>(?:{_any_of(ACROSS)}), (?:{_any_of(DEEP)}))\))?(?: (?P<does>{any_of['does']}))?"
        )
        filmed = _any_of(FILMED if relations else FILMED[:1])
        self.camera = re.compile(rf"(?P<scene>.+?)(?:{filmed})(?P<camera>{any_of['camera']})")
        self.style = re.compile(rf"(?P<scene>.+?),? (?P<style>{any_of['style']})")
        self.places = [re.compile(rf"(?P<scene>.+?),? (?P<place>{any_of['place']})")]
        if places_first:
            self.places.append(re.compile(rf"(?P<place>{any_of['place']}), (?P<scene>.+)"))

    def read(self, words: str) -> Meaning | None:
        """What a description says; None where it is none."""
        for cut in self.cuts:
            if found := cut.fullmatch(words):
                first, second = self.read_shot(found[1]), self.read_shot(found[2])
                if first and second:
                    return replace(first, then=second)
        return self.read_shot(words)

    def read_shot(self, words: str) -> Meaning | None:
        """What a description of one shot says; None where it is none."""
        styled = self.style.fullmatch(words)
        words = styled["scene"] if styled else words
        style = self.names["style"][styled["style"]] if styled else None
        camera = self.camera.fullmatch(words)
        words = camera["scene"] if camera else words
        filmed = self.names["camera"][camera["camera"]] if camera else None
        for form in self.places:
            if found := form.fullmatch(words):
                solids = self._solids(found["scene"])
                return Meaning(solids, self.names["place"][found["place"]], filmed, style) if solids else None
        solids = self._solids(words)
        return Meaning(solids, None, filmed, style) if solids else None

    def _solids(self, words: str) -> tuple[Said, ...] | None:
        if self.relations:
            words = (
                words.replace(", while ", " and ").replace(" to the left of ", " and ").replace(" next to ", " and ")
            )
            if " to the right of " in words:
                words = " and ".join(reversed(words.split(" to the right of ")))
        found = [self.one(part) for part in re.split("(?:, | and )(?=an? )", words)]
        return tuple(s for s in found if s) if all(found) else None

    def one(self, words: str) -> Said | None:
        """What is said of one solid."""
        said = self.solid.fullmatch(words)
        if said is None:
            return None
        size, does = said["size"], said["does"]
        return Said(
            self.names["shape"][said["shape"]],
            self.names["colour"][said["colour"]] if said["colour"] else None,
            self.names["size"][size] if size else None,
            self.names["does"][does] if does else None,
            said["spot"],
        )


OURS = Reader(OWN_NAMES, False, False, (f"{{}}{CUT}{{}}",))
PEOPLES = Reader(ALL_NAMES, True, True, CUTS)


def parse(words: str) -> Meaning | None:
    """What a description in the model's own words says; None where it is none.

    Args:
        words: as `language.tell` writes them.
    """
    return OURS.read(words)


THING = re.compile(
    rf"(?P<it>it)|the (?:(?P<colour>{_any_of(ALL_NAMES['colour'])}) )?(?P<shape>{_any_of(ALL_NAMES['shape'])}|one)"
)


def _thing(words: str) -> Thing | None:
    found = THING.fullmatch(words)
    if found is None or (found["shape"] == "one" and not found["colour"]):
        return None
    if found["it"]:
        return Thing()
    colour = ALL_NAMES["colour"][found["colour"]] if found["colour"] else None
    return Thing(colour, ALL_NAMES["shape"].get(found["shape"]))


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Every phrasing as a pattern whose groups are its slots."""
    patterns = []
    for kind, forms in FORMS.items():
        for form in dict.fromkeys(forms):
            for wrap in dict.fromkeys(WRAPS) if kind in COMMANDS else ("{}",):
                words, seen = _plain(wrap.format(form)), set()
                parts = re.split(r"\{(\w+)\}", words)
                for i, slot in enumerate(parts):
                    if i % 2 == 0:
                        parts[i] = re.escape(slot)
                    else:
                        parts[i] = f"(?P={slot})" if slot in seen else f"(?P<{slot}>{_slot(slot)})"
                        seen.add(slot)
                patterns.append((kind, re.compile("".join(parts))))
    return patterns


def _slot(slot: str) -> str:
    return _any_of(ALL_NAMES[slot]) if slot in ALL_NAMES else ".+"


def _plain(words: str) -> str:
    """Words without what makes no difference: capitals, a last stop, "an" for "a"."""
    return re.sub(r"\ban ", "a ", words.lower().strip().rstrip(".?:").strip())


def hear(words: str) -> list[Heard]:
    """All that somebody's words can mean; more than one where they are ambiguous.

    Args:
        words: as `language.say` and `language.casual` write them.
    """
    heard: list[Heard] = []
    for kind, pattern in _patterns():
        found = pattern.fullmatch(_plain(words))
        if found is None:
            continue
        slots = {slot: _value(slot, text) for slot, text in found.groupdict().items()}
        meant = Heard(kind, {slot: value for slot, value in slots.items() if value is not None})
        if len(meant.slots) == len(slots) and meant not in heard:
            heard.append(meant)
    return heard


def _value(slot: str, words: str) -> Value | None:
    if slot == "scene":
        return PEOPLES.read(words)
    if slot == "solid":
        return PEOPLES.one(words)
    if slot in ("thing", "other"):
        return _thing(words)
    return ALL_NAMES[slot][words]
