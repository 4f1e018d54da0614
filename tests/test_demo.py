"""The chat page without a browser: turns, limits, stopping, files, and what is served to whom."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mmcore.cli import main
from mmcore.demo.look import Look
from mmcore.demo.serve import running
from mmcore.demo.session import Session
from mmcore.demo.sessions import Sessions
from mmcore.demo.turns import Choice, Shown, Turn
from mmcore.demo.uploads import MAX_MEDIA
from mmcore.demo.words import LANGUAGES, language
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick

with_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")

CLIP, PICTURE = Choice("video", steps=3, seed=5), Choice("image", steps=3, seed=5)


@pytest.fixture
def session(pipeline: Pipeline, tmp_path: Path) -> Session:
    return Session(pipeline, tmp_path / "session")


def ask(session: Session, words: str, choice: Choice) -> Turn:
    session.say([Text(words)])
    *_, turn = session.answer(choice)
    return turn


def clip_file(folder: Path, frames: int = 5, fps: float = 8.0) -> Path:
    return Video(noise_clip(0, frames, 16), fps).save(folder / "upload.mp4")


def test_a_clip_sharpens_step_by_step_and_is_kept(session: Session) -> None:
    session.say([Text("a red ball")])
    seen = [(turn.sketch.step, turn.sketch.steps) for turn in session.answer(CLIP) if turn.sketch]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    [shown] = session.shown
    assert shown.file.suffix == ".mp4" and Image.open(shown.strip).frames.shape == (1, 8, 32, 3)
    *before, last = session.turns[-1].said
    words = [said for said in before if isinstance(said, Text)]
    assert last is shown and words == before and not session.writing
    assert session.document == Document((Text("a red ball"), *words, shown.medium)) and shown.medium.learn


def test_words_come_one_after_the_other(session: Session) -> None:
    session.say([Text("what is this ?")])
    lengths = [len(turn.words) for turn in session.answer(Choice("text")) if turn.words]
    assert lengths == sorted(lengths) and len(set(lengths)) > 3
    [said] = session.turns[0].said
    assert isinstance(said, Text) and len(said.text) == lengths[-1]


def test_the_whole_conversation_is_given_to_the_model(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(session, "a red ball", CLIP)
    given = []
    stream = session.pipeline.stream
    monkeypatch.setattr(
        session.pipeline, "stream", lambda requests, settings: (given.extend(requests), stream(requests, settings))[1]
    )
    ask(session, "make it blue", PICTURE)
    [request] = given
    first = session.turns[0]
    assert request.document.segments[:1] == (Text("a red ball"),) and len(request.document) == 2 + len(first.said)
    assert [type(s) for s in request.document][-2:] == [Video, Text]
    assert (request.want, request.seed) == ("image", 5)


def test_what_is_not_chosen_is_what_suits_the_model(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    suits, given = replace(session.pipeline.translator.settings, steps=2, shift=2.0, tokens=5), []
    monkeypatch.setattr(session.pipeline.translator, "settings", suits)
    stream = session.pipeline.stream
    monkeypatch.setattr(
        session.pipeline, "stream", lambda requests, settings: (given.append(settings), stream(requests, settings))[1]
    )
    ask(session, "a red ball", Choice("image"))
    ask(session, "what is this ?", Choice("text", steps=3, guidance=2.0))
    guided = replace(suits, steps=3, guidance=replace(suits.guidance, text=2.0), temperature=0.0)
    assert given == [suits, guided]


@pytest.mark.parametrize("choice", [Choice("text"), Choice("video", steps=50)])
def test_stop_ends_a_reply_at_once(choice: Choice, session: Session) -> None:
    session.say([Text("a red ball")])
    writing = session.answer(choice)
    next(turn for turn in writing if turn.sketch or choice.want == "text")
    session.stop()
    assert len(list(writing)) == 1
    turn = session.turns[-1]
    assert turn.note == "stopped" and not turn.writing and session.shown == []
    assert turn.said and all(isinstance(said, Text) for said in turn.said), "words that were said stay"


def test_a_stop_before_the_reply_begins_counts(session: Session) -> None:
    session.say([Text("a red ball")])
    session.stop()
    assert [turn.note for turn in session.answer(CLIP)] == ["stopped"]
    assert [turn.sketch.step for turn in answered_again(session) if turn.sketch] == [1, 2, 3]


def answered_again(session: Session) -> Iterator[Turn]:
    session.retry()
    return session.answer(CLIP)


def test_leaving_half_way_frees_the_session(session: Session) -> None:
    session.say([Text("a red ball")])
    writing = session.answer(CLIP)
    next(writing)
    assert session.writing
    del writing
    assert not session.writing


def test_retry_undo_and_clear(session: Session) -> None:
    first = ask(session, "a red ball", CLIP).said[-1]
    session.retry()
    *_, turn = session.answer(Choice("video", steps=3, seed=6))
    again = turn.said[-1]
    assert isinstance(first, Shown) and isinstance(again, Shown)
    assert turn.seed == 6 and again.number == 1 and again.medium != first.medium
    ask(session, "make it blue", PICTURE)
    assert session.undo() == "make it blue" and len(session.turns) == 1
    session.clear()
    assert session.document == Document() and session.undo() == ""


def test_an_earlier_medium_is_sent_again(session: Session) -> None:
    ask(session, "a red ball", CLIP)
    ask(session, "a blue cube", PICTURE)
    session.about = session.shown[0]
    session.say([Text("make it green")])
    [again, words] = session.turns[-1].asked
    assert isinstance(again, Shown) and words == Text("make it green") and session.about is None
    assert np.array_equal(again.medium.frames, session.shown[0].medium.frames)
    assert (again.number, again.medium.learn) == (3, False)


def test_nothing_is_taken_while_a_reply_is_written(session: Session) -> None:
    session.say([Text("a red ball")])
    session.say([Text("and now?")])
    assert [turn.text for turn in session.turns] == ["a red ball"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken.mp4", "broken.mp4: not a picture or a clip"),
        ("empty.png", "empty.png: the file is empty"),
        ("large.mp4", "large.mp4: is larger than 20 MB"),
        ("long.mp4", "long.mp4: is 61 s long, at most 60 s are taken"),
    ],
)
def test_a_bad_upload_is_one_sentence(name: str, message: str, session: Session, tmp_path: Path) -> None:
    path = tmp_path / name
    match name:
        case "broken.mp4":
            path.write_text("words " * 100)
        case "empty.png":
            path.touch()
        case "large.mp4":
            with path.open("wb") as file:
                file.truncate(21 * 2**20)
        case "long.mp4":
            Video(noise_clip(0, 61, 16), 1.0).save(path)
    session.say([path, Text("what is this?")])
    [turn] = session.turns
    assert turn.note.startswith(message) and "\n" not in turn.note and str(tmp_path) not in turn.note
    assert turn.refused and session.document == Document() and list(session.answer(CLIP)) == []


def test_a_conversation_holds_so_many_media(session: Session, tmp_path: Path) -> None:
    path = clip_file(tmp_path)
    session.say([path] * (MAX_MEDIA + 1))
    assert "8 pictures and clips at most" in session.turns[-1].note
    session.clear()
    session.say([*[path] * MAX_MEDIA, Text("make it blue")])
    *_, turn = session.answer(CLIP)
    assert turn.note == "full" and len(session.shown) == MAX_MEDIA


def test_an_upload_is_taken_as_the_model_sees_it(session: Session, tmp_path: Path) -> None:
    session.say([clip_file(tmp_path, frames=12, fps=24.0)])
    assert (session.shown[0].medium.size, session.shown[0].medium.fps) == ((4, 8, 8), 8.0)


def test_save_and_load(session: Session, pipeline: Pipeline, tmp_path: Path) -> None:
    ask(session, "a red ball", CLIP)
    ask(session, "what is this ?", Choice("text"))
    other = Session(pipeline, tmp_path / "other")
    other.load(session.save())
    assert other.document == session.document
    assert [turn.text for turn in other.turns] == ["a red ball", "what is this ?"]
    (tmp_path / "no.zip").write_text("no")
    with pytest.raises(MMCoreError, match=r"no\.zip: not a ZIP file"):
        other.load(tmp_path / "no.zip")
    assert len(other.turns) == 2, "what was there stays"


def test_sessions_are_apart_and_their_files_go(pipeline: Pipeline, tmp_path: Path) -> None:
    sessions = Sessions(pipeline, tmp_path)
    one, two = sessions.of("one"), sessions.of("two")
    ask(one, "a red ball", PICTURE)
    assert sessions.of("one") is one and two.shown == [] and one.folder != two.folder
    file = one.shown[0].file
    assert file.exists()
    sessions.close("one")
    assert not one.folder.exists() and two.folder.exists() and len(sessions) == 1
    sessions.sweep(idle=3600)
    assert two.folder.exists()
    sessions.sweep(idle=0)
    assert not two.folder.exists() and len(sessions) == 0


def test_what_people_write_is_no_markup(session: Session) -> None:
    ask(session, "<img src=x onerror=alert(1)>", PICTURE)
    page = Look("en").talk(session, [])
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_both_languages_say_everything() -> None:
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    assert english.keys() == chinese.keys()
    for key in english:
        assert english[key].count("{") == chinese[key].count("{"), key
    assert [language(a) for a in ("zh-CN,zh;q=0.9", "en", "", "de,zh")] == ["zh", "en", "en", "en"]


def test_without_gradio_one_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mmcore.commands.find_spec", lambda _: None)
    assert main(["demo", "--model", "nowhere"]) == 2
    assert capsys.readouterr().err == "mmcore: the page needs gradio; install it with: pip install mmcore[demo]\n"


@with_gradio
def test_the_page_serves_media_and_nothing_else(pipeline: Pipeline, root: Path) -> None:
    with running(pipeline, [Document((Image(noise_clip(0, 1)), Text("what is this?")))]) as address:
        assert address.startswith("http://127.0.0.1:")
        for path in (root / "pyproject.toml", Path("/etc/passwd")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{address}gradio_api/file={path}")
            assert refused.value.code == 403
        page = urllib.request.urlopen(address).read().decode()
        assert "mmcore" in page and "fonts.googleapis.com" not in page


@with_gradio
def test_a_name_and_a_password_are_asked_for(pipeline: Pipeline) -> None:
    with pytest.raises(MMCoreError, match="--auth takes USER:PASSWORD"), running(pipeline, [], auth="alone"):
        pass
    with running(pipeline, [], auth="ann:secret") as address:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}config")
        assert refused.value.code == 401


@with_gradio
def test_a_port_that_is_taken(pipeline: Pipeline) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(MMCoreError, match=f"cannot listen on 127.0.0.1:{port}"),
            running(pipeline, [], port=port),
        ):
            pass


@with_gradio
def test_the_command_opens_the_page_and_leaves_nothing_behind(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.save(tmp_path / "model")
    (tmp_path / "place").mkdir()
    command = [sys.executable, "-m", "mmcore", "demo", "--model", str(tmp_path / "model")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path / "place")}
    ) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        address = told.split()[4]
        assert urllib.request.urlopen(address).status == 200 and list((tmp_path / "place").iterdir())
        process.terminate()
    assert process.returncode == 130 and list((tmp_path / "place").iterdir()) == []
