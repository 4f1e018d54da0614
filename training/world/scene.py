"""Scenes: a few lit solids on a ground plane, and what each does in the two seconds of a clip.

    scene = sample_scene(np.random.default_rng(0), moving=True)

Axes: x to the right, y up, z away from the camera; the ground is y = 0. Units are arbitrary (a large ball has radius
0.55). Time runs over `s` in [0, 1], from the first frame of a clip to its last; a still is s = 0 of a scene at rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

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

MOTIONS = (
    "still",
    "left",
    "right",
    "forward",
    "backward",
    "bounce",
    "grow",
    "shrink",
    "appear",
    "vanish",
)
"""What a solid does. `forward` is towards the camera, `backward` away from it."""

SLIDES = {"left": (-1.4, 0.0), "right": (1.4, 0.0), "forward": (0.0, -1.4), "backward": (0.0, 1.4)}
"""How far (x, z) a slide goes in one clip."""

SHRUNK, GROWN = 0.45, 1.2
"""How large what grows is at a clip's beginning and end, relative to its size; what shrinks, the other way round."""

ROOM = (-1.3, 1.3), (-0.6, 1.3)
"""Where solids may be: x and z, from and to."""

GAP = 0.12
"""The least room between two solids."""

EYE = 5.2
"""Distance of the camera from z = 0, along z."""


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
    """

    shape: str
    colour: str
    size: str
    x: float
    z: float
    motion: str = "still"

    @property
    def name(self) -> str:
        """Colour and shape, which no two solids of a scene share."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Solids, from left to right at s = 0, before a backdrop.

    Args:
        solids: 1 to 3, no two of the same colour and shape.
        backdrop: one of BACKDROPS.
        light: direction that the light comes from, radians about the vertical; 0 is from the camera.
        gain: brightness of the light.
    """

    solids: tuple[Solid, ...]
    backdrop: str
    light: float = 0.5
    gain: float = 1.0

    def swap(self, i: int, solid: Solid) -> Scene:
        """The same scene with another solid in place i."""
        return replace(self, solids=(*self.solids[:i], solid, *self.solids[i + 1 :]))

    def without(self, i: int) -> Scene:
        """The same scene with solid i taken out."""
        return replace(self, solids=self.solids[:i] + self.solids[i + 1 :])

    @property
    def at_rest(self) -> Scene:
        """The same scene with nothing moving."""
        return replace(self, solids=tuple(replace(s, motion="still") for s in self.solids))


@dataclass(frozen=True)
class Path:
    """Where a solid is: arrays over (T,) moments.

    Args:
        x: centre, to the right.
        y: height of the base above the ground.
        z: centre, away from the camera.
        scale: size relative to the solid's own; 0 when it is not there.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    scale: np.ndarray


def path(solid: Solid, s: np.ndarray) -> Path:
    """Where a solid is at moments s (T,) in [0, 1]."""
    rest = np.zeros_like(s)
    x, y, z, scale = solid.x + rest, rest, solid.z + rest, 1 + rest
    match solid.motion:
        case "left" | "right" | "forward" | "backward":
            dx, dz = SLIDES[solid.motion]
            x, z = x + dx * s, z + dz * s
        case "bounce":
            y = 0.8 * np.abs(np.sin(2 * np.pi * s))
        case "grow":
            scale = SHRUNK + (GROWN - SHRUNK) * s
        case "shrink":
            scale = GROWN - (GROWN - SHRUNK) * s
        case "appear":
            scale = (s > 0.5).astype(float)
        case "vanish":
            scale = (s < 0.5).astype(float)
    return Path(x, y, z, scale)


def moments(frames: int) -> np.ndarray:
    """The moments s of a clip's frames, (T,)."""
    return np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)


CHECKED = np.linspace(0, 1, 5)
"""Moments at which places are checked."""


def fits(scene: Scene) -> bool:
    """Whether every solid stays in the room, apart from the others and not hidden by them.

    Room is kept for every solid at its full size and at any moment of its motion.
    """
    (left, right), (near, far) = ROOM
    paths = [path(solid, CHECKED) for solid in scene.solids]
    for p in paths:
        if p.x.min() < left or p.x.max() > right or p.z.min() < near or p.z.max() > far:
            return False
    for i, a in enumerate(scene.solids):
        for j in range(i):
            b = scene.solids[j]
            pa, pb, reach = paths[i], paths[j], SIZES[a.size] + SIZES[b.size]
            if (np.hypot(pa.x - pb.x, pa.z - pb.z) < 1.15 * reach + GAP).any():
                return False
            seen_a, seen_b = pa.x / (EYE + pa.z), pb.x / (EYE + pb.z)
            if (np.abs(seen_a - seen_b) < 0.7 * reach / EYE).any():
                return False
    return True
