"""Documents in shards: equal after a round trip, read by webdataset too, each once in an epoch, resumed exactly."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.cli import main
from mmcore.config import MMCoreConfig
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.data import DataState, Layout, PackedBatches, Turns
from mmcore.training.recipe import load_recipe
from mmcore.training.shards import Sample, Shards, write_shards
from mmcore.training.sources import BLOCK, Mixture, Shuffled, recipe_source, recipe_words
from mmcore.training.train import drawn
from tests.conftest import noise_clip


def document(i: int) -> Document:
    media = Video(noise_clip(i, 3), 8.0, True) if i % 3 else Image(noise_clip(i, 1), learn=True)
    return Document((Text(f"word {i}"), media))


def numbers(count: int, folder: Path, size: int = 4000) -> Shards:
    """Documents that say their number, in several shards."""
    write_shards((Sample.of(document(i)) for i in range(count)), folder, size)
    return Shards(folder)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return numbers(11, tmp_path / "data")


def test_documents_come_back_as_they_went(shards: Shards, tmp_path: Path) -> None:
    assert len(shards.paths) > 2 and len(shards) == 11
    assert [shards.document(i) for i in range(11)] == [document(i) for i in range(11)]
    assert [p.name for p in tmp_path.iterdir()] == ["data"], "nothing is left beside it"
    again = numbers(11, tmp_path / "again")
    assert [p.read_bytes() for p in again.paths] == [p.read_bytes() for p in shards.paths]


def test_webdataset_reads_what_is_written(shards: Shards) -> None:
    webdataset = pytest.importorskip("webdataset")
    read = list(webdataset.WebDataset([str(p) for p in shards.paths], shardshuffle=False))
    assert [r["__key__"] for r in read] == [f"{i:08d}" for i in range(11)]
    for i, sample in enumerate(read):
        assert json.loads(sample["json"])["segments"][0] == {"type": "text", "text": f"word {i}", "learn": False}
        assert sample["001.png"] == shards.read(i)[1].files["001.png"]


def test_shards_of_others_are_read(tmp_path: Path) -> None:
    """Written by webdataset, keys with folders, the JSON in the midst, and an index of another file."""
    webdataset = pytest.importorskip("webdataset")
    pixels = io.BytesIO()
    Image(noise_clip(0, 1)).save(tmp_path / "a.png")
    pixels.write((tmp_path / "a.png").read_bytes())
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as tar:
        for i in range(3):
            segments = [{"type": "text", "text": str(i)}, {"type": "image", "file": "png", "learn": True}]
            words = json.dumps({"segments": segments}).encode()
            tar.write({"__key__": f"some/where/{i}", "a.txt": b"", "json": words, "png": pixels.getvalue()})
    np.save(tmp_path / "x.npy", np.array([0, 512, 1024]))
    found = Shards(tmp_path)
    assert [found.document(i).text for i in range(len(found))] == ["0", "1", "2"]
    assert found.document(2).media[0] == Image(noise_clip(0, 1), learn=True)
    assert found.read(1)[0] == f"{tmp_path}/x.tar: some/where/1"


def put(folder: Path, **files: bytes) -> Shards:
    with tarfile.open(folder / "bad.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return Shards(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a_json": b"{"}, "bad.tar: a: no JSON of"),
        ({"a_png": b""}, "bad.tar: a: no JSON of"),
        ({"a_json": b'{"segments": 3}'}, "bad.tar: a: no JSON of"),
        ({"a_json": b'{"segments": [{"type": "sound"}]}'}, "bad.tar: a: document.json: segment 0: type must be"),
        ({"a_json": b'{"segments": [{"type": "image", "file": "png"}]}', "a_png": b"x"}, "segment 0: png: not a pic"),
        ({"a_json": b'{"segments": [{"type": "image", "file": "/etc/hostname"}]}'}, "leads out of the folder"),
        ({"a_json": b'{"segments": [{"type": "image", "file": "../x.png"}]}'}, "leads out of the folder"),
    ],
)
def test_a_broken_sample_is_one_clear_line(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(MMCoreError, match=message) as found:
        put(tmp_path, **files).document(0)
    assert "\n" not in str(found.value)


def test_broken_shards_and_full_places(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(MMCoreError, match="is there already"):
        numbers(1, tmp_path / "data")
    with pytest.raises(MMCoreError, match="nothing to write"):
        numbers(0, tmp_path / "none")
    with pytest.raises(MMCoreError, match=r"no .tar shards"):
        Shards(tmp_path / "nowhere")
    whole = shards.paths[0].read_bytes()
    shards.paths[0].write_bytes(whole[:700])
    with pytest.raises(MMCoreError, match=r"documents-000000.tar: not a whole tar"):
        Shards(tmp_path / "data")

    def breaks() -> object:
        yield Sample.of(document(0))
        raise MMCoreError("a bad row")

    with pytest.raises(MMCoreError, match="a bad row"):
        write_shards(breaks(), tmp_path / "half")  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"], "nothing half-written is left"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(0, 5))
def test_processes_share_every_epoch_out(count: int, world: int, workers: int, epoch: int, seed: int) -> None:
    """Whatever the number of processes and of workers in each: an epoch holds every document once, all together."""
    shuffled = Shuffled([None] * count, MMCoreConfig(), seed)  # type: ignore[arg-type]
    drawn: dict[int, list[int]] = {}
    for first in range(world * workers):
        for index in range(first, (epoch + 1) * count, world * workers):
            drawn.setdefault(index // count, []).append(shuffled.place(index))
    for e in range(epoch + 1):
        assert sorted(drawn[e]) == list(range(count))


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = [[Shuffled([None] * 50, MMCoreConfig(), s).place(50 * e + i) for i in range(50)]  # type: ignore[arg-type]
              for s, e in ((0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert len({tuple(order) for order in orders}) == 3 and orders[0] != sorted(orders[0])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3))
def test_a_mixture_keeps_its_shares_and_loses_nothing(weights: list[int], seed: int) -> None:
    """Of each source the documents come one after the other, none twice; each block holds its share to one document."""
    mixture = Mixture([lambda _: Document()] * len(weights), weights, seed)
    places = [mixture.place(i) for i in range(2 * BLOCK)]
    for source, weight in enumerate(weights):
        drawn = [place for s, place in places if s == source]
        assert drawn == list(range(len(drawn)))
        share = [s for s, _ in places[:BLOCK]].count(source)
        assert abs(share - BLOCK * weight / sum(weights)) <= 1
    early = [s for s, _ in places[:100]]
    assert len(set(early)) == len(weights) or min(weights) < 2, "spread evenly"


def test_a_share_that_never_comes_is_an_error() -> None:
    with pytest.raises(MMCoreError, match="less than a thousandth"):
        Mixture([document, document], [1, 1e-6])


def batches(shards: Shards, root: Path, state: DataState | None = None) -> PackedBatches:
    layout = Layout(rows=2, room=(60, 60, 60), waiting=5)
    source = Shuffled(shards, MMCoreConfig(height=8, width_px=8))
    return PackedBatches(source, root / "mmcore/bundled/tokenizer.model", (4, 8, 8), layout, state)


def test_broken_documents_are_counted_and_left_out(shards: Shards, root: Path, caplog) -> None:
    """One file of eleven is broken: a warning names it, the count is part of the state, and resuming is exact."""
    path, begin, end = shards.place(4)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x89PNG", begin, end)
    content[at : at + 8] = bytes(8)
    path.write_bytes(content)
    stream = iter(batches(shards, root))
    states = [next(stream) for _ in range(3)]
    assert states[-1][1].broken == states[-1][1].next // 11 > 0
    assert "documents-" in caplog.text and "00000004: document.json: segment 1: 001.png" in caplog.text
    again = iter(batches(shards, root, states[1][1]))
    found, state = next(again)
    assert found.ids.equal(states[2][0].ids) and found.patches.equal(states[2][0].patches) and state == states[2][1]


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_cannot_be_used_is_an_error(tmp_path: Path, root: Path, monkeypatch, workers: int) -> None:
    """Not an endless search; one line, from a process of its own too."""
    monkeypatch.setattr("mmcore.training.data.IN_VAIN", 20)
    stream = batches(numbers(5, tmp_path / "data"), root)
    stream.layout = Layout(rows=1, room=(2, 2, 2))
    with pytest.raises(MMCoreError, match=r"^none of the last 20 documents") as found:
        next(drawn(Turns([stream]).loader(workers), SimpleNamespace(done=0)))  # type: ignore[arg-type]
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_turns_are_the_same_whoever_makes_them(tmp_path: Path, root: Path, workers: int) -> None:
    """Three streams in one process, two or three: the same batches with the same states, in the same places."""
    shards = numbers(40, tmp_path / "data")

    def turns(count: int) -> list[list[tuple[list[int], DataState]]]:
        streams = [batches(shards, root, DataState(i)) for i in range(3)]
        for stream in streams:
            stream.stride = 3
        drawn = islice(Turns(streams).loader(count), 3)
        return [[(batch.ids.tolist(), state) for batch, state in turn] for turn in drawn]

    alone = turns(0)
    assert turns(workers) == alone and len({str(words) for turn in alone for words, _ in turn}) == 9


def test_a_recipe_names_its_data(tmp_path: Path) -> None:
    numbers(7, tmp_path / "a")
    config = MMCoreConfig(height=8, width_px=8, frames=2)
    one = load_recipe("debug", [f"data={tmp_path / 'a'}"])
    source = recipe_source(one, config)
    texts = [source(i).text for i in range(7)]
    assert sorted(texts) == [f"word {i}" for i in range(7)]
    assert {source(i).media[0].size for i in range(7)} == {(1, 8, 8), (2, 8, 8)}
    assert sorted(recipe_words(one)) == sorted(texts)
    (tmp_path / "two.toml").write_text(f'preset = "debug"\n[data]\nworld = 3\n"{tmp_path / "a"}" = 1\n')
    two = load_recipe(tmp_path / "two.toml")
    assert two.data == {"world": 3.0, str(tmp_path / "a"): 1.0}
    mixed = recipe_source(two, config)
    assert isinstance(mixed, Mixture) and mixed.counts.tolist() == [750, 250]
    assert mixed.sources[1](3) == source(3)
    for change, message in (("data={a = 0}", "above 0"), ("data=3", "data must be"), ("data={a='b'}", "data.a must")):
        with pytest.raises(MMCoreError, match=message):
            load_recipe("debug", [change])
    with pytest.raises(MMCoreError, match=r"no .tar shards here"):
        recipe_source(load_recipe("debug", ["data=nowhere"]), config)


def test_a_run_trains_from_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, with a tokenizer made of their words; a vocabulary that they do not fill is one line."""
    numbers(8, tmp_path / "data")
    common = ["train", "debug", f"data={tmp_path / 'data'}", "steps=1", "layout.rows=1", "layout.waiting=4"]
    assert main([*common, "vocabulary=370", "--out", str(tmp_path / "run")]) == 0
    assert len(TextTokenizer(tmp_path / "run" / "tokenizer.model")) == 370
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["data"] == {str(tmp_path / "data"): 1.0}
    assert (tmp_path / "run" / "checkpoint" / "ema").is_dir()
    capsys.readouterr()
    assert main([*common, "vocabulary=5000", "--out", str(tmp_path / "large")]) == 2
    assert "a vocabulary of 5000 cannot be learnt" in capsys.readouterr().err.splitlines()[-1]
