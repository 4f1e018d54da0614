"""Clips of such scenes as another program would draw them: only to score with, never to train on.

    frames = filmed(scene, 16, (64, 64), another_camera(rng))        # (16, 64, 64, 3) uint8

Nothing but the places of solids is shared with `render`: flat faces drawn by Pillow from far to near, hard shadows, a
camera elsewhere, other colours for the same names, and H.264 in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path as File
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from mmcore.document import Text, Video
from mmcore.training.world.camera import aim
from mmcore.training.world.language import say
from mmcore.training.world.paths import Path, moments, paths
from mmcore.training.world.scene import SIZES, Scene, Solid
from mmcore.training.world.shown import Lines, draw, given_with
from mmcore.training.world.take import FPS, FRAMES, SIZE

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (230, 20, 60),
    "orange": (255, 120, 0),
    "yellow": (255, 225, 90),
    "green": (20, 140, 80),
    "cyan": (0, 195, 190),
    "blue": (30, 60, 190),
    "purple": (150, 40, 200),
    "pink": (255, 130, 170),
}
"""sRGB in full light."""

PLACES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "gray room": ((135, 135, 135), (190, 190, 190), (235, 235, 235)),
    "blue sky": ((190, 172, 130), (170, 205, 245), (80, 140, 225)),
    "night": ((34, 36, 54), (20, 20, 50), (4, 4, 16)),
    "green field": ((95, 145, 70), (215, 228, 235), (190, 212, 232)),
}
"""For each backdrop the ground, the sky at the horizon and the sky above."""

FACETS, FINER = 20, 4
"""Sides of what is round, and how many times finer the faces are drawn than the picture is."""


@dataclass(frozen=True)
class Camera:
    """Where a camera stands, and how wide it sees.

    Args:
        x: to the right of the middle.
        height: above the ground.
        back: in front of z = 0.
        half: tangent of half the angle of view.
        light: (3,) unit vector towards the light.
    """

    x: float
    height: float
    back: float
    half: float
    light: np.ndarray


def another_camera(rng: np.random.Generator) -> Camera:
    """A camera that sees all that the world's own sees, from elsewhere, and a light."""
    light = np.array([rng.uniform(-0.8, 0.8), 1.2, -0.8])
    back = rng.uniform(4.6, 6.4)
    half = 0.4 * 5.2 / back
    return Camera(rng.uniform(-0.3, 0.3), rng.uniform(1.3, 2.3), back, half, light / np.linalg.norm(light))


def filmed(scene: Scene, frames: int, size: tuple[int, int], camera: Camera) -> np.ndarray:
    """Draw a scene of one shot, in full colour.

    Args:
        scene: what is to be seen.
        frames: `T`.
        size: (height, width) in pixels.
        camera: where from.
    Returns:
        (T, height, width, 3) uint8.
    """
    s = moments(frames)
    ways = paths(scene, s)
    clip = [_picture(scene, ways, f, float(moment), size, camera) for f, moment in enumerate(s)]
    return np.stack(clip)


def _picture(scene: Scene, ways: list[Path], f: int, s: float, size: tuple[int, int], camera: Camera) -> np.ndarray:
    """One frame, (height, width, 3)."""
    height, width = size[0] * FINER, size[1] * FINER
    turn, zoom = aim(scene.camera, s)
    eye = np.array([camera.x, camera.height, -camera.back])
    forward = np.array([np.sin(turn), -(camera.height - 0.7) / camera.back, np.cos(turn)])
    forward /= np.linalg.norm(forward)
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    axes = np.stack((right, np.cross(forward, right), forward))
    flat = max(height, width) / 2 / (camera.half * zoom)

    def seen(points: np.ndarray) -> np.ndarray:
        """(..., 3) in space -> (..., 2) in the picture."""
        across, up, depth = np.moveaxis((points - eye) @ axes.T, -1, 0)
        depth = np.maximum(depth, 0.2)
        return np.stack((width / 2 + across / depth * flat, height / 2 - up / depth * flat), -1)

    picture = Image.fromarray(_empty(scene.backdrop, float(axes[1, 2] / axes[2, 2]) * -flat, height, width))
    pen = ImageDraw.Draw(picture)
    there = [(solid, _faces(solid, way, f)) for solid, way in zip(scene.solids, ways, strict=True) if way.scale[f] > 0]
    shade = tuple((np.array(PLACES[scene.backdrop][0]) * 0.55).astype(int).tolist())
    for _, faces in there:
        for face in faces:
            fallen = face - face[:, 1:2] / camera.light[1] * camera.light
            pen.polygon([tuple(p) for p in seen(fallen).tolist()], shade)
    for solid, faces in sorted(there, key=lambda pair: -float(np.mean([face[:, 2].mean() for face in pair[1]]))):
        for face in faces:
            normal = np.cross(face[1] - face[0], face[-1] - face[0])
            normal /= max(float(np.linalg.norm(normal)), 1e-9)
            if normal @ (face.mean(0) - eye) < 0:
                bright = 0.45 + 0.6 * max(float(normal @ camera.light), 0.0)
                ink = tuple(np.clip(np.array(PALETTE[solid.colour]) * bright, 0, 255).astype(int).tolist())
                pen.polygon([tuple(p) for p in seen(face).tolist()], ink)
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BOX))


def _empty(backdrop: str, horizon: float, height: int, width: int) -> np.ndarray:
    """Ground and sky, (height, width, 3) uint8; the horizon lies so many rows below the middle."""
    ground, low, high = (np.array(colour, float) for colour in PLACES[backdrop])
    above = (height / 2 + horizon - np.arange(height)) / height
    sky = low + (high - low) * np.clip(above * 3, 0, 1)[:, None]
    rows = np.where(above[:, None] > 0, sky, ground * (1 + 0.12 * np.clip(above, -1, 0))[:, None])
    return np.repeat(rows[:, None], width, 1).astype(np.uint8)


def _faces(solid: Solid, way: Path, f: int) -> list[np.ndarray]:
    """The faces (corners, 3) of a solid at moment f, corners counterclockwise as seen from outside."""
    size = SIZES[solid.size] * way.scale[f]
    faces = [face * size for face in SHELLS[solid.shape]]
    if way.turn[f]:
        c, s = np.cos(way.turn[f]), np.sin(way.turn[f])
        if solid.shape == "cone":
            pivot, around = np.array([0, size, 0]), np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        else:
            pivot, around = np.zeros(3), np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        faces = [(face - pivot) @ around.T + pivot for face in faces]
    return [face + np.array([way.x[f], way.y[f], way.z[f]]) for face in faces]


def _turned(outline: list[tuple[float, float]], sides: int, yaw: float = 0.0) -> list[np.ndarray]:
    """A solid of revolution: its outline (radius, height) from the bottom up, about the vertical, in so many sides."""
    angles = yaw + 2 * np.pi * np.arange(sides + 1) / sides
    rings = [np.stack((r * np.cos(angles), np.full_like(angles, y), r * np.sin(angles)), -1) for r, y in outline]
    faces = [
        np.stack((low[i], high[i], high[i + 1], low[i + 1])) for low, high in pairwise(rings) for i in range(sides)
    ]
    return [*faces, rings[-1][:-1][::-1], rings[0][:-1]]


def _ball() -> list[np.ndarray]:
    polar = np.linspace(-np.pi / 2 + 0.05, np.pi / 2 - 0.05, FACETS // 2)
    return _turned([(float(np.cos(a)), float(1 + np.sin(a))) for a in polar], FACETS)


SHELLS: dict[str, list[np.ndarray]] = {
    "cube": _turned([(1.2, 0.0), (1.2, 1.7)], 4, 0.4),
    "ball": _ball(),
    "cone": _turned([(1.0, 0.0), (0.02, 2.0)], FACETS),
    "cylinder": _turned([(0.8, 0.0), (0.8, 1.8)], FACETS),
}
"""Each shape's faces at size 1, standing on the origin."""


def coded(clip: Video) -> Video:
    """A clip through H.264 and back."""
    with TemporaryDirectory() as folder:
        return Video.open(clip.save(File(folder) / "clip.mp4"))


def describe_foreign(rng: np.random.Generator, clip: bool) -> Lines:
    """A clip from elsewhere to words."""
    shown = draw(rng, clip)
    medium = coded(Video(filmed(shown.scene, FRAMES, SIZE, another_camera(rng)), FPS))
    return (*given_with(rng, medium, say(rng, "caption")), Text(shown.caption, True)), ()
