"""The pictures of the README, made by the bundled model.

python -m mmcore.demo.pictures demo/pictures
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mmcore
from mmcore.decoders.page import page
from mmcore.document import Image, Video

SCALE = 4
"""Pixels across for each pixel of a clip."""


def enlarged(clip: Image | Video) -> Image | Video:
    """The same clip, larger."""
    return type(clip)(clip.frames.repeat(SCALE, 1).repeat(SCALE, 2), clip.fps)


def main(folder: Path) -> None:
    """Write red.gif, blue.gif and chat.png."""
    folder.mkdir(parents=True, exist_ok=True)
    model = mmcore.load()
    with tempfile.TemporaryDirectory() as place:
        clip = model.generate_video("a red ball slides to the left").save(Path(place) / "out.mp4")
        enlarged(Video.open(clip)).save(folder / "red.gif")
        enlarged(model.edit(clip, "make the ball blue")).save(folder / "blue.gif")
        still = model.generate_image("a large green cone in a gray room").save(Path(place) / "cone.png")
        chat = model.chat()
        chat.send(clip, "what is this?")
        chat.send(still, "what do you see?")
        chat.send("in the clip, make the ball blue")
        chat.send("please draw a small yellow cube in a gray room")
        page(chat.document).save(folder / "chat.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
