"""Notes: each medium that is given has one, nothing is lost, and what the model writes of it is what it goes by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.generate import Settings, make_settings
from mmcore.notes import given_media, with_notes
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.data import VALIDATION
from mmcore.training.recipe import load_recipe
from mmcore.training.sources import world, world_lines
from mmcore.training.subjects import shape
from mmcore.training.world.meaning import meaning, spot
from mmcore.training.world.notes import ALONE, QUESTION
from mmcore.training.world.parse import parse
from mmcore.training.world.take import Take
from mmcore.training.world.tasks import TASKS, sample_document, sample_lines
from tests.conftest import noise_clip

ASK = "say where everything is"

segments = st.builds(
    lambda kind, learn: Text(kind, learn) if kind else Image(noise_clip(0, 1), learn=learn),
    st.sampled_from(("a", "b", "")),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(segments, max_size=8))
def test_each_given_medium_has_its_note_before_the_words_of_its_turn(lines: list[Segment]) -> None:
    noted = with_notes(lines, ASK, lambda medium: f"note {lines.index(medium)}")
    for i, line in enumerate(noted):
        if line in given_media(lines):
            assert noted[i + 1 : i + 3] == (Text(ASK), Text(f"note {lines.index(line)}", True))
    added = [s for s in noted if isinstance(s, Text) and (s.text == ASK or s.text.startswith("note"))]
    assert len(added) == 2 * len(given_media(lines))
    left = [s for s in noted if s not in added]
    assert [s for s in left if s.learn] == [s for s in lines if s.learn], "replies stand as they stood"
    assert [s for s in left if isinstance(s, Text)] == [s for s in lines if isinstance(s, Text)]
    assert given_media(left) == given_media(lines)
    turn = [s.learn for s in left]
    assert turn == [s.learn for s in lines], "turns stay turns"


def test_words_wait_for_the_notes() -> None:
    clip, picture = Video(noise_clip(0)), Image(noise_clip(1, 1))
    sent = (Text("make it like this:"), clip, picture, Text("done", True), Text("thanks"))
    assert with_notes(sent, ASK, lambda medium: type(medium).__name__) == (
        *(clip, Text(ASK), Text("Video", True), picture, Text(ASK), Text("Image", True)),
        *(Text("make it like this:"), Text("done", True), Text("thanks")),
    )


@pytest.mark.parametrize("task", [task for task in TASKS if task != "foreign video to text"])
def test_notes_of_the_world_are_true(task: str) -> None:
    """They say all that there is to see of each given medium, and in which part of the room it stands."""
    for seed in range(12):
        bare, shown = sample_lines(seed, task)
        lines, still = sample_lines(seed, task, notes=True)
        given = given_media(lines)
        notes = [lines[lines.index(medium) + 2] for medium in given]
        assert [s.text for s in lines if isinstance(s, Text) and s.text == QUESTION] == [QUESTION] * len(given)
        assert given == given_media(bare)[: len(given)] and bool(given) == bool(given_media(bare))
        for medium, note in zip(given, notes, strict=True):
            assert isinstance(note, Text) and note.learn
            if not isinstance(medium, Take):
                assert note.text.startswith("this is no scene of solids")
                continue
            told = parse(note.text)
            assert told is not None and told == meaning(medium.scene, medium.clip, spotted=True)
            assert told.solids[0].spot == spot(medium.scene.solids[0].x, medium.scene.solids[0].z)
        assert len(still) == sum(isinstance(line, Take) and line.learn for line in lines)
        if len(lines) == len(bare) + 2 * len(given):
            assert sum(line in bare for line in lines) >= len(bare) and still == shown


def test_some_documents_end_with_the_note() -> None:
    ended = sum(len(sample_lines(seed, "image question", notes=True)[0]) == 3 for seed in range(200))
    assert ALONE / 2 < ended / 200 < 2 * ALONE


def test_a_recipe_with_notes_draws_them_and_its_model_makes_them() -> None:
    recipe = load_recipe("debug", ["notes=true"])
    assert shape(recipe).note == QUESTION and not shape(load_recipe("debug")).note
    with_them = [world(recipe)(i) for i in range(40)]
    assert any(Text(QUESTION) in document.segments for document in with_them)
    for i, document in enumerate(with_them):
        told = [s for s in document if isinstance(s, Text)]
        assert told == [line for line in world_lines(recipe)(i) if isinstance(line, Text)]
        plain = sample_document(i, mixture=recipe.mixture, most=recipe.solids)
        assert [s.text for s in plain if isinstance(s, Text) and not s.learn][:1] != [QUESTION]


def test_a_run_begins_with_the_document_that_it_names() -> None:
    """And is validated on the same ones wherever it begins."""
    first, later = (world(load_recipe("debug", [f"begin={begin}"])) for begin in (0, 5))
    assert later(0) == first(5) != first(0) and later(VALIDATION) == first(VALIDATION)


@pytest.fixture
def noting(pipeline: Pipeline) -> Pipeline:
    pipeline.config.note = ASK
    return pipeline


def test_a_reply_goes_by_what_the_model_notes(noting: Pipeline) -> None:
    """The same as that to a document in which its own words stand already; alone, or beside others."""
    clip, picture = Video(noise_clip(0)), Image(noise_clip(1, 1))
    asked = [
        Document((Text("make it green"), clip)),
        Document((Text("a red ball"),)),
        Document((picture, Text("what is this ?"), Text("a ball", True), Text("and this ?"), clip)),
    ]
    together = noting.reply([Request(document, "video", seed=3) for document in asked], Settings(steps=1))
    notes: dict[int, str] = {}
    noting.config.note = ""
    for medium in (clip, picture):
        prompt = Document((medium, Text(ASK)))
        notes[id(medium)] = noting.reply([Request(prompt, "text")], Settings(temperature=0))[0].text
    assert any(notes.values())
    for document, made in zip(asked, together, strict=True):
        noted = Document(with_notes(tuple(document), ASK, lambda medium: notes[id(medium)]))
        by_hand = noting.reply([Request(noted, "video", seed=3)], Settings(steps=1))[0]
        assert made.text == by_hand.text
        assert np.abs(made.media[0].frames.astype(int) - by_hand.media[0].frames).max() <= 1
    bare = noting.reply([Request(asked[0], "video", seed=3)], Settings(steps=1))[0]
    assert not np.array_equal(bare.media[0].frames, together[0].media[0].frames), "notes are read"


def test_edits_captions_and_chats_make_notes(noting: Pipeline) -> None:
    clip = Video(noise_clip(0, 3))
    document = Document((clip, Text("make it blue")))
    told = noting.reply([Request(document, "video", seed=3)], make_settings({"steps": 1}))[0].media[0]
    assert np.array_equal(noting.edit(clip, "make it blue", seed=3, steps=1).frames, told.frames)
    chat = noting.chat(steps=1)
    chat.send("what is this ?", clip, want="text")
    assert next(s for s in chat.document if isinstance(s, Text)).text == "what is this ?", "nobody sees the notes"


def test_it_is_saved_with_the_model(noting: Pipeline, tmp_path: Path) -> None:
    noting.save(tmp_path / "model")
    assert MMCoreConfig.from_json_file(tmp_path / "model" / "config.json").note == ASK
    assert MMCoreConfig(**PRESETS["debug"]).note == ""
    assert replace(load_recipe("debug"), notes=True).notes
