"""What solids and cameras do over time: by the laws of motion, and so that one sees it. See also test_world.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmcore.training.world.edits import REVERSED, sample_edit
from mmcore.training.world.paths import fits, goes, paths
from mmcore.training.world.physics import velocity_error
from mmcore.training.world.render import render
from mmcore.training.world.scene import ALONE, CAMERAS, SIZES, Solid
from tests.test_world import middle, scene_of, stain  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("motion", REVERSED)
def test_a_clip_in_reverse_is_its_frames_in_reverse(motion: str) -> None:
    dx, dz = goes(motion, 0.7)
    cone = Solid("cone", "red", "large", 0.5 - dx / 2, 0.3 - dz / 2, motion, 0.7)
    scene = scene_of(Solid("cylinder", "green", "small", -1.2, 0.3, "bounce"), cone)
    rng = np.random.default_rng(0)
    edit = sample_edit(rng, scene, True, "reverse")
    assert np.abs(render(edit.scene).astype(int) - render(scene)[::-1]).max() <= 1


@pytest.mark.parametrize("motion", ALONE)
def test_a_motion_moves_what_it_should(motion: str) -> None:
    shape, side = "cube" if motion == "spin" else "ball", {"left": 0.8, "right": -0.8}
    solid = Solid(shape, "red", "small", side.get(motion.removeprefix("fly "), 0.0), 0.2, motion)
    if motion == "forward":
        solid = replace(solid, z=1.2)
    if motion == "backward":
        solid = replace(solid, z=-0.5)
    scene = scene_of(solid)
    clip, empty = render(scene), render(replace(scene, solids=()), 1)[0]
    masks = [stain(frame, empty) for frame in clip]
    areas = np.array([m.sum() for m in masks])
    if motion in ("appear", "vanish"):
        assert ((areas > 0) == (np.arange(16) >= 8) ^ (motion == "vanish")).all()
        return
    places = np.array([middle(m) for m in masks])
    across, down = places[-1, 1] - places[0, 1], places[-1, 0] - places[0, 0]
    moved = {"left": across < -12, "right": across > 12, "forward": down > 3, "backward": down < -3}
    grown = {"grow": areas[-1] > 2 * areas[0], "shrink": areas[-1] < areas[0] / 2}
    leapt = places[:, 0].argmin() in (7, 8) and np.ptp(places[:, 0]) > 8
    flown = {f"fly {side}": moved[side] and leapt for side in ("left", "right")}
    spun = np.abs(places - places[0]).max() < 2 and not (clip[1] == clip[0]).all()
    other = {"bounce": np.ptp(places[:, 0]) > 8, "still": (clip == clip[0]).all(), "spin": spun}
    assert {**moved, **grown, **flown, **other}[motion]
    assert paths(scene, np.zeros(1))[0].x == solid.x


def test_a_cone_spins_head_over_heels() -> None:
    """At half time it stands on its tip: what was narrow is wide."""
    scene = scene_of(Solid("cone", "red", "large", 0.0, 0.2, "spin"))
    clip, empty = render(scene, 3), render(replace(scene, solids=()), 1)[0]
    (start, turned, _) = (stain(frame, empty) for frame in clip)
    rows = np.nonzero(start.any(1))[0]
    assert start[rows[3]].sum() < 8 and turned[rows[3]].sum() > 12
    assert (clip[0] == clip[2]).mean() > 0.99


@pytest.mark.parametrize(("one", "other"), [("small", "small"), ("small", "large"), ("large", "small")])
def test_a_collision_keeps_momentum_and_energy(one: str, other: str) -> None:
    """Before and after, by masses that go with the cube of the radius; until then the other ball lies still."""
    scene = scene_of(Solid("ball", "red", one, -1.2, 0.2, "hit"), Solid("ball", "blue", other, 0.1, 0.25, "be hit"))
    s = np.linspace(0, 1, 101)
    a, b = paths(scene, s)
    speeds = [np.diff(np.stack((p.x, p.z)), axis=1) / np.diff(s) for p in (a, b)]
    m, n = (SIZES[size] ** 3 for size in (one, other))
    momentum = m * speeds[0] + n * speeds[1]
    energy = m * (speeds[0] ** 2).sum(0) + n * (speeds[1] ** 2).sum(0)
    np.testing.assert_allclose(momentum[:, 0], momentum[:, -1], rtol=1e-9)
    np.testing.assert_allclose(energy[0], energy[-1], rtol=1e-9)
    assert (speeds[1][:, 0] == 0).all() and (speeds[1][0, -1] > 0).all()
    gap = np.hypot(a.x - b.x, a.z - b.z).min()
    assert gap == pytest.approx(2 * np.sqrt(SIZES[one] * SIZES[other]), abs=0.02), "balls on the ground touch"


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_turns_and_zooms(camera: str) -> None:
    """What stands still goes the other way in the picture, or grows, or shrinks; the first frame is as it was."""
    scene = replace(scene_of(Solid("ball", "red", "large", 0.0, 0.3)), camera=camera)
    clip, still = render(scene), render(replace(scene, camera="still"), 1)[0]
    empty = render(replace(scene, solids=()))
    first, last = (stain(clip[f], empty[f]) for f in (0, -1))
    moved, grown = middle(last)[1] - middle(first)[1], last.sum() / first.sum()
    expected = {
        "still": moved == 0 and grown == 1,
        "pan left": moved > 8,
        "pan right": moved < -8,
        "zoom in": grown > 1.5,
        "zoom out": grown < 0.7,
    }
    assert expected[camera] and (clip[0] == still).all()
    assert (empty[0] == empty[-1]).all() == (camera == "still"), "the backdrop shows it too"


def test_velocities_are_read_from_pixels() -> None:
    """A tenth of its pace more is an error of a tenth of its velocity, about; at rest, all."""
    scene = scene_of(Solid("ball", "blue", "large", -0.8, 0.2, "right", 0.9))
    clip = render(scene)
    faster = render(scene.swap(0, replace(scene.solids[0], pace=0.99)))
    assert velocity_error(clip, scene, 16) < 0.06
    assert velocity_error(faster, scene, 16) == pytest.approx(0.126, abs=0.05)
    assert velocity_error(clip[:1].repeat(16, 0), scene, 16) == pytest.approx(1.26)
    nothing = render(replace(scene, solids=()))
    assert velocity_error(nothing, scene, 16) == pytest.approx(1.26)


def test_what_flies_falls_evenly() -> None:
    (way,) = paths(scene_of(Solid("cone", "red", "small", -0.7, 0.2, "fly right")), np.linspace(0, 1, 11))
    assert np.ptp(np.diff(way.y, 2)) < 1e-9 > np.ptp(np.diff(way.x)) and np.diff(way.y, 2)[0] < 0


def test_what_circles_keeps_its_distance() -> None:
    scene = scene_of(Solid("cone", "red", "small", -0.8, 0.3, "orbit"), Solid("ball", "blue", "small", 0.0, 0.3))
    way, rest = paths(scene, np.linspace(0, 1, 9))
    np.testing.assert_allclose(np.hypot(way.x - rest.x, way.z - rest.z), 0.8)
    assert np.hypot(way.x[4] - 0.8, way.z[4] - 0.3) < 1e-9 and fits(scene)


@pytest.mark.parametrize(
    "solids",
    [
        (Solid("ball", "red", "small", 0, 0, "spin"),),
        (Solid("ball", "red", "small", 0, 0, "orbit"),),
        (Solid("ball", "red", "small", -1, 0, "hit"), Solid("cube", "red", "small", 0.2, 0, "be hit")),
        (Solid("ball", "red", "small", -1, 0, "hit"), Solid("ball", "blue", "small", 0.2, 0)),
    ],
)
def test_what_cannot_be_does_not_fit(solids: tuple[Solid, ...]) -> None:
    assert not fits(scene_of(*solids))
    assert fits(scene_of(*solids).at_rest)
