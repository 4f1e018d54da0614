"""The renderer: a scene -> frames, by casting rays at solids of known shape. NumPy only, the same bytes every time.

    frames = render(scene, frames=16, size=(64, 64))     # (16, 64, 64, 3) uint8

Two rays by two fall on a pixel. Solids never touch, so they are painted from far to near.
Shapes: `T` frames, `Y X` rows and columns of rays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.training.world.camera import RAYS, View, background, look
from mmcore.training.world.paths import Path, moments, paths
from mmcore.training.world.scene import COLOURS, SIZES, Scene, Solid
from mmcore.training.world.studio import OWN, Studio
from mmcore.training.world.styles import styled

YAW = 0.5
"""How far a cube is turned about the vertical, radians."""

PROPORTIONS = {"cube": (0.85, 1.7), "ball": (1.0, 2.0), "cone": (1.0, 2.0), "cylinder": (0.8, 1.8)}
"""For each shape its half width and its height, in units of its size."""

BOUND = 1.45
"""A sphere of so many sizes about a solid's middle holds all of it."""


def tipped(vectors: np.ndarray, turn: float) -> np.ndarray:
    """Vectors (..., 3) turned about the z axis, radians, from x to y."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack((c * x - s * y, s * x + c * y, z), -1)


def hit(
    shape: str, origin: np.ndarray, rays: np.ndarray, turn: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays meet a solid of size 1 that stands on the origin.

    Args:
        shape: one of `scene.SHAPES`.
        origin: (3,) where the rays start.
        rays: (Y, X, 3) their directions.
        turn: as in `paths.Path`; only what one sees of it: a cube turns about the vertical, a cone head over heels.
    Returns:
        Whether they meet it (Y, X), how far away (Y, X), and the outward normals (Y, X, 3).
    """
    half, height = PROPORTIONS[shape]
    if shape == "cone" and turn:
        middle = np.array([0, 1, 0], np.float32)
        found, t, normal = hit(shape, tipped(origin - middle, turn) + middle, tipped(rays, turn))
        return found, t, tipped(normal, -turn)
    dx, dy, dz = rays[..., 0], rays[..., 1], rays[..., 2]
    ox, oy, oz = origin
    if shape == "ball":
        b = dx * ox + dy * (oy - 1) + dz * oz
        found = b * b - (ox * ox + (oy - 1) ** 2 + oz * oz - 1)
        t = -b - np.sqrt(np.maximum(found, 0))
        return found > 0, t, origin - np.array([0, 1, 0], np.float32) + t[..., None] * rays
    if shape == "cube":
        c, s = np.float32(np.cos(YAW + turn)), np.float32(np.sin(YAW + turn))
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
class Placed:
    """A solid at one moment.

    Args:
        shape: one of `scene.SHAPES`.
        colour: one of `scene.COLOURS`.
        x: centre, to the right.
        y: height of the base above the ground.
        z: centre, away from the camera.
        radius: its size; 0 where it is not there.
        turn: see `paths.Path`.
    """

    shape: str
    colour: str
    x: float
    y: float
    z: float
    radius: float
    turn: float = 0.0


@dataclass(frozen=True)
class Light:
    """Where light comes from, how bright it is, and what it does; see `scene.Scene` and `studio`."""

    azimuth: float
    gain: float
    studio: Studio = OWN

    @property
    def direction(self) -> np.ndarray:
        """(3,) unit vector towards the light."""
        towards = np.array([np.sin(self.azimuth), self.studio.slope, -np.cos(self.azimuth)], np.float32)
        return towards / np.linalg.norm(towards)


@dataclass(frozen=True)
class Sprite:
    """A solid as it is seen: which rays of a rectangle it stops, their colours, and how far away it is."""

    where: tuple[slice, slice]
    mask: np.ndarray
    colour: np.ndarray
    z: float


def sprite(solid: Placed, light: Light, seen: View) -> Sprite | None:
    """Cast rays at a solid; None where it is not to be seen."""
    size = solid.radius
    if size <= 0:
        return None
    where = _rectangle((solid.x, solid.y + size, solid.z), BOUND * size, seen)
    rays = seen.rays[where]
    origin = ((seen.eye - np.array([solid.x, solid.y, solid.z])) / size).astype(np.float32)
    mask, t, normal = hit(solid.shape, origin, rays, solid.turn)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    diffuse = np.maximum(normal @ light.direction, 0)
    shine = np.maximum(((2 * diffuse[..., None] * normal - light.direction) * -rays).sum(-1), 0) ** 24
    base = np.array(COLOURS[solid.colour], np.float32) / 255
    studio = light.studio
    lit = studio.ambient + studio.diffuse * diffuse
    colour = light.gain * (base * lit[..., None] + studio.specular * shine[..., None])
    return Sprite(where, mask & (t > 0), colour, solid.z)


def _rectangle(centre: tuple[float, float, float], radius: float, seen: View) -> tuple[slice, slice]:
    """The part of the picture that a sphere may cover."""
    rows, columns = seen.rays.shape[:2]
    across, above, depth = (seen.axes @ (np.array(centre) - seen.eye)).tolist()
    depth = max(depth, radius + 0.1)
    flat = max(rows, columns) / 2 / seen.half / depth
    reach = radius * flat * depth / (depth - radius / 2)
    v, u = rows / 2 - above * flat, columns / 2 + across * flat
    top, left = max(int(v - reach), 0), max(int(u - reach), 0)
    return slice(top, max(int(v + reach) + 2, top)), slice(left, max(int(u + reach) + 2, left))


def shade_ground(picture: np.ndarray, solid: Placed, light: Light, seen: View) -> None:
    """Darken the ground below a solid, softly, in place."""
    size = solid.radius
    if size <= 0:
        return
    direction = light.direction
    lift = (solid.y + 0.5 * size) / direction[1]
    x, z = solid.x - direction[0] * lift, solid.z - direction[2] * lift
    where = _rectangle((x, 0.0, z), 1.8 * size, seen)
    far = np.hypot(seen.x[where] - x, seen.z[where] - z) / size
    studio = light.studio
    soft = np.clip((1 + studio.penumbra / 2 - far) / studio.penumbra, 0, 1) * seen.ground[where]
    picture[where] *= (1 - studio.shadow / (1 + solid.y) * soft)[..., None]


def compose(
    seen: View, back: np.ndarray, solids: Sequence[Placed], sprites: Sequence[Sprite | None], light: Light
) -> np.ndarray:
    """One picture.

    Args:
        seen: the camera.
        back: (RAYS Y, RAYS X, 3) float32, the empty backdrop under its light.
        solids: what casts shadows.
        sprites: what is painted over them, from far to near.
        light: where shadows fall.
    Returns:
        (Y, X, 3) uint8.
    """
    picture = back.copy()
    for solid in solids:
        shade_ground(picture, solid, light, seen)
    for drawn in sorted((s for s in sprites if s is not None), key=lambda s: -s.z):
        np.copyto(picture[drawn.where], drawn.colour, where=drawn.mask[..., None])
    mean = sum(picture[i::RAYS, j::RAYS] for i in range(RAYS) for j in range(RAYS)) * np.float32(255 / RAYS**2)
    return np.clip(mean + np.float32(0.5), 0, 255).astype(np.uint8)


def placed(solid: Solid, way: Path, f: int) -> Placed:
    """A solid where its path has it at moment f."""
    radius = SIZES[solid.size] * way.scale[f]
    return Placed(solid.shape, solid.colour, way.x[f], way.y[f], way.z[f], radius, way.turn[f])


def render_moments(scene: Scene, s: np.ndarray, size: tuple[int, int], studio: Studio = OWN) -> np.ndarray:
    """Draw a scene at moments s (T,) in [0, 1]: (T, height, width, 3) uint8."""
    light, ways = Light(scene.light, scene.gain, studio), paths(scene, s)
    seen = look(size, scene, 0.0, studio)
    back = background(scene.backdrop, seen) * scene.gain
    resting: dict[int, Sprite | None] = {}
    if scene.camera == "still":
        still = [i for i, solid in enumerate(scene.solids) if solid.motion == "still"]
        resting = {i: sprite(placed(scene.solids[i], ways[i], 0), light, seen) for i in still}
    clip = np.empty((len(s), *size, 3), np.uint8)
    for f, moment in enumerate(s.tolist()):
        if scene.camera != "still":
            seen = look(size, scene, moment, studio)
            back = background(scene.backdrop, seen) * scene.gain
        now = [placed(solid, way, f) for solid, way in zip(scene.solids, ways, strict=True)]
        sprites = [resting[i] if i in resting else sprite(solid, light, seen) for i, solid in enumerate(now)]
        clip[f] = compose(seen, back, now, sprites, light)
    return styled(clip, scene.style)


def render(scene: Scene, frames: int = 16, size: tuple[int, int] = (64, 64), studio: Studio = OWN) -> np.ndarray:
    """Draw a scene; if there is a second shot, half of the frames for each.

    Args:
        scene: what is to be seen.
        frames: `T`; the clip always takes the scene from its beginning to its end. One frame is the beginning.
        size: (height, width) in pixels.
        studio: by which camera and light.
    Returns:
        (T, height, width, 3) uint8 sRGB.
    """
    if scene.then and frames > 1:
        first = frames // 2
        before = render_moments(scene, moments(first), size, studio)
        return np.concatenate((before, render(scene.then, frames - first, size, studio)))
    return render_moments(scene, moments(frames), size, studio)
