"""The command line: results, pipes, and every kind of bad input as one line with exit code 2."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcore.cli import main, parse, parser
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.tokenizers.media import read_clip
from tests.conftest import noise_clip

pytestmark = pytest.mark.quick


@pytest.fixture
def here(tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model and some media, to work in."""
    pipeline.save(tmp_path / "model", shard="100KB")
    Video(noise_clip(0, 5, 16)).save(tmp_path / "clip.mp4")
    Image(noise_clip(1, 1, 16)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, model: bool = True) -> int:
    return main([*arguments, *(["--model", "model"] if model else [])])


def test_generate_writes_what_the_suffix_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "a red ball", "-o", "out.mp4", "--steps", "2", "--frames", "6") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out.mp4"
    assert read_clip(Path("out.mp4")).frames.shape == (6, 8, 8, 3)
    assert run("generate", "make it blue", "clip.mp4", "-o", "out.png", "--steps", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"text", "files"} and told["files"] == ["out.png"]
    assert run("generate", "a red ball", "-o", "reply", "--steps", "2") == 0
    assert len(Document.load("reply")) >= 0


def test_the_same_seed_draws_the_same_file(here: Path) -> None:
    for name, seed in (("a.png", "7"), ("b.png", "7"), ("c.png", "8")):
        assert run("generate", "a red ball", "-o", name, "--steps", "2", "--seed", seed) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() != Path("c.png").read_bytes()


def test_caption_ask_and_info(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("caption", "clip.mp4"), ("ask", "image.png", "what is this?")):
        assert run(*arguments, "--json") == 0
        assert isinstance(json.loads(capsys.readouterr().out)["text"], str)
    assert run("info", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] > 0 and facts["vocabulary"] == 320


def test_edit_keeps_kind_and_length(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edit", "clip.mp4", "make it blue", "-o", "blue.mp4", "--steps", "2") == 0
    assert len(read_clip(Path("blue.mp4")).frames) == 5
    assert run("edit", "image.png", "make it blue", "-o", "blue.png", "--steps", "2") == 0
    assert read_clip(Path("blue.png")).frames.shape == (1, 8, 8, 3)


def test_chat_goes_on_after_a_mistake(here: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = iter(["what is this? clip.mp4\n", "and this? missing.mp4\n", "now make it blue\n", ""])
    monkeypatch.setattr(
        sys, "stdin", type("Pipe", (), {"isatty": lambda _: False, "readline": lambda _: next(lines)})()
    )
    assert run("chat", "--out", "talk", "--steps", "2") == 0
    assert "missing.mp4: no such file" in capsys.readouterr().err
    talk = Document.load("talk")
    assert [s.text for s in talk if not s.learn and not isinstance(s, Image | Video)] == [
        "what is this?",
        "now make it blue",
    ]
    assert isinstance(talk.segments[1], Video) and not talk.segments[1].learn


def test_a_line_of_a_chat_says_what_is_wanted(here: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By another seed, another picture."""
    for seed in ("0", "7"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("/image a red ball\n/text /image what is this?\n/video\n"))
        assert run("chat", "--out", f"talk{seed}", "--steps", "2", "--seed", seed) == 0
    assert capsys.readouterr().err.count("nothing to answer") == 2
    first, other = (Document.load(f"talk{seed}") for seed in (0, 7))
    assert len(first.media) == len(other.media) == 1 and first.media[0] != other.media[0]
    assert [s.text for s in first if s.learn is False and isinstance(s, Text)] == ["a red ball", "/image what is this?"]


def corrupt(folder: Path, how: str) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    if how == "missing":
        shard.unlink()
    elif how == "cut":
        shard.write_bytes(shard.read_bytes()[:500])
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no tokenizer":
        (folder / "tokenizer.model").unlink()
    elif how == "bad tokenizer":
        (folder / "tokenizer.model").write_bytes(b"words")
    elif how == "bad config":
        (folder / "config.json").write_text("{")
    elif how == "index without it":
        index = folder / "model.safetensors.index.json"
        table = json.loads(index.read_text())
        table["weight_map"] = {k: v for k, v in table["weight_map"].items() if v != shard.name}
        index.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "cannot read the weights"),
        ("cut", "cannot read the weights"),
        ("no config", "no config.json"),
        ("no tokenizer", "no tokenizer.model"),
        ("bad tokenizer", "cannot read the text tokenizer"),
        ("bad config", "cannot read the weights"),
        ("index without it", "weights are missing"),
    ],
)
def test_a_broken_model_folder(how: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrupt(here / "model", how)
    assert run("caption", "clip.mp4") == 2
    one_line(capsys, "model", message)


def one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mmcore: ") and captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


BAD = [
    (("caption", "missing.mp4"), "missing.mp4: no such file"),
    (("caption", "empty.mp4"), "empty.mp4: the file is empty"),
    (("caption", "words.mp4"), "words.mp4: not a picture or a clip"),
    (("caption", "cut.mp4"), "cut.mp4: "),
    (("edit", "clip.mp4", "x", "-o", "nowhere/out.mp4"), "there is no folder nowhere"),
    (("edit", "clip.mp4", "x", "-o", "out.xyz"), "unknown format '.xyz'"),
    (("edit", "clip.mp4", "x", "-o", "out.mp4", "--steps", "0"), "steps must be at least 1, got 0"),
    (("generate", "x", "-o", "out.mp4", "--steps", "0"), "steps must be at least 1, got 0"),
    (("generate", "x", "-o", "out.mp4", "--steps", "many"), "invalid int value: 'many'"),
    (("generate", "x", "-o", "out.mp4", "--frames", "-3"), "frames must be at least 1, got -3"),
    (("generate", "x", "-o", "out.mp4", "--frames", "1000000"), "the document is full"),
    (("generate", "x", "-o", "out.mp4", "--sampler", "magic"), "sampler must be one of euler, heun"),
    (("generate", " ", "-o", "out.mp4"), "nothing to answer"),
    (("generate", "a red ball " * 10000, "-o", "out.mp4"), "positions, the model holds"),
    (("generate", *["clip.mp4"] * 400, "-o", "out.mp4"), "positions, the model holds"),
    (("generate",), "required: parts"),
    (("dance",), "invalid choice: 'dance'"),
    (("eval", "--count", "0"), "--count must be at least 1"),
    (("eval", "--tasks", "text to smell"), "no task 'text to smell'; known are: text to image"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a)[:40] for a, _ in BAD])
def test_bad_input(arguments: tuple[str, ...], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.mp4").touch()
    Path("words.mp4").write_text("words " * 100)
    Path("cut.mp4").write_bytes(Path("clip.mp4").read_bytes()[:500])
    before = sorted(p.name for p in here.iterdir())
    assert run(*arguments, model=arguments[0] != "dance") == 2
    one_line(capsys, message)
    assert sorted(p.name for p in here.iterdir()) == before, "nothing half-written is left"


def test_a_model_that_is_nowhere(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["caption", "clip.mp4", "--model", "no such/folder at all"]) == 2
    one_line(capsys, "no such folder")


def test_wrong_training_recipes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "debug", "stepz=3", model=False) == 2
    one_line(capsys, "unknown key 'stepz'")
    assert run("train", "debug", "--workers", "-1", model=False) == 2
    one_line(capsys, "--workers must be at least 0, got -1")
    assert run("train", "nothing", model=False) == 2
    one_line(
        capsys, "no such recipe", "debug, everything, finetune, joint, noise, reading, sft, single, stills, three, tiny"
    )
    Path("occupied").write_text("")
    assert run("train", "debug", "--out", "occupied", model=False) == 2
    one_line(capsys, "occupied")


def test_changes_to_a_recipe_stand_before_or_after_options() -> None:
    for words in ("debug steps=4 --out x layout.rows=3", "debug --out x steps=4 layout.rows=3"):
        options = parse(["train", *words.split()])
        assert (options.out, options.changes) == ("x", ["steps=4", "layout.rows=3"])
    with pytest.raises(MMCoreError, match="unrecognized arguments: --speed"):
        parse(["train", "debug", "--speed", "3"])


def test_debug_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("caption", "missing.mp4", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    commands = next(a for a in parser()._actions if a.dest == "command").choices
    assert commands is not None
    for name in commands:
        with pytest.raises(SystemExit) as done:
            parser().parse_args([name, "--help"])
        assert done.value.code == 0
        assert f"example: mmcore {name}" in capsys.readouterr().out


def test_a_pipe_sees_the_result_alone(here: Path) -> None:
    """No bar, no warning, no library's chatter, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "mmcore", "generate", "a red ball", "-o", "out.gif", "--model", "model", "--steps", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "out.gif"


def test_frames_as_arrays_are_media(pipeline: Pipeline) -> None:
    made = pipeline.edit(noise_clip(0, 3), "make it blue", steps=2)
    assert isinstance(made, Video) and made.size == (3, 8, 8) and made.frames.dtype == np.uint8
