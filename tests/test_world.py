"""The world: the same bytes each time, pictures that show what is said, edits that change only what they name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.document import Image, Text, Video
from mmcore.training.world.camera import look
from mmcore.training.world.edits import REVERSED, sample_edit
from mmcore.training.world.language import caption, things
from mmcore.training.world.meaning import Said, Thing, spot
from mmcore.training.world.names import NAMES
from mmcore.training.world.parse import hear
from mmcore.training.world.paths import fits, goes, paths
from mmcore.training.world.physics import velocity_error
from mmcore.training.world.questions import question
from mmcore.training.world.render import Light, placed, render, sprite
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import ALONE, BACKDROPS, CAMERAS, COLOURS, SHAPES, SIZES, STYLES, Scene, Solid
from mmcore.training.world.shown import FRAMES, SIZE, Shown
from mmcore.training.world.styles import stands_out
from mmcore.training.world.tasks import TASKS, sample_document

pytestmark = pytest.mark.quick

seeds = st.integers(0, 2**31)


def scene_of(*solids: Solid, backdrop: str = "gray room") -> Scene:
    return Scene(solids, backdrop)


def stain(frame: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Where a frame differs from an empty one."""
    return np.abs(frame.astype(int) - empty.astype(int)).max(-1) > 40


def middle(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_gives_the_same_bytes(task: str) -> None:
    assert sample_document(3, task) == sample_document(3, task)
    assert sample_document(3, task) != sample_document(4, task)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_what_its_name_says(task: str) -> None:
    for seed in range(6):
        document = sample_document(seed, task)
        given_kinds = {type(s) for s in document if not s.learn}
        replies = [s for s in document if s.learn]
        source, _, aim = task.partition(" to ")
        if aim in ("text", "image", "video"):
            assert type(replies[-1]) is {"text": Text, "image": Image, "video": Video}[aim]
            assert {"text": Text, "image": Image}.get(source, Video) in given_kinds
        if task.endswith("edit"):
            kind = Image if task.startswith("image") else Video
            assert kind in given_kinds and [type(s) for s in replies] == [kind]
        frames = FRAMES // 2 if task in ("continuation", "uniform motion") else FRAMES
        for medium in document.media:
            assert medium.size == ((1 if isinstance(medium, Image) else frames), *SIZE)


def test_some_chats_edit_an_earlier_medium() -> None:
    said = [s.text for i in range(60) for s in sample_document(i, "chat") if isinstance(s, Text)]
    assert any("first" in words for words in said)


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans())
def test_scenes_are_fit_to_be_seen(seed: int, moving: bool) -> None:
    scene = sample_scene(np.random.default_rng(seed), moving)
    assert 1 <= len(scene.solids) <= 4 and fits(scene)
    assert len({s.name for s in scene.solids}) == len(scene.solids)
    assert [s.x for s in scene.solids] == sorted(s.x for s in scene.solids)
    assert moving or all(s.motion == "still" for s in scene.solids)


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans())
def test_an_edit_changes_the_scene_and_leaves_it_whole(seed: int, clip: bool) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, clip)
    edit = sample_edit(rng, scene, clip)
    assert edit.scene != scene and fits(edit.scene)
    kept = [s for s in scene.solids if s in edit.scene.solids]
    (heard,) = hear(edit.instruction)
    if heard.kind != "reverse":
        assert len(kept) >= len(scene.solids) - (2 if heard.kind == "swap" else 1), "no more changes than was asked"
    assert (edit.scene.light, edit.scene.gain) == (scene.light, scene.gain)


@pytest.mark.parametrize("motion", REVERSED)
def test_a_clip_in_reverse_is_its_frames_in_reverse(motion: str) -> None:
    dx, dz = goes(motion, 0.7)
    cone = Solid("cone", "red", "large", 0.5 - dx / 2, 0.3 - dz / 2, motion, 0.7)
    scene = scene_of(Solid("cylinder", "green", "small", -1.2, 0.3, "bounce"), cone)
    rng = np.random.default_rng(0)
    edit = sample_edit(rng, scene, True, "reverse")
    assert np.abs(render(edit.scene).astype(int) - render(scene)[::-1]).max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_solids_that_swap_take_each_others_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, False, 2)
    scene = replace(scene, solids=tuple(replace(solid, size="small") for solid in scene.solids))
    edit = sample_edit(rng, scene, False, "swap")
    assert [s.name for s in edit.scene.solids] == [s.name for s in reversed(scene.solids)]
    assert [(s.x, s.z) for s in edit.scene.solids] == [(s.x, s.z) for s in scene.solids]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_moved_stands_where_it_was_to_go(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, False, 1)
    edit = sample_edit(rng, scene, False, "move")
    (heard,), (solid,) = hear(edit.instruction), edit.scene.solids
    assert spot(solid.x, solid.z).split(", ")[0] == heard.slots["part"]
    assert replace(solid, x=scene.solids[0].x) == scene.solids[0]


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_thing_means_one_solid(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed), True)
    for i in range(len(scene.solids)):
        for thing in things(scene, i):
            fitting = [s for s in scene.solids if thing.shape in (None, s.shape) and thing.colour in (None, s.colour)]
            assert fitting == [scene.solids[i]], thing


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_answers_are_true(seed: int) -> None:
    """Each question, as it is heard, answered again by looking at the scene."""
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, True)
    asked, said = question(rng, scene, True)
    (heard,) = hear(asked)
    slots = heard.slots

    def find(slot: str) -> Solid:
        thing = slots[slot]
        assert isinstance(thing, Thing)
        (solid,) = (s for s in scene.solids if thing.shape in (None, s.shape) and thing.colour in (None, s.colour))
        return solid

    def count() -> int:
        return sum(s.shape == slots["shape"] for s in scene.solids)

    numbers = ("zero", "one", "two", "three", "four")
    truth = {
        "count": lambda: numbers[len(scene.solids)],
        "count shape": lambda: numbers[count()],
        "number": lambda: yes(numbers[count()] == slots["number"]),
        "colour": lambda: find("thing").colour,
        "shape": lambda: f"a {find('thing').shape}",
        "size": lambda: find("thing").size,
        "exists": lambda: yes(any(Said(s.shape, s.colour) == slots["solid"] for s in scene.solids)),
        "place": lambda: NAMES["place"][scene.backdrop][0],
        "where": lambda: spot(find("thing").x, find("thing").z),
        "left": lambda: yes(find("thing").x < find("other").x),
        "right": lambda: yes(find("thing").x > find("other").x),
        "front": lambda: yes(find("thing").z < find("other").z),
        "behind": lambda: yes(find("thing").z > find("other").z),
        "what moves": lambda: those(s for s in scene.solids if s.motion != "still"),
        "which does": lambda: those(s for s in scene.solids if s.motion == slots["does"]),
        "camera": lambda: f"it {NAMES['camera'][scene.camera][0]}",
        "style": lambda: NAMES["style"][scene.style][0],
        "does": lambda: f"it {NAMES['does'][find('thing').motion][0]}",
    }
    assert said == truth[heard.kind]()


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


def those(solids: Iterable[Solid]) -> str:
    named = [f"the {s.name}" for s in solids]
    return " and ".join(filter(None, (", ".join(named[:-1]), *named[-1:]))) or "nothing moves"


def test_a_caption_by_hand() -> None:
    ball = Solid("ball", "orange", "large", -0.5, 0.0, "left")
    cube = Solid("cube", "red", "small", 0.8, 0.0)
    scene = scene_of(ball, cube, backdrop="night")
    assert caption(scene, True) == "a large orange ball slides to the left and a small red cube stands still, at night"
    assert caption(scene.at_rest, False) == "a large orange ball and a small red cube at night"
    assert caption(scene, True, (False, True), placed=False).startswith("an orange ball slides")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_solid_has_its_colour(shape: str, colour: str) -> None:
    solid = Solid(shape, colour, "large", 0.0, 0.3)
    scene = scene_of(solid)
    seen = stain(render(scene, 1)[0], render(replace(scene, solids=()), 1)[0])
    mean = render(scene, 1)[0][seen].mean(0)
    names = list(COLOURS)
    table = np.array([COLOURS[c] for c in names], float)
    angles = (table @ mean) / np.linalg.norm(table, axis=1) / np.linalg.norm(mean)
    assert names[int(angles.argmax())] == colour


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


@settings(max_examples=40, deadline=None)
@given(seeds, st.booleans())
def test_of_every_solid_enough_is_to_be_seen(seed: int, moving: bool) -> None:
    """At the beginning, of each at least two fifths of what one would see of it alone."""
    scene = sample_scene(np.random.default_rng(seed), moving)
    scene = replace(
        scene, solids=tuple(replace(s, motion="still") if s.motion == "appear" else s for s in scene.solids)
    )
    light, now = Light(scene.light, scene.gain), paths(scene, np.zeros(1))
    seen = look(SIZE, scene, 0.0)
    sprites = [sprite(placed(s, way, 0), light, seen) for s, way in zip(scene.solids, now, strict=True)]
    hidden = np.zeros(seen.ground.shape, bool)
    for drawn in sorted((d for d in sprites if d is not None), key=lambda d: d.z):
        mask = np.zeros_like(hidden)
        mask[drawn.where] = drawn.mask
        assert (mask & ~hidden).sum() >= 0.4 * mask.sum()
        hidden |= mask


def test_an_edit_of_one_solid_leaves_the_other_pixels() -> None:
    ball, cube = Solid("ball", "red", "large", -0.8, 0.0), Solid("cube", "blue", "large", 0.9, 0.0)
    before, after = scene_of(ball, cube), scene_of(replace(ball, colour="green"), cube)
    changed = (render(before, 1)[0] != render(after, 1)[0]).any(-1)
    assert 0 < changed.mean() < 0.15
    assert not changed[:, 32:].any()


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_a_still_is_the_first_frame_of_its_clip_at_any_size(backdrop: str) -> None:
    scene = scene_of(Solid("cone", "pink", "large", 0.2, 0.3, "bounce"), backdrop=backdrop)
    assert (render(scene, 1, (40, 56)) == render(scene, 5, (40, 56))[:1]).all()
    assert render(scene, 2, (40, 56)).shape == (2, 40, 56, 3)


def test_styles_by_hand() -> None:
    """Grayscale is luma; pixel art has blocks of few shades; in a sketch paper is bright and edges are dark."""
    scene = scene_of(Solid("ball", "red", "large", 0.0, 0.3), backdrop="night")
    plain, gray, blocks, sketch = (render(replace(scene, style=style), 1)[0].astype(int) for style in STYLES)
    luma = plain @ np.array((0.299, 0.587, 0.114))
    assert np.abs(gray - luma[..., None]).max() <= 0.5
    assert (blocks[::2] == blocks[1::2]).all() and (blocks[:, ::2] == blocks[:, 1::2]).all()
    assert len(np.unique(blocks)) <= 6
    assert (sketch[..., 0] == sketch[..., 2]).all() and sketch[5:12].min() > 140
    red = stain(plain.astype(np.uint8), render(replace(scene, solids=()), 1)[0])
    rim = red ^ np.roll(red, 1, 0)
    assert sketch[rim].mean() < sketch[red & ~rim].mean() - 20


def test_a_style_without_colours_is_told_without_them() -> None:
    """But who asks for a red ball in grayscale is told of a red ball."""
    shown = Shown(replace(scene_of(Solid("ball", "red", "large", 0.0, 0.3)), style="grayscale"), False)
    assert shown.caption == "a large ball in a gray room, in grayscale"
    assert shown.request.solids[0].colour == "red" and shown.asked_of(shown.scene).solids[0].colour is None
    assert stands_out(shown.scene)
    hidden = replace(shown.scene, backdrop="green field", solids=(Solid("ball", "green", "large", 0.0, 0.3),))
    assert not stands_out(hidden) and stands_out(replace(hidden, style="plain"))
