"""Filters remove what they say, chains are read strictly, and the result is the same for any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.cli import main
from mmcore.document import Document, Image, Text, Video
from mmcore.training.build import build, load_chain
from mmcore.training.filters import (
    FILTERS,
    Brightness,
    Duplicates,
    Filter,
    Length,
    Seen,
    Shots,
    Size,
    Static,
    Words,
    difference_hashes,
)
from mmcore.training.shards import Sample, Shards, write_shards


def soft(seed: int, frames: int = 1, size: int = 24) -> np.ndarray:
    """A soft picture that brightens a little from frame to frame: (T, size, size, 3)."""
    coarse = np.random.default_rng(seed).integers(40, 200, (4, 4, 3), dtype=np.uint8)
    still = np.kron(coarse, np.ones((size // 4, size // 4, 1), np.uint8))
    return np.stack([still + np.uint8(2 * t) for t in range(frames)])


def clip(seed: int, frames: int = 6) -> Document:
    return Document((Text(f"clip {seed}"), Video(soft(seed, frames), 8.0, True)))


def still(frames: np.ndarray, words: str = "a still") -> Document:
    return Document((Text(words), Image(frames, learn=True)))


STILL = Document((Text("x"), Video(soft(0)[[0] * 6], 8.0, True)))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("step", "good", "bad"),
    [
        (Size(24, 24), still(soft(0)), still(soft(0, size=16))),
        (Size(8, 23), still(soft(0, size=16)), still(soft(0))),
        (Length(0.7, 1.0), clip(0, 6), clip(0, 5)),
        (Length(0.7, 1.0), clip(0, 8), clip(0, 9)),
        (Brightness(20, 230), still(soft(0)), still(soft(0) * 0)),
        (Brightness(20, 230), still(soft(0)), still(soft(0) * 0 + 255)),
        (Static(1.0), clip(0), STILL),
        (Words(2, 3, ("watermark", r"^\d+$")), still(soft(0), "a still"), still(soft(0), "one")),
        (Words(2, 3), still(soft(0), "a b c"), still(soft(0), "a b c d")),
        (Words(2, 3, ("water.?mark",)), still(soft(0), "a mark"), still(soft(0), "a WATER-MARK")),
    ],
)
def test_each_filter_removes_what_it_says(step: Filter, good: Document, bad: Document) -> None:
    assert step(good) == (good,) and step(bad) == ()


@pytest.mark.quick
def test_clips_are_split_at_their_cuts() -> None:
    """Three shots of soft change give three documents with the same words; noise has no cuts."""
    shots = [soft(1, 5), 255 - soft(1, 4), soft(2, 6)]
    document = Document((Text("three"), Video(np.concatenate(shots), 12.5, True), Text("shots")))
    parts = Shots()(document)
    assert [d.media[0].frames.tolist() for d in parts] == [s.tolist() for s in shots]
    assert all(d.text == "three shots" and d.media[0].fps == 12.5 and d.media[0].learn for d in parts)
    assert Shots()(clip(3)) == (clip(3),) and Shots()(still(soft(0))) == (still(soft(0)),)
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    wild = Document((Video(noise, learn=True),))
    assert Shots()(wild) == (wild,), "every frame changes: none stands out"
    two = document + document
    assert Shots()(two) == (two,), "an edited clip still fits its source"


@pytest.mark.quick
def test_hashes_are_near_for_what_looks_the_same() -> None:
    first = difference_hashes(Image(soft(0, size=64)))
    rng = np.random.default_rng(0)
    noisy = (soft(0, size=64) + rng.integers(0, 4, (1, 64, 64, 3))).astype(np.uint8)
    assert (first[0] ^ difference_hashes(Image(noisy))[0]).bit_count() <= 8
    assert (first[0] ^ difference_hashes(Image(soft(5, size=64)))[0]).bit_count() > 15
    one, two = still(soft(0), "a"), still(soft(0), "b")
    assert Duplicates().signature(one) != Duplicates().signature(two)
    assert Duplicates(words=False).signature(one) == Duplicates(words=False).signature(two)


@pytest.mark.quick
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=5)), max_size=20), st.integers(0, 4))
def test_bands_find_what_comparing_all_finds(drawn: list[tuple[int, set[int]]], distance: int) -> None:
    bases = [0, 2**64 - 1, 0x0123456789ABCDEF, 0x0123456789ABCDEF ^ 0b111]
    hashes = [bases[base] ^ sum(1 << bit for bit in bits) for base, bits in drawn]
    seen, kept = Seen(distance), []
    for value in hashes:
        slow = any((value ^ other).bit_count() <= distance for other in kept)
        assert seen.add("", [value]) == slow
        if not slow:
            kept.append(value)


CHAIN = """
[[filter]]
kind = "shots"
[[filter]]
kind = "static"
least = 1
[[filter]]
kind = "size"
least = 16
[[filter]]
kind = "words"
without = ["secret"]
[[filter]]
kind = "duplicates"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve documents with something for each filter, and a chain; parts of four documents."""
    cut = Document((Text("cut"), Video(np.concatenate([soft(1, 5), 255 - soft(1, 5)]), 8.0, True)))
    documents = [clip(0), clip(1), clip(0), cut, STILL, still(soft(3)), still(soft(4), "a secret"), still(soft(5))]
    documents += [still(soft(3)), still(soft(6, size=8)), clip(2)]
    broken = Sample([{"type": "image", "file": "000.png", "learn": True}], {"000.png": b"x"})
    write_shards([*map(Sample.of, documents), broken], tmp_path / "raw", 5000)
    (tmp_path / "chain.toml").write_text(CHAIN)
    monkeypatch.setattr("mmcore.training.build.PART", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


REMOVED = {"decode": 1, "shots": 0, "static": 1, "size": 1, "words": 1, "duplicates": 2}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_any_number_of_processes_gives_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "build", "chain.toml", "raw", "one", "--workers", "1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"documents": 12, "removed": REMOVED, "added": 1, "written": 7}
    assert json.loads((here / "one" / "report.json").read_text()) == facts
    left = Shards(here / "one")
    assert [left.document(i).text for i in range(7)] == ["clip 0", "clip 1", "cut", "cut", *["a still"] * 2, "clip 2"]
    assert left.document(0) == clip(0), "what no filter changes stays as it was, to the byte"
    assert left.document(3).media[0].size == (5, 24, 24)
    assert main(["data", "check", "one"]) == 0
    build(load_chain(Path("chain.toml")), Path("raw"), Path("three"), workers=3)
    assert contents(here / "one") == contents(here / "three")
    assert sorted(p.name for p in here.iterdir()) == ["chain.toml", "one", "raw", "three"]


def test_what_was_stopped_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are done are not done again; those of another chain are thrown away."""
    chain = load_chain(Path("chain.toml"))
    report = build(chain, Path("raw"), Path("whole"))

    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mmcore.training.build.write_shards", stop)
        with pytest.raises(KeyboardInterrupt):
            build(chain, Path("raw"), Path("out"))
    done = here / "out.parts" / "000000000.json"
    told = json.loads(done.read_text())
    (here / "out.parts" / "000000004.json").unlink()
    done.write_text(json.dumps({**told, "added": told["added"] + 100}))
    again = build(chain, Path("raw"), Path("out"))
    assert again.added == report.added + 100, "the part that was done is taken as it is"
    assert Shards(here / "out").paths[0].read_bytes() == Shards(here / "whole").paths[0].read_bytes()
    assert not done.exists()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[filter]]\nkind = 'smell'", "filter 1: kind must be one of size, length"),
        ("[[filter]]\nkind = 'size'\nleest = 3", "filter 1: unknown key 'leest'; known are: least, most"),
        ("[[filter]]\nkind = 'size'\nleast = 'x'", "filter 1: least must be int, got 'x'"),
        ("[[filter]]\nkind = 'words'\nwithout = ['(']", "filter 1: without: '(' is no regular expression"),
        ("[[filter]]\nkind = 'duplicates'\ndistance = 16", "distance must be 0 to 15"),
        ("[[filter]]\nkind = 'duplicates'\n[[filter]]\nkind = 'size'", "duplicates must be the last filter"),
        ("filters = 3", "a chain is made of [[filter]] tables"),
        ("= 3", "cannot read the chain"),
    ],
)
def test_wrong_chains(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chain.toml").write_text(text)
    assert main(["data", "build", str(tmp_path / "chain.toml"), "raw", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told and "chain.toml: " in told and told.count("\n") == 1


@pytest.mark.quick
def test_every_filter_has_a_name() -> None:
    assert [kind.__name__.lower() for kind in FILTERS.values()] == list(FILTERS)
