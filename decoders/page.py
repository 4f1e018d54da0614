"""Documents as pictures: a conversation in bubbles, the user's on the right and the model's on the left.

    page(document).save("chat.png")
    sheet([page(a, "right"), page(b, "wrong")], columns=2).save("sheet.png")

A clip is shown as a row of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from mmcore.document import Document, Image, Text, Video

SCALE = 2
"""Pixels across for each pixel of a medium."""

WIDTH, GAP, SHOWN, CHARACTERS = 760, 12, 5, 80
"""Of a page in pixels; around things; frames that are shown of a clip; characters in a line of words."""

PAPER, USER, MODEL, INK = "#ffffff", "#dbe7fb", "#eeeeee", "#202020"


def filmstrip(medium: Image | Video) -> PILImage.Image:
    """A picture, or some frames of a clip side by side."""
    count = min(len(medium.frames), SHOWN)
    chosen = np.linspace(0, len(medium.frames) - 1, count).round().astype(int)
    row = np.concatenate(list(medium.frames[chosen]), 1)
    return PILImage.fromarray(row.repeat(SCALE, 0).repeat(SCALE, 1))


def words(text: str, paper: str) -> PILImage.Image:
    """Words on a coloured ground, in lines."""
    font = ImageFont.load_default(16)
    lines = "\n".join(wrap(text, CHARACTERS) or [" "])
    left, top, right, bottom = ImageDraw.Draw(PILImage.new("RGB", (1, 1))).multiline_textbbox((0, 0), lines, font)
    inside = PILImage.new("RGB", (int(right - left) + 1, int(bottom - top) + 1), paper)
    ImageDraw.Draw(inside).multiline_text((-left, -top), lines, INK, font)
    return inside


def bubble(segment: Text | Image | Video) -> PILImage.Image:
    """One segment, across the page."""
    paper = MODEL if segment.learn else USER
    inside = words(segment.text, paper) if isinstance(segment, Text) else filmstrip(segment)
    line = PILImage.new("RGB", (WIDTH, inside.height + 2 * GAP), PAPER)
    at = GAP if segment.learn else WIDTH - inside.width - 3 * GAP
    box = (at, GAP // 2, at + inside.width + 2 * GAP, inside.height + GAP + GAP // 2)
    ImageDraw.Draw(line).rounded_rectangle(box, GAP, paper)
    line.paste(inside, (at + GAP, GAP))
    return line


def page(document: Document, title: str = "") -> PILImage.Image:
    """A document, from top to bottom.

    Args:
        document: what was said and shown; `learn` says by whom.
        title: a line above it.
    """
    lines = [bubble(segment) for segment in document]
    return sheet([*([words(title, PAPER)] if title else []), *lines], columns=1)


def sheet(pictures: Sequence[PILImage.Image], columns: int) -> PILImage.Image:
    """Pictures in columns, each put below the one that is shortest so far."""
    heights = [0] * columns
    places: list[tuple[int, int]] = []
    width = max((picture.width for picture in pictures), default=1)
    for picture in pictures:
        column = heights.index(min(heights))
        places.append((column * (width + GAP), heights[column]))
        heights[column] += picture.height + (GAP if columns > 1 else 0)
    made = PILImage.new("RGB", (columns * (width + GAP) - GAP, max(*heights, 1)), PAPER)
    for picture, place in zip(pictures, places, strict=True):
        made.paste(picture, place)
    return made
