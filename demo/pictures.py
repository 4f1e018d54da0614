"""The pictures of the README, made by the bundled model.

python -m mmcore.demo.pictures demo/pictures
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

import mmcore
from mmcore.document import Document, Image, Text, Video

SCALE, GAP, WIDTH = 2, 12, 760
"""Pixels for each pixel of a picture, between lines, and across the page."""

SHOWN = 5
"""Frames of a clip that are shown side by side."""

PAPER, USER, MODEL, INK = "#ffffff", "#dbe7fb", "#eeeeee", "#202020"


def enlarged(clip: Image | Video) -> Image | Video:
    """The same clip, each pixel SCALE times as large."""
    frames = clip.frames.repeat(SCALE * 2, 1).repeat(SCALE * 2, 2)
    return type(clip)(frames, clip.fps)


def filmstrip(medium: Image | Video) -> PILImage.Image:
    """A picture, or some frames of a clip side by side."""
    count = min(len(medium.frames), SHOWN)
    chosen = np.linspace(0, len(medium.frames) - 1, count).round().astype(int)
    row = np.concatenate(list(medium.frames[chosen]), 1)
    return PILImage.fromarray(row.repeat(SCALE, 0).repeat(SCALE, 1))


def bubble(segment: Text | Image | Video) -> PILImage.Image:
    """One segment of a conversation: the user's on the right, the model's on the left."""
    font = ImageFont.load_default(16)
    if isinstance(segment, Text):
        left, top, right, bottom = font.getbbox(segment.text)
        inside = PILImage.new("RGB", (int(right - left), int(bottom - top)), MODEL if segment.learn else USER)
        ImageDraw.Draw(inside).text((-left, -top), segment.text, INK, font)
    else:
        inside = filmstrip(segment)
    line = PILImage.new("RGB", (WIDTH, inside.height + 2 * GAP), PAPER)
    at = GAP if segment.learn else WIDTH - inside.width - 3 * GAP
    box = (at, GAP // 2, at + inside.width + 2 * GAP, inside.height + GAP + GAP // 2)
    ImageDraw.Draw(line).rounded_rectangle(box, GAP, MODEL if segment.learn else USER)
    line.paste(inside, (at + GAP, GAP))
    return line


def page(document: Document) -> PILImage.Image:
    """A conversation."""
    lines = [bubble(segment) for segment in document]
    made = PILImage.new("RGB", (WIDTH, sum(line.height for line in lines)), PAPER)
    y = 0
    for line in lines:
        made.paste(line, (0, y))
        y += line.height
    return made


def main(folder: Path) -> None:
    """Write red.gif, blue.gif and chat.png."""
    folder.mkdir(parents=True, exist_ok=True)
    model = mmcore.load()
    with tempfile.TemporaryDirectory() as place:
        clip = model.generate_video("a red ball slides to the left").save(Path(place) / "out.mp4")
        enlarged(Video.open(clip)).save(folder / "red.gif")
        enlarged(model.edit(clip, "make the ball blue")).save(folder / "blue.gif")
        still = model.generate_image("a large green cone at night").save(Path(place) / "cone.png")
        chat = model.chat()
        chat.send(clip, "what is this?")
        chat.send(still, "what do you see?")
        chat.send("in the clip, make the ball blue")
        chat.send("please draw a small yellow cube in a gray room")
        page(chat.document).save(folder / "chat.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
