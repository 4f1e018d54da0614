"""Documents: equal after a round trip, and every malformed file is one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError

pytestmark = pytest.mark.quick


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    learn = draw(st.booleans())
    if draw(st.booleans()):
        return Text(draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), learn)
    t, h, w = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)))
    frames = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (t, h, w, 3), dtype=np.uint8)
    return Image(frames, learn=learn) if t == 1 else Video(frames, draw(st.sampled_from((8.0, 29.97))), learn)


@settings(max_examples=40, deadline=None)
@given(st.lists(segments(), max_size=4))
def test_saved_equals_loaded(drawn: list[Segment]) -> None:
    document = Document(tuple(drawn))
    with TemporaryDirectory() as folder:
        document.save(folder)
        assert Document.load(folder) == document


def test_parts_of_a_document() -> None:
    image = Image(np.zeros((1, 2, 2, 3), np.uint8))
    document = Document((Text("a"), image)) + Document((Text("b", True),))
    assert document.text == "a b" and document.media == (image,) and len(document) == 3
    assert all(s.learn for s in document.learnt(True)) and not document.segments[0].learn


def test_frames_are_nobody_elses() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    video = Video(frames)
    with pytest.raises(ValueError, match="read-only"):
        video.frames[0] = 1
    assert frames.flags.writeable, "the caller's array is left as it was"


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), 8, "must be"),
        (np.zeros((2, 4, 4, 3)), 8, "float64"),
        (np.zeros((0, 4, 4, 3), np.uint8), 8, "nothing empty"),
        (np.zeros((2, 4, 4, 3), np.uint8), 0, "fps must be above 0"),
    ],
)
def test_frames_that_make_no_sense(frames: np.ndarray, fps: float, message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        Video(frames, fps)


def test_an_image_has_one_frame() -> None:
    with pytest.raises(MMCoreError, match="use Video"):
        Image(np.zeros((2, 4, 4, 3), np.uint8))


def test_media_show_themselves() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert "data:image/png;base64," in Image(frames[:1])._repr_html_()
    assert "data:video/mp4;base64," in Video(frames)._repr_html_()


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        '{"segments": 3}',
        '{"segments": [3]}',
        '{"segments": [{"type": "sound"}]}',
        '{"segments": [{"type": "text"}]}',
        '{"segments": [{"type": "image"}]}',
        '{"segments": [{"type": "image", "file": "none.png"}]}',
        '{"segments": [{"type": "video", "file": "a.png", "frames": 7}]}',
        '{"segments": [{"type": "video", "file": "a.png", "frames": "x"}]}',
        '{"segments": [{"type": "video", "file": "a.png", "frames": 2, "fps": -1}]}',
    ],
)
def test_malformed_documents_give_one_line(index: str, tmp_path: Path) -> None:
    Image(np.zeros((1, 4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "document.json").write_text(index)
    with pytest.raises(MMCoreError) as raised:
        Document.load(tmp_path)
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "link.png"])
def test_a_document_reads_nothing_outside_its_folder(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    Image(np.zeros((1, 4, 4, 3), np.uint8)).save(outside)
    folder = tmp_path / "document"
    folder.mkdir()
    (folder / "link.png").symlink_to(outside)
    (folder / "document.json").write_text(json.dumps({"segments": [{"type": "image", "file": name}]}))
    with pytest.raises(MMCoreError, match="leads out of the folder"):
        Document.load(folder)


def test_a_missing_document(tmp_path: Path) -> None:
    with pytest.raises(MMCoreError, match="cannot read"):
        Document.load(tmp_path / "none")
