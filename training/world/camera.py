"""The camera: its rays for each picture, how it turns and zooms over a clip, and the backdrop that it sees.

    seen = view((64, 64), height=1.6)                    # rays of a picture
    seen = look((64, 64), scene, s=1.0)                  # of a scene's last frame

Shapes: `Y X` rows and columns of rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mmcore.training.world.scene import EYE_HEIGHT, Scene
from mmcore.training.world.studio import OWN, Studio

RAYS = 2
"""Rays along each side of a pixel."""

AIM_HEIGHT = 0.75
"""The height of what the camera looks at, at z = 0."""

TURN, NEARER, WIDER = 0.13, 0.74, 1.3
"""How far a pan turns, radians, and what zooming in and out makes of the view, in one clip."""

GROUND_SKY: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "gray room": ((150, 150, 152), (205, 205, 208), (222, 222, 224)),
    "blue sky": ((203, 184, 146), (196, 222, 248), (104, 168, 238)),
    "night": ((44, 46, 66), (30, 32, 62), (8, 9, 26)),
    "green field": ((118, 152, 92), (226, 234, 236), (206, 222, 236)),
}
"""For each backdrop the ground, the sky at the horizon and the sky above."""

HILLS: dict[str, tuple[tuple[int, int, int], float, float]] = {
    "gray room": ((148, 148, 150), 0.0, 7.0),
    "blue sky": ((178, 172, 160), 1.3, 9.0),
    "night": ((6, 8, 16), 2.9, 8.0),
    "green field": ((132, 154, 122), 4.4, 11.0),
}
"""For each backdrop what stands on the horizon, so that turns show: its colour, its phase and how many in a radian."""


@dataclass(frozen=True)
class View:
    """A camera at one moment, and the rays of its picture: directions (Y, X, 3) of length 1, and where they meet the
    ground.
    """

    eye: np.ndarray
    """(3,) where the camera is."""
    axes: np.ndarray
    """(3, 3): unit vectors to the right, up and forward."""
    half: float
    """Tangent of half the angle of view."""
    rays: np.ndarray
    ground: np.ndarray
    """(Y, X) bool: the ray meets the ground."""
    x: np.ndarray
    z: np.ndarray
    fade: np.ndarray
    """(Y, X, 1) how far the ground has faded into the horizon, or how high the sky is; in [0, 1]."""


def view(
    size: tuple[int, int], height: float = EYE_HEIGHT, turn: float = 0.0, zoom: float = 1.0, studio: Studio = OWN
) -> View:
    """The camera's rays for a picture of (height, width) pixels.

    Args:
        size: of the picture.
        height: of the camera above the ground.
        turn: to the right, radians.
        zoom: tangent of the angle of view, relative to the studio's.
        studio: where the camera stands, and how wide it sees.
    """
    if (turn, zoom, studio) == (0.0, 1.0, OWN):
        return _view(size, height)
    return _make_view(size, height, turn, zoom, studio)


@lru_cache(maxsize=64)
def _view(size: tuple[int, int], height: float) -> View:
    return _make_view(size, height, 0.0, 1.0, OWN)


def _make_view(size: tuple[int, int], height: float, turn: float, zoom: float, studio: Studio) -> View:
    rows, columns = size[0] * RAYS, size[1] * RAYS
    half = studio.half * zoom * np.array(size) / max(size)
    v = np.linspace(1, -1, 2 * rows + 1)[1::2] * half[0]
    u = np.linspace(-1, 1, 2 * columns + 1)[1::2] * half[1]
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    forward = np.array([studio.back * np.sin(turn), AIM_HEIGHT - height, studio.back * np.cos(turn)])
    forward /= np.linalg.norm(forward)
    up = np.cross(forward, right)
    rays = forward + v[:, None, None] * up + u[None, :, None] * right
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    down = -rays[..., 1]
    ground = down > 1e-3
    distance = height / np.where(ground, down, 1)
    fade = np.where(ground, 1 - np.exp(-((distance / 14) ** 2)), np.clip(-down / 0.22, 0, 1))
    f32 = np.float32
    return View(
        np.array([studio.across, height, -studio.back]),
        np.stack((right, up, forward)),
        studio.half * zoom,
        rays.astype(f32),
        ground,
        (rays[..., 0] * distance + studio.across).astype(f32),
        (rays[..., 2] * distance - studio.back).astype(f32),
        fade[..., None].astype(f32),
    )


def aim(camera: str, s: float) -> tuple[float, float]:
    """How far a camera has turned to the right, radians, and what its zoom is, at moment s in [0, 1]."""
    match camera:
        case "pan left" | "pan right":
            return (TURN if camera == "pan right" else -TURN) * s, 1.0
        case "zoom in" | "zoom out":
            return 0.0, 1 + ((NEARER if camera == "zoom in" else WIDER) - 1) * s
    return 0.0, 1.0


def look(size: tuple[int, int], scene: Scene, s: float, studio: Studio = OWN) -> View:
    """A scene's camera at moment s in [0, 1], for a picture of (height, width) pixels."""
    return view(size, scene.height, *aim(scene.camera, s), studio)


def background(backdrop: str, seen: View) -> np.ndarray:
    """Ground, hills and sky, (Y, X, 3) float32 in [0, 1]."""
    ground, horizon, sky = (np.array(c, np.float32) / 255 for c in GROUND_SKY[backdrop])
    behind = horizon + (sky - horizon) * seen.fade
    colour, phase, count = HILLS[backdrop]
    x, y, z = seen.rays[..., 0], seen.rays[..., 1], seen.rays[..., 2]
    azimuth = np.arctan2(x, z)
    profile = 0.03 + 0.016 * np.sin(count * azimuth + phase) + 0.01 * np.sin(2.7 * count * azimuth - phase)
    hills = np.clip((profile - y) * 120, 0, 1)[..., None]
    behind = behind + (np.array(colour, np.float32) / 255 - behind) * hills
    return np.where(seen.ground[..., None], ground + (horizon - ground) * seen.fade, behind)
