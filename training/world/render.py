"""The renderer: a scene -> frames, by casting rays at solids of known shape. NumPy only, the same bytes every time.

    frames = render(scene, frames=16, size=(64, 64))     # (16, 64, 64, 3) uint8

Two rays by two fall on a pixel. Solids never touch, so they are painted from far to near.
Shapes: `T` frames, `Y X` rows and columns of rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mmcore.training.world.scene import COLOURS, EYE, SIZES, Path, Scene, Solid, moments, path

RAYS = 2
"""Rays along each side of a pixel."""

EYE_HEIGHT, AIM_HEIGHT = 1.6, 0.75
HALF_VIEW = 0.36
"""Tangent of half the angle of view."""

YAW = 0.5
"""How far a cube is turned about the vertical, radians."""

LIGHT_HEIGHT = 1.1
"""Slope of the light: its height for each unit along the ground."""

AMBIENT, DIFFUSE, SPECULAR = 0.5, 0.64, 0.35
SHADOW = 0.5
"""What a shadow takes from the ground's brightness at its middle."""

GROUND_SKY: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "gray room": ((150, 150, 152), (205, 205, 208), (222, 222, 224)),
    "blue sky": ((203, 184, 146), (196, 222, 248), (104, 168, 238)),
    "night": ((44, 46, 66), (30, 32, 62), (8, 9, 26)),
    "green field": ((118, 152, 92), (226, 234, 236), (206, 222, 236)),
}
"""For each backdrop the ground, the sky at the horizon and the sky above."""

PROPORTIONS = {"cube": (0.85, 1.7), "ball": (1.0, 2.0), "cone": (1.0, 2.0), "cylinder": (0.8, 1.8)}
"""For each shape its half width and its height, in units of its size."""

BOUND = 1.45
"""A sphere of so many sizes about a solid's middle holds all of it."""


@dataclass(frozen=True)
class View:
    """Rays of a picture: directions (Y, X, 3) of length 1, and where they meet the ground."""

    rays: np.ndarray
    ground: np.ndarray
    """(Y, X) bool: the ray meets the ground."""
    x: np.ndarray
    z: np.ndarray
    fade: np.ndarray
    """(Y, X) how far the ground has faded into the horizon, or how high the sky is; in [0, 1]."""


@lru_cache(maxsize=8)
def view(size: tuple[int, int]) -> View:
    """The camera's rays for a picture of (height, width) pixels."""
    rows, columns = size[0] * RAYS, size[1] * RAYS
    half = np.array([HALF_VIEW, HALF_VIEW]) * np.array(size) / max(size)
    v = np.linspace(1, -1, 2 * rows + 1)[1::2] * half[0]
    u = np.linspace(-1, 1, 2 * columns + 1)[1::2] * half[1]
    forward = np.array([0.0, AIM_HEIGHT - EYE_HEIGHT, EYE])
    forward /= np.linalg.norm(forward)
    up = np.array([0.0, forward[2], -forward[1]])
    rays = forward + v[:, None, None] * up + u[None, :, None] * np.array([1.0, 0, 0])
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    down = -rays[..., 1]
    ground = down > 1e-3
    distance = EYE_HEIGHT / np.where(ground, down, 1)
    fade = np.where(ground, 1 - np.exp(-((distance / 14) ** 2)), np.clip(-down / 0.22, 0, 1))
    f32 = np.float32
    return View(
        rays.astype(f32),
        ground,
        (rays[..., 0] * distance).astype(f32),
        (rays[..., 2] * distance - EYE).astype(f32),
        fade[..., None].astype(f32),
    )


def background(backdrop: str, seen: View) -> np.ndarray:
    """Ground and sky, (Y, X, 3) float32 in [0, 1]."""
    ground, horizon, sky = (np.array(c, np.float32) / 255 for c in GROUND_SKY[backdrop])
    return np.where(
        seen.ground[..., None],
        ground + (horizon - ground) * seen.fade,
        horizon + (sky - horizon) * seen.fade,
    )


def light_direction(azimuth: float) -> np.ndarray:
    """(3,) unit vector towards the light."""
    light = np.array([np.sin(azimuth), LIGHT_HEIGHT, -np.cos(azimuth)], np.float32)
    return light / np.linalg.norm(light)


def hit(shape: str, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays meet a solid of size 1 that stands on the origin.

    Args:
        shape: one of `scene.SHAPES`.
        origin: (3,) where the rays start.
        rays: (Y, X, 3) their directions.
    Returns:
        Whether they meet it (Y, X), how far away (Y, X), and the outward normals (Y, X, 3).
    """
    half, height = PROPORTIONS[shape]
    dx, dy, dz = rays[..., 0], rays[..., 1], rays[..., 2]
    ox, oy, oz = origin
    if shape == "ball":
        b = dx * ox + dy * (oy - 1) + dz * oz
        found = b * b - (ox * ox + (oy - 1) ** 2 + oz * oz - 1)
        t = -b - np.sqrt(np.maximum(found, 0))
        return found > 0, t, origin - np.array([0, 1, 0], np.float32) + t[..., None] * rays
    if shape == "cube":
        c, s = np.float32(np.cos(YAW)), np.float32(np.sin(YAW))
        o = np.array([c * ox - s * oz, oy - half, s * ox + c * oz], np.float32)
        d = np.stack((c * dx - s * dz, dy, s * dx + c * dz), -1)
        enter = (-np.sign(d) * half - o) / np.where(d == 0, 1e-9, d)
        leave = (np.sign(d) * half - o) / np.where(d == 0, 1e-9, d)
        t = enter.max(-1)
        face = np.eye(3, dtype=np.float32)[enter.argmax(-1)] * -np.sign(d)
        normal = np.stack((c * face[..., 0] + s * face[..., 2], face[..., 1], c * face[..., 2] - s * face[..., 0]), -1)
        return t < leave.min(-1), t, normal
    # Cylinder and cone: a quadratic in the distance from the axis; the cone's radius shrinks to 0 at its top.
    slope = half / height if shape == "cone" else 0.0
    radius, radius_step = half - slope * oy, -slope * dy
    a = dx * dx + dz * dz - radius_step**2
    b = dx * ox + dz * oz - radius * radius_step
    found = b * b - a * (ox * ox + oz * oz - radius**2)
    t = (-b - np.sqrt(np.maximum(found, 0))) / np.where(np.abs(a) < 1e-9, 1e-9, a)
    y = oy + t * dy
    side = (found > 0) & (y >= 0) & (y <= height)
    normal = np.stack((ox + t * dx, slope * (half - slope * y), oz + t * dz), -1)
    if shape == "cylinder":
        cap = (height - oy) / np.where(dy == 0, 1e-9, dy)
        on_cap = (cap > 0) & ((ox + cap * dx) ** 2 + (oz + cap * dz) ** 2 <= half**2)
        t = np.where(on_cap, cap, t)
        normal = np.where(on_cap[..., None], np.array([0, 1, 0], np.float32), normal)
        side |= on_cap
    return side, t, normal


@dataclass(frozen=True)
class Sprite:
    """A solid as seen at one moment: which rays of a rectangle it stops, and their colours."""

    where: tuple[slice, slice]
    mask: np.ndarray
    colour: np.ndarray


def sprite(solid: Solid, at: tuple[float, float, float, float], scene: Scene, seen: View) -> Sprite | None:
    """Cast rays at a solid at (x, y, z, scale); None where it is not to be seen."""
    x, y, z, scale = at
    size = SIZES[solid.size] * scale
    if size <= 0:
        return None
    where = _rectangle((x, y + size, z), BOUND * size, seen)
    rays = seen.rays[where]
    origin = (np.array([-x, EYE_HEIGHT - y, -EYE - z]) / size).astype(np.float32)
    mask, t, normal = hit(solid.shape, origin, rays)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    light = light_direction(scene.light)
    diffuse = np.maximum(normal @ light, 0)
    shine = np.maximum(((2 * diffuse[..., None] * normal - light) * -rays).sum(-1), 0) ** 24
    base = np.array(COLOURS[solid.colour], np.float32) / 255
    colour = scene.gain * (base * (AMBIENT + DIFFUSE * diffuse)[..., None] + SPECULAR * shine[..., None])
    return Sprite(where, mask & (t > 0), colour)


def _rectangle(centre: tuple[float, float, float], radius: float, seen: View) -> tuple[slice, slice]:
    """The part of the picture that a sphere may cover."""
    rows, columns = seen.rays.shape[:2]
    forward = np.array([0.0, AIM_HEIGHT - EYE_HEIGHT, EYE])
    forward /= np.linalg.norm(forward)
    offset = np.array([centre[0], centre[1] - EYE_HEIGHT, centre[2] + EYE])
    depth = max(float(offset @ forward), radius + 0.1)
    per_unit = max(rows, columns) / 2 / HALF_VIEW / (depth - radius / 2)
    reach = radius * per_unit
    flat = max(rows, columns) / 2 / HALF_VIEW / depth
    v = rows / 2 - (offset[1] * forward[2] - offset[2] * forward[1]) * flat
    u = columns / 2 + offset[0] * flat
    top, left = max(int(v - reach), 0), max(int(u - reach), 0)
    return slice(top, max(int(v + reach) + 2, top)), slice(left, max(int(u + reach) + 2, left))


def shade_ground(picture: np.ndarray, solids: tuple[Solid, ...], paths: list[Path], f: int, light: float, seen: View):
    """Darken the ground below the solids, softly, in place."""
    direction = light_direction(light)
    for solid, p in zip(solids, paths, strict=True):
        size = SIZES[solid.size] * p.scale[f]
        if size <= 0:
            continue
        lift = (p.y[f] + 0.5 * size) / direction[1]
        x, z = p.x[f] - direction[0] * lift, p.z[f] - direction[2] * lift
        where = _rectangle((x, 0.0, z), 1.8 * size, seen)
        far = np.hypot(seen.x[where] - x, seen.z[where] - z) / size
        soft = np.clip((1.45 - far) / 0.9, 0, 1) * seen.ground[where]
        picture[where] *= (1 - SHADOW / (1 + p.y[f]) * soft)[..., None]


def render(scene: Scene, frames: int = 16, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: what is to be seen.
        frames: `T`; the clip always takes the scene from its beginning to its end. One frame is the beginning.
        size: (height, width) in pixels.
    Returns:
        (T, height, width, 3) uint8 sRGB.
    """
    seen = view(size)
    back = background(scene.backdrop, seen) * scene.gain
    s = moments(frames)
    paths = [path(solid, s) for solid in scene.solids]
    resting: dict[int, Sprite | None] = {}
    clip = np.empty((frames, *size, 3), np.uint8)
    for f in range(frames):
        picture = back.copy()
        shade_ground(picture, scene.solids, paths, f, scene.light, seen)
        for i in sorted(range(len(paths)), key=lambda i: -paths[i].z[f]):
            p, solid = paths[i], scene.solids[i]
            if i in resting:
                drawn = resting[i]
            else:
                drawn = sprite(solid, (p.x[f], p.y[f], p.z[f], p.scale[f]), scene, seen)
                if solid.motion == "still":
                    resting[i] = drawn
            if drawn is not None:
                np.copyto(picture[drawn.where], drawn.colour, where=drawn.mask[..., None])
        mean = sum(picture[i::RAYS, j::RAYS] for i in range(RAYS) for j in range(RAYS)) * np.float32(255 / RAYS**2)
        clip[f] = np.clip(mean + np.float32(0.5), 0, 255)
    return clip
