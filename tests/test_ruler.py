"""The ruler: what the readout reads from true renders, and that no planted fault gets past it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.training.evaluate import evaluate
from mmcore.training.judge import KEPT, Judges, Turn, judge, shows, turns
from mmcore.training.scores import baseline, closeness, floor, psnr, table, wilson
from mmcore.training.world.language import caption
from mmcore.training.world.meaning import Meaning, Said, meaning
from mmcore.training.world.parse import parse
from mmcore.training.world.readout import read_scene
from mmcore.training.world.render import render
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import STYLES, Scene, Solid
from mmcore.training.world.shown import Shown
from mmcore.training.world.tasks import sample_example


@pytest.mark.parametrize("seed", range(6))
def test_a_true_still_is_read_right(seed: int) -> None:
    rng = np.random.default_rng((7, seed))
    shown = Shown(sample_scene(rng, moving=False), clip=False)
    assert shows(shown.given(rng).drawn().frames, shown)


@pytest.mark.parametrize("seed", range(6))
def test_a_true_clip_is_read_right(seed: int) -> None:
    rng = np.random.default_rng((8, seed))
    shown = Shown(sample_scene(rng, moving=True), clip=True)
    found = read_scene(shown.given(rng).drawn().frames)
    assert found.scene.backdrop == shown.scene.backdrop and found.error < 20
    assert shown.asked_of(found.scene) == parse(shown.caption)
    for solid, true in zip(found.scene.solids, shown.scene.solids, strict=True):
        assert abs(solid.x - true.x) < 0.15 and abs(solid.z - true.z) < 0.3


BALL = Solid("ball", "red", "large", -0.8, 0.2, "right")
CUBE = Solid("cube", "blue", "small", 0.9, 0.9)
TRUE = Scene((BALL, CUBE), "gray room")

FAULTS: dict[str, np.ndarray] = {
    "colour": render(TRUE.swap(0, replace(BALL, colour="orange"))),
    "shape": render(TRUE.swap(0, replace(BALL, shape="cone"))),
    "size": render(TRUE.swap(0, replace(BALL, size="small"))),
    "one more": render(replace(TRUE, solids=(*TRUE.solids, Solid("cone", "green", "small", 0.2, -0.4)))),
    "one fewer": render(TRUE.without(1)),
    "nothing": render(replace(TRUE, solids=())),
    "backdrop": render(replace(TRUE, backdrop="night")),
    "direction": render(TRUE.swap(0, replace(BALL, x=0.4, motion="left"))),
    "another motion": render(TRUE.swap(0, replace(BALL, motion="bounce"))),
    "at rest": render(TRUE.at_rest),
    "backwards": render(TRUE)[::-1],
    "the other one moves": render(
        replace(TRUE.at_rest, solids=(replace(BALL, motion="still"), replace(CUBE, motion="vanish")))
    ),
    "sides swapped": render(replace(TRUE, solids=(replace(CUBE, x=-1.1), replace(BALL, x=-0.1)))),
    "colours swapped": render(replace(TRUE, solids=(replace(BALL, colour="blue"), replace(CUBE, colour="red")))),
    "one frame late": render(TRUE)[[0, *range(15)]],
    "merged": np.concatenate((render(TRUE)[:8], render(TRUE.without(0))[8:])),
    "camera": render(replace(TRUE, camera="pan left")),
    "style": render(replace(TRUE, style="pencil sketch")),
    "cut": render(replace(TRUE, then=replace(TRUE, backdrop="night"))),
    "noise": np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8),
}


def test_the_right_clip_passes() -> None:
    assert shows(render(TRUE), Shown(TRUE, True))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("clip", [False, True])
def test_a_style_is_read_and_what_it_shows(style: str, clip: bool) -> None:
    scene = replace(TRUE.swap(0, replace(BALL, motion="bounce")), backdrop="blue sky", style=style)
    shown = Shown(scene, clip)
    assert shows(shown.given(np.random.default_rng(1)).drawn().frames, shown)
    other = replace(scene, style=STYLES[STYLES.index(style) - 1])
    assert not shows(Shown(other, clip).written().frames, shown)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    assert not shows(FAULTS[fault], Shown(TRUE, True))


def test_what_was_left_open_may_be_anything() -> None:
    """Size and backdrop count only where they were asked for."""
    shown = Shown(TRUE.at_rest, False, sized=(False, False, False), placed=False)
    other = replace(TRUE.at_rest.swap(0, replace(BALL, size="small", motion="still")), backdrop="blue sky")
    assert shows(render(other, 1), shown)
    assert not shows(render(other, 1), replace(shown, placed=True))


@pytest.mark.quick
@given(seed=st.integers(0, 2**32), clip=st.booleans(), placed=st.booleans(), sized=st.tuples(*[st.booleans()] * 3))
def test_every_description_says_what_it_was_made_from(
    seed: int, clip: bool, placed: bool, sized: tuple[bool, ...]
) -> None:
    scene = sample_scene(np.random.default_rng(seed), moving=clip)
    assert parse(caption(scene, clip, sized, placed)) == meaning(scene, clip, sized, placed)


@pytest.mark.quick
@pytest.mark.parametrize(
    "words",
    ["", "nothing", "a red", "a red ball and", "red ball", "a red ball or a blue cube", "a red ball in a gray", "yes"],
)
def test_what_is_no_description_says_nothing(words: str) -> None:
    assert parse(words) is None


@pytest.mark.quick
def test_what_one_leaves_open_does_not_tell_two_apart() -> None:
    full = parse("a large red ball bounces, at night")
    assert full is not None and full == Meaning((Said("ball", "red", "large", "bounce"),), "night")
    assert full.as_far_as(Meaning((Said("ball", "red"),))) == Meaning((Said("ball", "red"),))
    assert full.as_far_as(Meaning(())) == full


def test_a_sentence_must_fit_its_picture_and_what_was_asked_for() -> None:
    turn = next(t for i in range(99) for t in turns(sample_example(i, "text to image"))[:1])
    words, picture = turn.true.segments
    assert judge(turn, turn.true).right
    lie = "here it is: a large red ball and a small blue cube at night"
    assert words != Text(lie, True) and not judge(turn, Document((Text(lie, True), picture))).right


def test_a_sentence_must_name_the_colours_asked_for_though_one_sees_none() -> None:
    shown = Shown(replace(TRUE.without(1).at_rest, style="grayscale"), clip=False)
    turn = Turn(
        Document((Text("draw a red ball in grayscale"),)), Document((Text("", True), shown.written())), (shown,)
    )
    for colour, right in (("red", True), ("blue", False)):
        words = f"here it is: a large {colour} ball in a gray room, in grayscale"
        assert judge(turn, Document((Text(words, True), shown.written()))).right is right


@pytest.mark.parametrize(
    ("told", "right"),
    [("far left, halfway", True), ("left, halfway", True), ("middle, halfway", False), ("left, far", False)],
)
def test_a_sentence_must_tell_where_its_solids_stand(told: str, right: bool) -> None:
    """A ball at x = -0.8, hardly in the leftmost fifth, and z = 0.2: the readout may take it for the next one."""
    shown = Shown(replace(TRUE.without(1), solids=(BALL,)), clip=True)
    turn = Turn(Document((Text("film a red ball"),)), Document((Text("", True), shown.written())), (shown,))
    words = f"here it is: a large red ball ({told}) slides to the right, in a gray room"
    assert judge(turn, Document((Text(words, True), shown.written()))).right is right


GREEN = TRUE.swap(0, replace(BALL, colour="green"))

EDITS: dict[str, tuple[Scene, bool, bool]] = {
    "done": (GREEN, True, True),
    "nothing done": (TRUE, False, True),
    "done, and the other one too": (GREEN.swap(1, replace(CUBE, colour="pink")), False, False),
    "done, on another backdrop": (replace(GREEN, backdrop="night"), False, False),
    "another colour": (TRUE.swap(0, replace(BALL, colour="purple")), False, True),
    "done, and the other one elsewhere": (GREEN.swap(1, replace(CUBE, x=0.3)), False, True),
    "done, the other one gone": (GREEN.without(1), False, False),
}
"""What came of "make the ball green", whether that is right, and whether the rest is kept."""


def edited(clip: bool) -> Turn:
    shown = Shown(GREEN, clip, before=TRUE)
    asked = Document((Shown(TRUE, clip).written(), Text("make the ball green")))
    return Turn(asked, Document((shown.written(),)), (shown,))


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_judged_by_what_it_changes_and_by_what_it_leaves(name: str) -> None:
    made, right, kept = EDITS[name]
    verdict = judge(edited(True), Document((Shown(made, True).written(),)))
    assert (verdict.right, verdict.parts[KEPT]) == (right, kept)


@pytest.mark.quick
def test_decibels_are_told_apart_where_an_edit_changes_nothing() -> None:
    """Who gives the source back is far from the truth as a whole, and equal to it elsewhere."""
    turn = edited(False)
    whole, kept = closeness("image edit", [turn], [Document(turn.asked.media)])
    assert whole.value < 30 and kept.value > 50
    assert [s.value for s in closeness("image edit", [turn], [Document()])] == [0, 0]


@pytest.mark.quick
def test_a_caption_is_judged_by_part() -> None:
    turn = next(t for i in range(99) for t in turns(sample_example(i, "image to text")) if " and " in t.true.text)
    told = (
        turn.true.text.replace("large", "small")
        if "large" in turn.true.text
        else turn.true.text.replace("small", "large")
    )
    verdict = judge(turn, Document((Text(told, True),)))
    assert not verdict.right and not verdict.parts.pop("sizes") and all(verdict.parts.values())


@pytest.mark.quick
def test_a_conversation_is_cut_at_its_replies() -> None:
    example = sample_example(11, "chat")
    cut = turns(example)
    segments = example.document.segments
    assert [s for turn in cut for s in turn.true] == [s for s in segments if s.learn]
    assert [shown for turn in cut for shown in turn.shown] == list(example.shown)
    for turn in cut:
        assert segments[: len(turn.asked)] == turn.asked.segments
        assert not turn.asked.segments[-1].learn and len(turn.shown) == len(turn.true.media)


@pytest.mark.quick
def test_words_are_right_word_for_word_and_media_do_not_stand_for_words() -> None:
    turn = turns(sample_example(0, "image question"))[0]
    assert judge(turn, turn.true).right
    assert not judge(turn, Document((Text(turn.true.text + " ", True),))).right
    assert not judge(turn, Document((*turn.true.segments, *turn.asked.media))).right
    assert not judge(turn, Document()).right


@pytest.mark.quick
def test_intervals_and_decibels_by_hand() -> None:
    """Wilson's interval of 8 of 10, as statsmodels gives it, and the PSNR of an error of 1 in 255."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    zeros = np.zeros((1, 4, 4, 3), np.uint8)
    assert psnr(zeros, zeros + 1) == pytest.approx(48.13, abs=0.01) and psnr(zeros, zeros) == 99


def test_floor_and_baseline() -> None:
    documents = [turns(sample_example(i, "text to image"))[:1] for i in range(4)]
    judges = Judges(0)
    assert floor(documents, judges) == 1.0 and baseline(documents) < 0.5
    answers = [turns(sample_example(i, "image question"))[:1] for i in range(20)]
    assert floor(answers, judges) is None and 0.05 <= baseline(answers) < 1


def test_a_model_that_knows_nothing_scores_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.model.config.height = pipeline.model.config.width_px = 64
    folder = tmp_path / "report"
    report = evaluate(pipeline, 2, ("text to image", "image question"), progress=False, folder=folder)
    scores = report.scores
    rows = ["text to image", "image question", "text to image, new pairs", "image question, new pairs", "all of these"]
    assert [s.task for s in scores] == rows
    assert all(s.value == 0 and s.low == 0 and s.high > 0.4 for s in scores[:4])
    assert table(scores).count("\n") == 5
    assert json.loads((folder / "scores.json").read_text())[0]["task"] == "text to image"
    assert Image.open(folder / "wrong.png").frames.std() > 0


def test_more_processes_judge_the_same() -> None:
    told = [turns(sample_example(i, "image edit"))[0] for i in range(3)]
    made = [told[0].true, told[0].true, told[2].true]
    with Judges(2) as judges:
        assert judges.of(told, made) == Judges(0).of(told, made)


def test_an_evaluation_goes_on_where_it_was_broken_off(pipeline: Pipeline, tmp_path: Path, monkeypatch) -> None:
    """What the folder holds is not written again, and gives the same report; another model is refused."""
    pipeline.model.config.height = pipeline.model.config.width_px = 64
    tasks, asked = ("image question",), []
    only = partial(evaluate, pipeline, tasks=tasks, progress=False, held_out=())
    whole = only(count=3, folder=tmp_path / "a")
    only(count=2, folder=tmp_path / "b")
    reply = pipeline.reply
    monkeypatch.setattr(pipeline, "reply", lambda requests, **rest: asked.extend(requests) or reply(requests, **rest))
    resumed = only(count=3, folder=tmp_path / "b")
    assert len(asked) == 1
    assert [c.reply for c in resumed.cases] == [c.reply for c in whole.cases] and resumed.scores == whole.scores
    with torch.no_grad():
        next(pipeline.model.parameters()).add_(1)
    with pytest.raises(MMCoreError, match="another model"):
        only(count=3, folder=tmp_path / "b")


@pytest.mark.quick
def test_media_know_their_kind() -> None:
    assert isinstance(Shown(TRUE, True).written(), Video) and isinstance(Shown(TRUE, False).written(), Image)
