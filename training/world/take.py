"""Takes: pictures and clips of scenes that are yet to be drawn, so that a document is first what it says and shows.

take = Take(scene, clip=True)
take.drawn()                         # a Video, by NumPy; `device` draws many at once
"""

from __future__ import annotations

from dataclasses import dataclass

from mmcore.document import Image, Video
from mmcore.training.world.render import render
from mmcore.training.world.scene import Scene
from mmcore.training.world.studio import OWN, Studio
from mmcore.training.world.wear import Wear, worn

FRAMES, FPS, SIZE = 16, 8.0, (64, 64)


@dataclass(frozen=True)
class Take:
    """A picture or a clip of a scene.

    Args:
        scene: what is to be seen.
        clip: whether its motions are to be seen.
        learn: whether the model is to write it.
        frames: which of a clip's frames; a picture has the first one.
        wear: what was done to it since it was drawn.
        studio: by which camera and light it is drawn.
    """

    scene: Scene
    clip: bool
    learn: bool = False
    frames: range = range(FRAMES)
    wear: Wear | None = None
    studio: Studio = OWN

    def drawn(self) -> Image | Video:
        """As a medium."""
        frames = render(self.scene, FRAMES if self.clip else 1, SIZE, self.studio)
        taken = frames[self.frames.start : self.frames.stop]
        return (Video if self.clip else Image)(worn(taken, self.wear), FPS, self.learn)
