"""Takes as numbers: a row of a sheet holds all that one frame is drawn from, so that any device can draw it.

sheet_of(take)                       # (T, COLUMNS) float32
"""

from __future__ import annotations

import numpy as np

from mmcore.training.world.camera import aim
from mmcore.training.world.paths import moments, paths
from mmcore.training.world.render import placed
from mmcore.training.world.scene import BACKDROPS, COLOURS, SHAPES, STYLES, Scene
from mmcore.training.world.take import FRAMES, Take
from mmcore.training.world.wear import UNTOUCHED

CAMERA, LIGHT, BACKDROP, STYLE, SOFTNESS, TINT, NOISE, QUALITY = 0, 3, 5, 6, 7, 8, 11, 14
GRADE, STUDIO, SOLIDS = 15, 21, 30
"""Columns at which these begin: height, turn and zoom; azimuth and gain; an index each; see `wear.Wear`; the noise's
deviation, seed and frame; the grade; the studio; and for each of MOST solids, from far to near, those of SOLID."""

SOLID = ("shape", "colour", "x", "y", "z", "radius", "turn")
"""Shape and colour are indexes; a radius of 0 is no solid. See `render.Placed`."""

MOST = 4
"""Solids of a scene."""

COLUMNS = SOLIDS + MOST * len(SOLID)


def sheet_of(take: Take) -> np.ndarray:
    """What a take's frames are drawn from, (T, COLUMNS) float32."""
    if not take.clip:
        rows = scene_rows(take.scene, moments(1))
    elif take.scene.then:
        first, second = take.scene.shots
        half = FRAMES // 2
        rows = np.concatenate((scene_rows(first, moments(half)), scene_rows(second, moments(FRAMES - half))))
    else:
        rows = scene_rows(take.scene, moments(FRAMES))
    rows = rows[take.frames.start : take.frames.stop]
    wear = take.wear or UNTOUCHED
    rows[:, SOFTNESS] = wear.softness
    rows[:, TINT : TINT + 3] = wear.tint
    rows[:, NOISE : NOISE + 2] = wear.noise, wear.seed
    rows[:, NOISE + 2] = np.arange(len(rows))
    rows[:, QUALITY] = wear.quality
    rows[:, GRADE : GRADE + len(wear.grade)] = wear.grade
    rows[:, STUDIO : STUDIO + len(take.studio)] = take.studio
    return rows


def scene_rows(scene: Scene, s: np.ndarray) -> np.ndarray:
    """A scene at moments s (T,), unworn."""
    rows, ways = np.zeros((len(s), COLUMNS), np.float32), paths(scene, s)
    shapes, colours = SHAPES.index, list(COLOURS).index
    for f, moment in enumerate(s.tolist()):
        now = [placed(solid, way, f) for solid, way in zip(scene.solids, ways, strict=True)]
        now.sort(key=lambda solid: -solid.z)
        solids = [(shapes(p.shape), colours(p.colour), p.x, p.y, p.z, p.radius, p.turn) for p in now]
        rows[f, SOLIDS : SOLIDS + len(SOLID) * len(solids)] = np.ravel(solids)
        rows[f, CAMERA : CAMERA + 3] = scene.height, *aim(scene.camera, moment)
    rows[:, LIGHT : LIGHT + 2] = scene.light, scene.gain
    rows[:, BACKDROP], rows[:, STYLE] = BACKDROPS.index(scene.backdrop), STYLES.index(scene.style)
    return rows
