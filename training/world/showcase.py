"""What people may begin with: one request for each thing that the model can do.

    for document in showcase():
        print(document.text, document.media)

A medium with `learn=True` is not a part of the request: it shows what sort of thing may come.
"""

from __future__ import annotations

from mmcore.document import Document, Image, Text, Video
from mmcore.training.world.render import render
from mmcore.training.world.scene import Scene, Solid
from mmcore.training.world.take import FPS, FRAMES, SIZE


def showcase() -> tuple[Document, ...]:
    """Requests that draw, film, describe, answer, edit and set in motion."""
    ball = Scene((Solid("ball", "red", "large", 0.6, 0.2, "left"),), "gray room")
    cube = Scene((Solid("cube", "blue", "large", -0.4, 0.1),), "gray room")
    cone = Scene((Solid("cone", "green", "large", 0.2, 0.0),), "night")
    tower = Scene((Solid("cylinder", "green", "large", 0.0, 0.2, "bounce"),), "night")
    return (
        Document((filmed(ball, learn=True), Text("film how a red ball slides to the left"))),
        Document((drawn(cone, learn=True), Text("draw a large green cone at night"))),
        Document((filmed(ball), Text("what is this?"))),
        Document((filmed(tower), Text("what moves?"))),
        Document((filmed(ball), Text("make the ball blue"))),
        Document((drawn(cube), Text("make the cube bounce"))),
    )


def drawn(scene: Scene, learn: bool = False) -> Image:
    """A picture of a scene."""
    return Image(render(scene, 1, SIZE), FPS, learn)


def filmed(scene: Scene, learn: bool = False) -> Video:
    """A clip of a scene."""
    return Video(render(scene, FRAMES, SIZE), FPS, learn)
