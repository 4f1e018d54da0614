"""The tasks of the whole world: what goes on, stories, what is answered in plain words. See also test_world.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.document import Document, Text, Video
from mmcore.training.judge import introductions, judge, turns
from mmcore.training.world.meaning import Thing, meaning
from mmcore.training.world.mixtures import MIXTURES
from mmcore.training.world.others import OTHERS, sample_other
from mmcore.training.world.parse import hear, parse
from mmcore.training.world.render import render
from mmcore.training.world.sampling import sample_shots
from mmcore.training.world.scene import Scene
from mmcore.training.world.shots import question as shots_question
from mmcore.training.world.shown import FIRST, LAST, THEN
from mmcore.training.world.take import FRAMES
from mmcore.training.world.talk import SMALL_TALK
from mmcore.training.world.tasks import TASKS, sample_example

NEW = [task for task in TASKS if task not in MIXTURES["all"]]


@pytest.mark.quick
def test_shares_add_up_and_the_whole_is_whole() -> None:
    for name, mixture in MIXTURES.items():
        assert sum(mixture.values()) == pytest.approx(1), name
        assert set(mixture) <= set(TASKS)
    looks = {task for task in TASKS if task.startswith(("foreign", "graded"))}
    assert set(MIXTURES["whole"]) == set(TASKS) - looks


@pytest.mark.parametrize("task", NEW)
def test_the_truth_is_right_and_a_neighbours_is_not(task: str) -> None:
    """The readout is right about these scenes; what is true of another document is not true here."""
    first, second = (turns(sample_example(seed, task))[-1] for seed in (3, 5))
    assert judge(first, first.true).right
    if first.true != second.true:
        assert not judge(first, second.true).right


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(4))
def test_a_continuation_is_the_second_half(seed: int) -> None:
    example = sample_example(seed, "continuation")
    (shown,) = example.shown
    made = example.document.media[-1]
    assert isinstance(made, Video) and np.array_equal(made.frames, render(shown.scene)[FRAMES // 2 :])
    assert example.document.media[0].frames.shape == made.frames.shape


def test_a_half_that_does_not_go_on_is_wrong() -> None:
    """The given half again instead of the rest of a slide."""
    cut = [turns(sample_example(seed, "continuation"))[0] for seed in range(60)]
    slide = next(t for t in cut if any(s.motion in ("left", "right") for s in t.shown[0].scene.solids))
    assert not judge(slide, Document(slide.asked.media)).right


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(4))
def test_a_story_tells_what_its_pictures_show(seed: int) -> None:
    example = sample_example(seed, "story")
    (turn,) = turns(example)
    words = introductions(turn.true)
    assert [type(s).__name__ for s in turn.true] == ["Text", "Image", "Text", "Video", "Text", "Video"]
    for said, beginning, shown in zip(words, (FIRST, THEN, LAST), turn.shown, strict=True):
        assert parse(said.removeprefix(beginning)) == meaning(shown.scene, shown.clip, spotted=True)
    for shown in turn.shown[1:]:
        assert shown.before == turn.shown[0].scene


def test_a_story_with_its_sentences_swapped_is_wrong() -> None:
    (turn,) = turns(sample_example(0, "story"))
    a, image, b, second, c, third = turn.true.segments
    assert not judge(turn, Document((a, image, c, second, b, third))).right


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(4))
def test_a_cut_leads_from_one_scene_to_another_at_half_time(seed: int) -> None:
    (shown,) = sample_example(seed, "text to shots").shown
    first, second = shown.scene.shots
    half = FRAMES // 2
    made = render(shown.scene)
    assert np.array_equal(made[:half], render(replace(first, then=None), half))
    assert np.array_equal(made[half:], render(second, half))


@pytest.mark.quick
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_answers_about_shots_are_true(seed: int) -> None:
    """Each question, as it is heard, answered again by looking at both scenes."""
    rng = np.random.default_rng(seed)
    scene = sample_shots(rng)
    asked, said = shots_question(rng, scene)
    (heard,) = hear(asked)

    def named(slot: str) -> Thing:
        thing = heard.slots[slot]
        assert isinstance(thing, Thing)
        return thing

    def where(slot: str) -> int:
        thing = named(slot)
        (found,) = (i for i, shot in enumerate(scene.shots) if f"{thing.colour} {thing.shape}" in names(shot))
        return found

    def names(shot: Scene) -> list[str]:
        return [solid.name for solid in shot.solids]

    truth = {
        "shots": lambda: "two",
        "which shot": lambda: ("the first", "the second")[where("thing")],
        "which first": lambda: "the {0.colour} {0.shape}".format(named(min(("thing", "other"), key=where))),
    }
    assert said == truth[heard.kind]()


def test_shots_in_the_wrong_order_are_wrong() -> None:
    (turn,) = turns(sample_example(1, "text to shots"))
    words, clip = turn.true.segments
    assert isinstance(clip, Video) and judge(turn, turn.true).right
    swapped = replace(clip, frames=np.concatenate((clip.frames[FRAMES // 2 :], clip.frames[: FRAMES // 2])))
    assert not judge(turn, Document((words, swapped))).right
    assert not judge(turn, Document((words, replace(clip, frames=clip.frames[:8].repeat(2, 0))))).right


@pytest.mark.quick
@pytest.mark.parametrize("task", ["missing in image", "missing in video"])
def test_what_is_said_to_be_missing_is_missing(task: str) -> None:
    for seed in range(20):
        words = {s.learn: s.text for s in sample_example(seed, task).document if isinstance(s, Text)}
        found = hear(words[False])
        assert found
        for heard in found:
            thing = heard.slots["thing"]
            assert isinstance(thing, Thing)
            assert words[True] == f"there is no {' '.join(filter(None, (thing.colour, thing.shape)))}"


@pytest.mark.quick
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("frames", [1, 8])
def test_others_are_of_their_size_and_of_more_than_one_colour(name: str, frames: int) -> None:
    s = np.linspace(0, 1, frames)
    made = OTHERS[name](np.random.default_rng(1), s, (48, 64))
    assert made.shape == (frames, 48, 64, 3) and made.std() > 0.01
    if frames > 1:
        assert not np.array_equal(made[0], made[-1])


@pytest.mark.quick
def test_an_other_is_drawn_by_seed() -> None:
    first, again = (sample_other(np.random.default_rng(9), 4, (64, 64)) for _ in range(2))
    assert first[0] == again[0] and np.array_equal(first[1], again[1]) and first[1].dtype == np.uint8


@pytest.mark.quick
def test_small_talk_has_one_answer_to_each_question() -> None:
    asked = [question for questions, _ in SMALL_TALK for question in questions]
    assert len(asked) == len(set(asked))
    for seed in range(20):
        segments = sample_example(seed, "small talk").document.segments
        assert all(isinstance(s, Text) and s.learn == bool(i % 2) for i, s in enumerate(segments))
