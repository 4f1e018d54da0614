"""A conversation as HTML: bubbles, media that play, a medium that sharpens, and buttons that say what they do.

    page = Look("en").talk(session, starts)

A button carries `data-do` and `data-number`; `page.js` reports a click on it. Everything that people or the model wrote
is escaped. The markup of what is finished never changes, so that clips play on while the rest is written.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image as PILImage

from mmcore.demo.session import Session
from mmcore.demo.turns import Shown, Turn
from mmcore.demo.uploads import MAX_BYTES, MAX_MEDIA, MAX_SECONDS
from mmcore.demo.words import LANGUAGES
from mmcore.document import Image, Text, Video


class Look:
    """How a conversation looks in one language.

    Args:
        language: one of words.LANGUAGES.
    """

    def __init__(self, language: str) -> None:
        self.language, self.say = language, LANGUAGES[language]

    def talk(self, session: Session, starts: Sequence[Sequence[Text | Shown]]) -> str:
        """The whole conversation; what one may begin with where there is none yet."""
        turns = "".join(self.turn(turn, turn is session.turns[-1]) for turn in session.turns)
        label = escape(self.say["talk"])
        log = (
            f'<div class="talk" role="log" aria-live="polite" aria-label="{label}" lang="{self.language}">{turns}</div>'
        )
        return log if session.turns else log + self.starts(starts)

    def turn(self, turn: Turn, last: bool) -> str:
        """A message and its reply."""
        asked = "".join(self.part(part) for part in turn.asked)
        media = [part for part in turn.asked if isinstance(part, Shown)]
        source = media[0] if len(media) == 1 else None
        said = "".join(self.reply_part(part, source, turn.seed) for part in turn.said)
        if turn.words:
            said += f"<p>{escape(turn.words)}</p>"
        if turn.sketch is not None and turn.sketch.preview is not None:
            said += self.sketch(turn.sketch.preview, turn.sketch.step, turn.sketch.steps)
        elif turn.writing and not turn.words:
            said += f'<p class="waiting">{self.say["waiting"]}</p>'
        if turn.note:
            said += f'<p class="note">{escape(self.say.get(turn.note, turn.note))}</p>'
        if last and not turn.writing:
            names = (() if turn.refused else ("again",)) + ("change", "undo")
            said += f'<div class="actions">{"".join(self.button(name) for name in names)}</div>'
        return self.bubble("you", asked) + self.bubble("model", said)

    def bubble(self, who: str, inside: str) -> str:
        """What one of the two said."""
        return f'<article class="{who}" aria-label="{self.say[who]}">{inside}</article>' if inside else ""

    def part(self, part: Text | Shown) -> str:
        """A finished segment."""
        return self.figure(part) if isinstance(part, Shown) else f"<p>{escape(part.text)}</p>"

    def reply_part(self, part: Text | Shown, source: Shown | None, seed: int) -> str:
        """A finished segment of a reply; an edit stands beside what it was made from, both playing in step."""
        if isinstance(part, Text):
            return self.part(part)
        fact = f"{self.say['seed']} {seed}"
        if source is None or type(source.medium) is not type(part.medium):
            return self.figure(part, fact)
        before = f"<figure>{self.picture(source)}<figcaption>{self.say['before']}</figcaption></figure>"
        return f'<div class="pair">{before}{self.figure(part, fact, self.say["after"])}</div>'

    def figure(self, shown: Shown, fact: str = "", title: str = "") -> str:
        """A medium with what it is and what can be done with it."""
        count = len(shown.medium.frames)
        facts = [title or self.name(shown), f"{count} {self.say['frames']}" if count > 1 else "", fact]
        link = f'<a href="{url(shown.file)}" download="{shown.file.name}">{self.say["download"]}</a>'
        about = f"{self.say['strip']}: {self.name(shown)}"
        strip = (
            f"<details><summary>{self.say['strip']}</summary>"
            f'<div class="strip" tabindex="0" role="region" aria-label="{about}">'
            f'<img src="{url(shown.strip)}" alt="{about}" loading="lazy"></div></details>'
        )
        return (
            f"<figure>{self.picture(shown)}<figcaption>{' · '.join(f for f in facts if f)}<br>"
            f"{self.button('edit', shown.number)} {link}</figcaption>{strip if count > 1 else ''}</figure>"
        )

    def picture(self, shown: Shown) -> str:
        """A still, or a clip that plays and loops."""
        if isinstance(shown.medium, Image):
            return f'<img class="medium" src="{url(shown.file)}" alt="{self.name(shown)}">'
        return (
            f'<video class="medium" src="{url(shown.file)}" aria-label="{self.name(shown)}" autoplay loop muted '
            'playsinline controls controlslist="nodownload nofullscreen noremoteplayback noplaybackrate" '
            "disablepictureinpicture></video>"
        )

    def sketch(self, preview: Image | Video, step: int, steps: int) -> str:
        """A medium that is being written, as it looks after a step."""
        told = self.say["step"].format(step, steps)
        return (
            f'<figure class="sketch"><img class="medium" src="{animated(preview)}" alt="">'
            f'<figcaption><progress max="{steps}" value="{step}" aria-label="{told}"></progress> {told}</figcaption>'
            "</figure>"
        )

    def starts(self, starts: Sequence[Sequence[Text | Shown]]) -> str:
        """What one may begin with, as cards."""
        cards = "".join(
            f'<button type="button" class="start" data-do="start" data-number="{i}">'
            + "".join(
                f"<span>{escape(part.text)}</span>" if isinstance(part, Text) else thumbnail(part) for part in parts
            )
            + "</button>"
            for i, parts in enumerate(starts)
        )
        return f'<p class="lead">{self.say["start"]}</p><div class="starts">{cards}</div>' if cards else ""

    def subject(self, shown: Shown | None) -> str:
        """The medium that the next message is about."""
        if shown is None:
            return ""
        return (
            f'<div class="subject">{thumbnail(shown)}<span>{self.say["about"]} {self.name(shown)}</span>'
            f"{self.button('drop')}</div>"
        )

    def head(self) -> str:
        """The title of the page, and what there is to know about the model."""
        limits = self.say["limits"].format(mb=MAX_BYTES // 2**20, seconds=MAX_SECONDS, media=MAX_MEDIA)
        return (
            f'<header lang="{self.language}"><h1>mmcore</h1><p>{self.say["lead"]}</p>'
            f"<details><summary>{self.say['knows']}</summary><p>{self.say['note']}</p><p>{limits}</p></details></header>"
        )

    def name(self, shown: Shown) -> str:
        """ "Clip 3"."""
        return f"{self.say['picture' if isinstance(shown.medium, Image) else 'clip']} {shown.number}"

    def button(self, name: str, number: int = 0) -> str:
        """A button that `page.js` reports."""
        return f'<button type="button" data-do="{name}" data-number="{number}">{self.say[name]}</button>'


def url(path: object) -> str:
    """Where a file is served."""
    return f"gradio_api/file={escape(str(path))}"


def thumbnail(shown: Shown) -> str:
    """A small picture of a medium, that says nothing to a screen reader."""
    if isinstance(shown.medium, Image):
        return f'<img src="{url(shown.file)}" alt="">'
    return f'<video src="{url(shown.file)}" autoplay loop muted playsinline tabindex="-1" aria-hidden="true"></video>'


def animated(medium: Image | Video) -> str:
    """A medium as the address of a small WebP picture, that moves if it has frames."""
    first, *rest = [PILImage.fromarray(frame) for frame in medium.frames]
    file = BytesIO()
    milliseconds = round(1000 / medium.fps)
    first.save(file, "webp", save_all=True, append_images=rest, duration=milliseconds, loop=0, quality=70, method=0)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
