"""The world: the same bytes each time, pictures that show what is said, edits that change only what they name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.document import Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.training.world.camera import look
from mmcore.training.world.edits import find_edit, sample_edit
from mmcore.training.world.language import caption, things
from mmcore.training.world.meaning import Said, Thing, spot
from mmcore.training.world.names import NAMES
from mmcore.training.world.parse import hear
from mmcore.training.world.paths import fits, paths
from mmcore.training.world.questions import question
from mmcore.training.world.render import Light, placed, render, sprite
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import BACKDROPS, COLOURS, SHAPES, STYLES, Scene, Solid
from mmcore.training.world.shown import Shown
from mmcore.training.world.styles import stands_out
from mmcore.training.world.take import FRAMES, SIZE
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
        source, _, aim = task.removeprefix("graded ").partition(" to ")
        if aim in ("text", "image", "video"):
            assert type(replies[-1]) is {"text": Text, "image": Image, "video": Video}[aim]
            assert {"text": Text, "image": Image}.get(source, Video) in given_kinds
        if task.endswith("edit"):
            kind = Image if task.startswith("image") else Video
            assert kind in given_kinds and [type(s) for s in replies] == [Text, kind]
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


def test_a_scene_that_allows_no_edit_does_not_hang() -> None:
    one = Solid("ball", "green", "small", -1.2956781, 0.9466141, "hit", 1.0878469)
    other = Solid("ball", "pink", "small", 0.0505983, 0.8444312, "be hit")
    scene = Scene((one, other), "night", height=1.58, style="grayscale")
    assert fits(scene)
    assert find_edit(np.random.default_rng(0), scene, True) is None
    with pytest.raises(MMCoreError, match="nothing can be changed"):
        sample_edit(np.random.default_rng(0), scene, True)
