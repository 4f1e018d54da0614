"""Datasets as people have them become documents; what is wrong with a row is told with file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mmcore.cli import main
from mmcore.document import Document, Image, Text, Video
from mmcore.training.shards import Shards
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with media, to work in; a picture lies outside of it."""
    Image(noise_clip(9, 1)).save(tmp_path / "secret.png")
    folder = tmp_path / "here"
    folder.mkdir()
    for i in range(3):
        Image(noise_clip(i, 1)).save(folder / f"{i}.png")
        Video(noise_clip(i, 2)).save(folder / f"{i}.gif")
    monkeypatch.chdir(folder)
    return folder


def image(i: int, learn: bool = False) -> Image:
    return Image(noise_clip(i, 1), learn=learn)


def shape(document: Document) -> list[object]:
    """A document without its frames: words as they are, media as the name of their class, `+` where it is learnt."""
    return [(s.text if isinstance(s, Text) else type(s).__name__) + "+" * s.learn for s in document]


def converted(kind: str, rows: object, suffix: str = ".jsonl") -> list[Document]:
    source = Path(f"rows{suffix}")
    if suffix == ".csv":
        assert isinstance(rows, list)
        with source.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".json":
        source.write_text(json.dumps(rows, indent=1))
    else:
        assert isinstance(rows, list)
        source.write_text("\n".join(json.dumps(row) for row in rows))
    assert main(["data", "convert", kind, str(source), "out"]) == 0
    shards = Shards(Path("out"))
    return [shards.document(i) for i in range(len(shards))]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_image_text_pairs(suffix: str, here: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": f'a "thing",\n{i}'} for i in range(2)]
    first, second, *rest = converted("image-text", rows, suffix)
    assert first == Document((Text('a "thing",\n0'), image(0, True)))
    assert second == Document((image(0), Text("what is this?"), Text('a "thing",\n0', True)))
    assert len(rest) == 2 and rest[0].media[0] == image(1, True)


def test_video_captions(here: Path) -> None:
    made = converted("video-text", [{"video": "1.gif", "caption": "noise"}], ".csv")
    assert [shape(d) for d in made] == [["noise", "Video+"], ["Video", "what is this?", "noise+"]]


@pytest.mark.parametrize(("kind", "suffix", "name"), [("image-edit", "png", "Image"), ("video-edit", "gif", "Video")])
def test_edits(kind: str, suffix: str, name: str, here: Path) -> None:
    row = {"original_image": f"0.{suffix}", "edit_prompt": "make it blue", "edited_image": f"1.{suffix}"}
    (made,) = converted(kind, [row])
    assert shape(made) == [name, "make it blue", f"{name}+"]
    assert kind == "video-edit" or made.media == (image(0), image(1, True))


def test_conversations(here: Path) -> None:
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "noise"), ("human", "And this <video> ?"), ("gpt", "more")]
    row = {"image": "2.png", "video": ["0.gif"], "conversations": [{"from": f, "value": v} for f, v in turns]}
    (made,) = converted("conversation", [row], ".json")
    assert shape(made) == ["Image", "What is it?", "noise+", "And this", "Video", "?", "more+"]
    assert made.media[0] == image(2)


def test_interleaved_pages(here: Path) -> None:
    obelics = {"images": [None, "0.png", None], "texts": ["once", None, "more"]}
    infos = [{"image_name": "1.png", "matched_text_index": 1}, {"image_name": "2.png", "matched_text_index": 1}]
    mmc4 = {"text_list": ["once", "more"], "image_info": infos}
    first, second = converted("interleaved", [obelics, mmc4])
    assert shape(first) == ["once+", "Image+", "more+"] and shape(second) == ["once+", "Image+", "Image+", "more+"]
    assert second.media == (image(1, True), image(2, True))


GOOD = {"image": "0.png", "caption": "noise"}
WRONG = [
    ("image-text", {"image": "7.png", "caption": "x"}, "there is no file 7.png"),
    ("image-text", {"image": "../secret.png", "caption": "x"}, "../secret.png leads out of"),
    ("image-text", {"image": "/etc/hostname", "caption": "x"}, "/etc/hostname leads out of"),
    ("image-text", {"image": "link.png", "caption": "x"}, "link.png leads out of"),
    ("image-text", {"image": "https://a.b/c.png", "caption": "x"}, "nothing is fetched"),
    ("image-text", {"image": "0.png"}, "a field named caption or text"),
    ("image-text", {"image": "0.png", "caption": " "}, "words are expected"),
    ("image-text", {"image": 3, "caption": "x"}, "the name of a media file is expected, got 3"),
    ("image-text", 3, "an object is expected"),
    ("image-text", "{", "an object is expected"),
    ("conversation", {"conversations": [{"from": "human", "value": "<image>"}]}, "more <image> than files"),
    ("conversation", {"image": "0.png", "conversations": [{"value": "x"}]}, "0.png is shown nowhere"),
    ("conversation", {"conversations": [3]}, "turns of"),
    ("interleaved", {"images": [None], "texts": ["a", "b"]}, "1 images stand beside 2 texts"),
    ("interleaved", {"text_list": ["a"], "image_info": [3]}, "object has no attribute 'get'"),
]


@pytest.mark.parametrize(("kind", "row", "message"), WRONG, ids=[m for _, _, m in WRONG])
def test_a_wrong_row_is_told_with_its_line(
    kind: str, row: object, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and nothing is left; with --skip the others are kept."""
    Path("link.png").symlink_to("../secret.png")
    good = GOOD if kind == "image-text" else {"conversations": [{"from": "gpt", "value": "x"}], "texts": ["x"]}
    good = {**good, "images": [None]} if kind == "interleaved" else good
    Path("rows.jsonl").write_text(f"{json.dumps(good)}\n\n{json.dumps(row)}\n")
    before = sorted(p.name for p in here.iterdir())
    assert main(["data", "convert", kind, "rows.jsonl", "out"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("mmcore: rows.jsonl:3: ") and message in told and told.count("\n") == 1
    assert sorted(p.name for p in here.iterdir()) == before
    assert main(["data", "convert", kind, "rows.jsonl", "out", "--skip", "--json"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert "left out: rows.jsonl:3: " in captured.err and len(facts["left_out"]) == 1
    assert facts["documents"] == len(Shards(Path("out"))) == (2 if kind == "image-text" else 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"image": "0.png", "caption": "x"}\n{"image"', "rows.jsonl:2: not JSON"),
        ("rows.csv", "image,caption\n0.png,x\n1.png\n", "rows.csv:3: 2 columns are expected"),
        ("rows.json", '[\n{"image": "0.png", "caption": "x"},\n {"image": }]', "rows.json:3: not JSON"),
        ("rows.json", '{"image": "0.png"}', "a JSON array of objects is expected"),
        ("rows.json", '[\n{"image": "0.png", "caption": "x"},\n\n {"image": "9.png"}]', "rows.json:4: "),
        ("rows.txt", "", "a file that ends in .jsonl, .json, .csv is expected"),
        ("rows.jsonl", "", "there is nothing to write"),
    ],
)
def test_broken_files(name: str, content: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_text(content)
    assert main(["data", "convert", "image-text", name, "out"]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not Path("out").exists()


def test_wrong_kinds_and_missing_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", "smells", "rows.jsonl", "out"]) == 2
    assert "kind must be one of image-text, video-text" in capsys.readouterr().err
    assert main(["data", "convert", "image-text", "rows.jsonl", "out"]) == 2
    assert "rows.jsonl: cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["convert", "check", "build"])
def test_every_action_has_an_example(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["data", action, "--help"])
    assert done.value.code == 0 and f"example: mmcore data {action} " in capsys.readouterr().out
