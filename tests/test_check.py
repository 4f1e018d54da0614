"""Every fault of a folder of shards is found, and named by file, sample and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcore.cli import main
from mmcore.document import Document, Image, Text
from mmcore.training.check import faults
from mmcore.training.shards import Sample, Shards, write_shards
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick

GOOD = Sample.of(Document((Text("a"), Image(noise_clip(0, 1), learn=True))))
PICTURE = {"type": "image", "file": "001.png", "frames": 1, "fps": 8.0, "learn": True}


def image(**changes: object) -> list[dict[str, object]]:
    return [{**PICTURE, **changes}]


@pytest.mark.parametrize(
    ("segments", "field", "reason"),
    [
        ([{**PICTURE, "type": "sound"}], "segments[0].type", "got 'sound'"),
        ([3, PICTURE], "segments[0]", "one of text, image, video"),
        ([PICTURE, {"type": "text"}], "segments[1].text", "is missing"),
        ([PICTURE, {"type": "text", "text": 3}], "segments[1].text", "str is expected, got 3"),
        (image(learn=1), "segments[0].learn", "bool is expected, got 1"),
        (image(fps=0), "segments[0].fps", "must be above 0"),
        (image(frames="1"), "segments[0].frames", "int is expected"),
        (image(caption="x"), "segments[0].caption", "unknown; known are: file"),
        (image(file="002.png"), "segments[0].file", "there is no file '002.png'"),
        (image(file="../001.png"), "segments[0].file", "there is no file '../001.png'"),
        (image(frames=3), "segments[0].file", "malformed"),
        (image(learn=False), "segments", "nothing to learn"),
        ([{"type": "text", "text": "a", "learn": True}], "", "no segment names the file '001.png'"),
    ],
)
def test_each_fault_is_named(segments: list[dict[str, object]], field: str, reason: str) -> None:
    found = list(faults(Sample(segments, GOOD.files)))
    assert any(name == field and reason in why for name, why in found), found


def test_sound_shards_have_none_and_broken_ones_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(faults(GOOD)) == []
    write_shards([GOOD] * 3, tmp_path / "good")
    assert main(["data", "check", str(tmp_path / "good"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    broken = Sample(GOOD.segments, {"001.png": GOOD.files["001.png"][:60]})
    write_shards([GOOD, broken, GOOD], tmp_path / "bad")
    path, begin, end = Shards(tmp_path / "bad").place(2)
    content = path.read_bytes()
    path.write_bytes(content[:begin] + content[begin:end].replace(b'{"segm', b"{'segm") + content[end:])
    assert main(["data", "check", str(tmp_path / "bad"), "--json"]) == 2
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)
    assert first["place"].endswith("documents-000000.tar: 00000001") and first["field"] == "segments[1].file"
    assert "not a picture" in first["reason"]
    assert second["place"].endswith("documents-000000.tar") and second["reason"].startswith("00000002: no JSON of")
    assert captured.err.endswith("2 faults; they are named above\n")
    assert main(["data", "check", str(tmp_path / "bad")]) == 2
    assert "00000001: segments[1].file: 001.png: not a picture" in capsys.readouterr().out
