"""Scenes: a few lit solids on a ground plane, and what each does in the two seconds of a clip.

    scene = Scene((Solid("ball", "red", "large", x=0.6, z=0.2, motion="left"),), "gray room")

Axes: x to the right, y up, z away from the camera; the ground is y = 0. Units are arbitrary (a large ball has radius
0.55). Time runs over `s` in [0, 1], from the first frame of a clip to its last; a still is s = 0 of a scene at rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SHAPES = ("cube", "ball", "cone", "cylinder")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 38, 38),
    "orange": (245, 140, 30),
    "yellow": (240, 220, 50),
    "green": (45, 165, 60),
    "cyan": (60, 205, 215),
    "blue": (45, 80, 215),
    "purple": (130, 55, 175),
    "pink": (245, 150, 190),
}
"""sRGB, before light falls on it."""

SIZES = {"small": 0.32, "large": 0.55}
"""Radius of the ball; the other solids have half extents of about this size."""

BACKDROPS = ("gray room", "blue sky", "night", "green field")

STYLES = ("plain", "grayscale", "pixel art", "pencil sketch")
"""How a scene is drawn; see `styles`."""

COLOURLESS = ("grayscale", "pencil sketch")
"""Styles in which one sees no colours."""

SLIDES = {"left": (-1.4, 0.0), "right": (1.4, 0.0), "forward": (0.0, -1.4), "backward": (0.0, 1.4)}
"""How far (x, z) a slide goes in one clip, at a pace of 1. `forward` is towards the camera, `backward` away from it."""

ALONE = (
    "still",
    *SLIDES,
    "fly left",
    "fly right",
    "bounce",
    "spin",
    "grow",
    "shrink",
    "appear",
    "vanish",
)
"""What a solid does by itself."""

TOGETHER = ("orbit", "hit", "be hit")
"""What one of two solids does with the other."""

MOTIONS = (*ALONE, *TOGETHER)

SPINNING = ("cube", "cone")
"""Shapes that one sees spin."""

SHRUNK, GROWN = 0.45, 1.2
"""How large what grows is at a clip's beginning and end, relative to its size; what shrinks, the other way round."""

ROOM = (-1.3, 1.3), (-0.6, 1.3)
"""Where solids may be: x and z, from and to."""

EYE, EYE_HEIGHT = 5.2, 1.6
"""Where the camera is: so far from z = 0, and about so high."""

HEIGHTS = 1.4, 1.85
"""The lowest and the highest place of the camera."""

CAMERAS = ("still", "pan left", "pan right", "zoom in", "zoom out")
"""What the camera does in a clip."""


@dataclass(frozen=True)
class Solid:
    """One solid.

    Args:
        shape: one of SHAPES.
        colour: one of COLOURS.
        size: one of SIZES.
        x: place at s = 0, to the right.
        z: place at s = 0, away from the camera.
        motion: one of MOTIONS.
        pace: how fast a slide, or a ball that hits another, goes.
    """

    shape: str
    colour: str
    size: str
    x: float
    z: float
    motion: str = "still"
    pace: float = 1.0

    @property
    def name(self) -> str:
        """Colour and shape, which no two solids of a scene share."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Solids, from left to right at s = 0, before a backdrop.

    Args:
        solids: 1 to 4, no two of the same colour and shape.
        backdrop: one of BACKDROPS.
        light: direction that the light comes from, radians about the vertical; 0 is from the camera.
        gain: brightness of the light.
        height: of the camera above the ground.
        camera: one of CAMERAS.
        style: one of STYLES.
        then: the scene of a second shot, if there is one; a cut at half time leads to it.
    """

    solids: tuple[Solid, ...]
    backdrop: str
    light: float = 0.5
    gain: float = 1.0
    height: float = EYE_HEIGHT
    camera: str = "still"
    style: str = "plain"
    then: Scene | None = None

    @property
    def shots(self) -> tuple[Scene, ...]:
        """This scene, and that of the second shot."""
        return (self, *(self.then.shots if self.then else ()))

    def swap(self, i: int, solid: Solid) -> Scene:
        """The same scene with another solid in place i."""
        return replace(self, solids=(*self.solids[:i], solid, *self.solids[i + 1 :]))

    def without(self, i: int) -> Scene:
        """The same scene with solid i taken out."""
        return replace(self, solids=self.solids[:i] + self.solids[i + 1 :])

    @property
    def in_order(self) -> Scene:
        """The same scene, its solids from left to right."""
        return replace(self, solids=tuple(sorted(self.solids, key=lambda solid: solid.x)))

    @property
    def emptied(self) -> Scene:
        """The same scene without solids."""
        return replace(self, solids=(), then=self.then and self.then.emptied)

    def hurried(self, times: float) -> Scene:
        """The same scene, its slides so many times as fast."""
        return replace(self, solids=tuple(replace(s, pace=s.pace * times) for s in self.solids))

    @property
    def at_rest(self) -> Scene:
        """The same scene with nothing moving."""
        return replace(self, camera="still", solids=tuple(replace(s, motion="still", pace=1.0) for s in self.solids))
