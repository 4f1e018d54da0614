"""Where the solids of a scene are over time, by the laws of motion, and whether they have room for that.

    paths(scene, moments(16))            # for each solid a Path over 16 frames
    fits(scene)

Time runs over `s` in [0, 1], from the first frame of a clip to its last; a still is s = 0. Slides are uniform motion,
what flies follows a parabola, and what hits another ball does so elastically, masses going with the cube of the radius.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmcore.training.world.camera import aim
from mmcore.training.world.scene import EYE, GROWN, ROOM, SHRUNK, SIZES, SLIDES, SPINNING, Scene, Solid
from mmcore.training.world.studio import OWN

PEAKS = {"bounce": 0.8, "fly left": 0.9, "fly right": 0.9}
"""How high what leaves the ground gets."""

GAP = 0.12
"""The least room between two solids."""

CHECKED = np.linspace(0, 1, 9)
"""Moments at which places are checked."""


@dataclass(frozen=True)
class Path:
    """Where a solid is: arrays over (T,) moments.

    Args:
        x: centre, to the right.
        y: height of the base above the ground.
        z: centre, away from the camera.
        scale: size relative to the solid's own; 0 when it is not there.
        turn: how far it has turned, radians: about the vertical, a cone head over heels.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    scale: np.ndarray
    turn: np.ndarray


def moments(frames: int) -> np.ndarray:
    """The moments s of a clip's frames, (T,)."""
    return np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)


def goes(motion: str, pace: float = 1.0) -> tuple[float, float]:
    """How far (x, z) a motion takes a solid in one clip."""
    dx, dz = SLIDES.get(motion.replace("fly ", ""), (0.0, 0.0))
    return dx * pace, dz * pace


def paths(scene: Scene, s: np.ndarray) -> list[Path]:
    """Where each solid of a scene is at moments s (T,) in [0, 1]."""
    found = [path(solid, s) for solid in scene.solids]
    for i, solid in enumerate(scene.solids):
        if solid.motion in ("orbit", "hit") and len(scene.solids) == 2:
            other = scene.solids[1 - i]
            if solid.motion == "orbit":
                found[i] = _orbit(found[i], solid, other, s)
            else:
                found[i], found[1 - i] = _collision(found[i], found[1 - i], solid, other, s)
    return found


def path(solid: Solid, s: np.ndarray) -> Path:
    """Where a solid is at moments s (T,) by itself."""
    rest = np.zeros_like(s)
    dx, dz = goes(solid.motion, solid.pace)
    y, scale, turn = rest, 1 + rest, rest
    match solid.motion:
        case "fly left" | "fly right":
            y = 4 * PEAKS[solid.motion] * s * (1 - s)
        case "bounce":
            y = PEAKS["bounce"] * np.abs(np.sin(2 * np.pi * s))
        case "spin" if solid.shape == "cube":
            turn = np.pi * s
        case "spin":
            turn = 2 * np.pi * s
            y = 0.42 * SIZES[solid.size] * np.abs(np.sin(2 * turn))
        case "grow":
            scale = SHRUNK + (GROWN - SHRUNK) * s
        case "shrink":
            scale = GROWN - (GROWN - SHRUNK) * s
        case "appear":
            scale = (s > 0.5).astype(float)
        case "vanish":
            scale = (s < 0.5).astype(float)
    return Path(solid.x + dx * s, y, solid.z + dz * s, scale, turn)


def _orbit(way: Path, solid: Solid, other: Solid, s: np.ndarray) -> Path:
    """Once around another solid, counterclockwise as seen from above."""
    radius = np.hypot(solid.x - other.x, solid.z - other.z)
    angle = np.arctan2(solid.z - other.z, solid.x - other.x) + 2 * np.pi * s
    return replace(way, x=other.x + radius * np.cos(angle), z=other.z + radius * np.sin(angle))


def reach_time(solid: Solid, other: Solid) -> float:
    """The moment at which one ball, rolling straight at another, touches it."""
    apart = np.hypot(other.x - solid.x, other.z - solid.z)
    touching = 2 * np.sqrt(SIZES[solid.size] * SIZES[other.size])
    return float((apart - touching) / (SLIDES["right"][0] * solid.pace))


def _collision(way: Path, others: Path, solid: Solid, other: Solid, s: np.ndarray) -> tuple[Path, Path]:
    """One ball rolls straight at another, which lies still, and hits it; nothing is lost."""
    x, z = other.x - solid.x, other.z - solid.z
    apart = np.hypot(x, z)
    speed, time = SLIDES["right"][0] * solid.pace, reach_time(solid, other)
    mass, struck = SIZES[solid.size] ** 3, SIZES[other.size] ** 3
    before, after = np.minimum(s, time), np.maximum(s - time, 0)
    gone = speed * (before + after * (mass - struck) / (mass + struck))
    pushed = speed * after * 2 * mass / (mass + struck)
    return (
        replace(way, x=solid.x + gone * x / apart, z=solid.z + gone * z / apart),
        replace(others, x=other.x + pushed * x / apart, z=other.z + pushed * z / apart),
    )


def agree(scene: Scene) -> bool:
    """Whether what solids do can be done and seen: who hits is a ball that finds one to hit, who orbits one other."""
    motions = [solid.motion for solid in scene.solids]
    if any(solid.motion == "spin" and solid.shape not in SPINNING for solid in scene.solids):
        return False
    if "orbit" in motions and (len(motions) != 2 or sorted(motions) != ["orbit", "still"]):
        return False
    if {"hit", "be hit"} & set(motions):
        balls = all(solid.shape == "ball" for solid in scene.solids)
        if not balls or sorted(motions) != ["be hit", "hit"]:
            return False
        return 0.25 < reach_time(*sorted(scene.solids, key=lambda solid: solid.motion, reverse=True)) < 0.65
    return True


def in_room(way: Path) -> bool:
    """Whether a solid stays in the room."""
    (left, right), (near, far) = ROOM
    return bool(left <= way.x.min() and way.x.max() <= right and near <= way.z.min() and way.z.max() <= far)


def in_view(way: Path, scene: Scene) -> bool:
    """Whether a camera that turns or zooms still sees a solid's middle, well inside the picture, at the end."""
    turn, zoom = aim(scene.camera, 1.0)
    return bool(abs(way.x[-1] / (EYE + way.z[-1]) - np.tan(turn)) < 0.85 * OWN.half * zoom)


def clear(a: Path, b: Path, sizes: tuple[float, float]) -> bool:
    """Whether two solids of these sizes stay apart, and the nearer one hides no more than half of the other."""
    reach = sum(sizes)
    if (np.hypot(a.x - b.x, a.z - b.z) < 1.15 * reach + GAP).any():
        return False
    between = np.abs(a.x / (EYE + a.z) - b.x / (EYE + b.z))
    wide_a, wide_b = (1.2 * size * way.scale / (EYE + way.z) for size, way in zip(sizes, (a, b), strict=True))
    nearer = np.where(a.z < b.z, wide_a, wide_b)
    return not ((between < 0.7 * reach / EYE) | (between < nearer)).any()


def fits(scene: Scene) -> bool:
    """Whether every solid can do what it does, stays in the room, apart from the others and not hidden by them.

    Room is kept for every solid at its full size and at any moment of its motion; what circles another may hide it, but
    not at the beginning.
    """
    ways = paths(scene, CHECKED)
    if not agree(scene) or not all(in_room(way) and in_view(way, scene) for way in ways):
        return False
    motions = {solid.motion for solid in scene.solids}
    if "hit" in motions:
        return True
    if "orbit" in motions:
        (a, b), reach = ways, sum(SIZES[solid.size] for solid in scene.solids)
        near = np.hypot(a.x - b.x, a.z - b.z).min() < reach + GAP
        return not near and bool(abs(a.x[0] / (EYE + a.z[0]) - b.x[0] / (EYE + b.z[0])) > 0.7 * reach / EYE)
    return all(
        clear(ways[i], ways[j], (SIZES[scene.solids[i].size], SIZES[scene.solids[j].size]))
        for i in range(len(ways))
        for j in range(i)
    )
