"""Studios: the camera and the light by which scenes are filmed, besides what each scene says of its own.

    render(scene, studio=OWN)                        # as the world shows itself: the model draws no other way
    render(scene, studio=sample_studio(rng))         # the same scene, filmed elsewhere: only ever to be read

What is read in many studios is read in one more as well (domain randomization, arXiv 1703.06907).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmcore.training.world.scene import EYE

ACROSS, BACK, WIDER = (-0.4, 0.4), (4.2, 6.8), (0.95, 1.2)
"""Where cameras stand, as in `Studio`, and how much more they see than would show the room as large as the world's own
does, from and to."""

SLOPE, AMBIENT, DIFFUSE, SPECULAR = (0.7, 2.2), (0.35, 0.65), (0.35, 0.8), (0.0, 0.5)
SHADOW, PENUMBRA = (0.2, 0.7), (0.1, 1.0)
"""Lights, as in `Studio`, from and to."""


class Studio(NamedTuple):
    """A camera and a light. By default the world's own.

    Args:
        across: where the camera stands, to the right of the middle.
        back: how far it stands from z = 0.
        half: tangent of half its angle of view.
        slope: the light's height for each unit along the ground.
        ambient: light from everywhere, of a solid's colour.
        diffuse: what light adds to it where it falls straight on.
        specular: white shine at its brightest.
        shadow: what a shadow takes from the ground's brightness at its middle.
        penumbra: how wide a shadow's soft edge is, in sizes of its solid.
    """

    across: float = 0.0
    back: float = EYE
    half: float = 0.36
    slope: float = 1.1
    ambient: float = 0.5
    diffuse: float = 0.64
    specular: float = 0.35
    shadow: float = 0.5
    penumbra: float = 0.9


OWN = Studio()


def sample_studio(rng: np.random.Generator) -> Studio:
    """Draw a studio."""
    across, back, wider = (float(rng.uniform(*bounds)) for bounds in (ACROSS, BACK, WIDER))
    light = (float(rng.uniform(*bounds)) for bounds in (SLOPE, AMBIENT, DIFFUSE, SPECULAR, SHADOW, PENUMBRA))
    return Studio(across, back, OWN.half * EYE / back * wider, *light)
