"""Clips of scenes drawn by another program: the same scenes, other pixels."""

from __future__ import annotations

import numpy as np
import pytest

from mmcore.document import Text, Video
from mmcore.training.world.foreign import PALETTE, Camera, another_camera, filmed
from mmcore.training.world.heldout import Dice
from mmcore.training.world.mixtures import MIXTURES
from mmcore.training.world.render import render
from mmcore.training.world.scene import COLOURS, SHAPES, Scene, Solid
from mmcore.training.world.tasks import sample_example

pytestmark = pytest.mark.quick

LIKE_OURS = Camera(0.0, 1.6, 5.2, 0.36, np.array([0.0, 0.8, -0.6]))


def solid_pixels(frames: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where frames have about a colour's hue: the strongest channel the same, and far from the weakest."""
    strong, weak = int(np.argmax(colour)), int(np.argmin(colour))
    far = frames[..., strong].astype(int) - frames[..., weak]
    return (frames.argmax(-1) == strong) & (far > 70)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("motion", ["left", "bounce", "grow"])
def test_it_stands_where_the_world_has_it(shape: str, motion: str) -> None:
    scene = Scene((Solid(shape, "red", "large", 0.4, 0.2, motion),), "gray room")
    theirs, own = filmed(scene, 4, (64, 64), LIKE_OURS), render(scene, 4)
    for a, b in zip(theirs, own, strict=True):
        first, second = solid_pixels(a, PALETTE["red"]), solid_pixels(b, COLOURS["red"])
        assert (first & second).sum() / (first | second).sum() > 0.65
    assert np.abs(theirs.astype(int) - own).mean() > 3


def test_what_vanishes_is_gone_and_near_hides_far() -> None:
    scene = Scene((Solid("cube", "red", "large", 0, 1.2), Solid("ball", "blue", "large", 0, -0.5, "vanish")), "night")
    clip = filmed(scene, 3, (64, 64), LIKE_OURS)
    red = [int(solid_pixels(frame, PALETTE["red"]).sum()) for frame in clip]
    blue = [int(solid_pixels(frame, PALETTE["blue"]).sum()) for frame in clip]
    assert blue[0] > 60 and blue[-1] == 0 and red[0] < red[-1]


def test_the_camera_turns_to_the_right() -> None:
    scene = Scene((Solid("ball", "red", "large", 0, 0),), "gray room", camera="pan right")
    clip = filmed(scene, 2, (64, 64), LIKE_OURS)
    columns = [float(np.nonzero(solid_pixels(frame, PALETTE["red"]))[1].mean()) for frame in clip]
    assert columns[1] < columns[0] - 8


def test_cameras_differ_and_see_every_solid() -> None:
    scene = Scene((Solid("ball", "red", "small", -1.25, -0.5), Solid("ball", "green", "small", 1.25, -0.5)), "night")
    for seed in range(20):
        frame = filmed(scene, 1, (64, 64), another_camera(Dice(seed)))
        assert solid_pixels(frame, PALETTE["red"]).sum() > 8 and solid_pixels(frame, PALETTE["green"]).sum() > 8


def test_a_foreign_clip_is_described_and_no_mixture_has_it() -> None:
    document = sample_example(3, "foreign video to text", most=3).document
    (clip,) = document.media
    assert isinstance(clip, Video) and clip.frames.shape == (16, 64, 64, 3) and not clip.learn
    assert isinstance(document.segments[-1], Text) and document.segments[-1].learn
    assert not any("foreign video to text" in mixture for mixture in MIXTURES.values())
