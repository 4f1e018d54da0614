"""How well a clip keeps to the laws of motion: the velocity of a sliding solid, read from pixels.

After Kang et al., "How far is video generation from world model: a physical law perspective" (arXiv 2411.02385): the
error is the mean difference between the velocities of a clip, from frame to frame, and the true one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmcore.training.world.camera import look
from mmcore.training.world.paths import goes, paths
from mmcore.training.world.render import render_moments
from mmcore.training.world.scene import Scene

UNSEEN, FULL = 12, 60
"""A pixel that differs from the empty scene by no more than the first, of 255, shows nothing; by the second, all."""


def true_velocity(scene: Scene) -> float:
    """How far the solid of a scene goes to the right in one clip."""
    (solid,) = scene.solids
    return goes(solid.motion, solid.pace)[0]


def places(frames: np.ndarray, scene: Scene) -> np.ndarray:
    """Where a scene's one solid is in each frame.

    Args:
        frames: (T, Y, X, 3) uint8, of a solid that goes to the left or right.
        scene: what they are to show.
    Returns:
        (T,) its place to the right, in units of the scene; NaN where nothing is to be seen.
    """
    size = (frames.shape[1], frames.shape[2])
    empty = render_moments(replace(scene, solids=()), np.zeros(1), size)
    apart = np.abs(frames.astype(float) - empty).max(-1)
    stain = np.clip((apart - UNSEEN) / (FULL - UNSEEN), 0, 1)
    columns = np.arange(size[1]) + 0.5 - size[1] / 2
    count = stain.sum((1, 2))
    middle = np.where(count > 1, (stain.sum(1) * columns).sum(1) / np.maximum(count, 1), np.nan)
    seen, (way,) = look(size, scene, 0.0), paths(scene, np.zeros(1))
    depth = float(seen.axes[2] @ (np.array([way.x[0], 0.0, way.z[0]]) - seen.eye))
    return middle / (max(size) / 2) * seen.half * depth


def velocity_error(frames: np.ndarray, scene: Scene, per_clip: int) -> float:
    """Mean difference between a clip's velocities from frame to frame and the true one.

    Args:
        frames: (T, Y, X, 3) uint8, part of a clip.
        scene: what it is to show: one solid that goes to the left or right.
        per_clip: frames of a whole clip, in which a solid at a pace of 1 goes 1.4 units.
    Returns:
        In units of the scene for each clip; a velocity that cannot be seen counts as 0.
    """
    velocities = np.nan_to_num(np.diff(places(frames, scene)) * (per_clip - 1))
    return float(np.abs(velocities - true_velocity(scene)).mean())
