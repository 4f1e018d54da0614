"""Media of several sizes in one run: the nearest of those that fill the grid, packed together; and 480p, planned."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmcore
from mmcore.autoencoder import PIXELS
from mmcore.cli import main
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.replies import Request
from mmcore.sequence import IMAGE, VIDEO
from mmcore.tokenizers.text import TextTokenizer
from mmcore.tokenizers.words import open_words
from mmcore.training.data import Layout, PackedBatches
from mmcore.training.export import export
from mmcore.training.gpus import GPUS
from mmcore.training.plan import make_plan, table
from mmcore.training.recipe import Recipe, load_recipe
from mmcore.training.shards import Sample, write_shards
from mmcore.training.sources import fit_nearest, recipe_source
from mmcore.training.subjects import shape
from mmcore.training.train import train
from tests.conftest import lively, noise_clip

pytestmark = pytest.mark.quick

SIZES = ((4, 16, 32), (8, 32, 16), (4, 32, 32), (12, 32, 32))


def frames(count: int, rows: int, columns: int) -> np.ndarray:
    return noise_clip(count, count, max(rows, columns))[:, :rows, :columns]


def test_a_medium_goes_to_the_nearest_size() -> None:
    """By shape, then by area; of those the longest that it fills, else the shortest."""
    config = MMCoreConfig(sizes=((81, 480, 832), (33, 480, 832), (81, 832, 480), (81, 256, 256), (17, 256, 448)))

    def chosen(*size: int) -> tuple[int, int, int]:
        return config.nearest((size[0], size[1], size[2]))

    assert chosen(100, 720, 1280) == (81, 480, 832)
    assert chosen(80, 720, 1280) == chosen(1, 1080, 1920) == (33, 480, 832)
    assert chosen(81, 1920, 1080) == (81, 832, 480)
    assert chosen(81, 1000, 1000) == (81, 256, 256)
    assert chosen(81, 180, 320) == (17, 256, 448)
    assert MMCoreConfig(frames=9, height=64, width_px=96).nearest((1, 5, 5)) == (9, 64, 96)


@given(
    size=st.tuples(*[st.integers(1, 70)] * 3),
    shape=st.sampled_from(
        [{"patch": (4, 16, 16)}, {"patch": (1, 2, 2), "latent_channels": 4, "latent_cell": (4, 8, 8)}]
    ),
)
def test_whole_sizes_fill_their_patches(size: tuple[int, int, int], shape: dict) -> None:
    """The grid stays, one pixel or frame more is another grid, and what is whole stays so."""
    config = MMCoreConfig(**shape)
    whole = config.whole(size)
    assert config.grid(whole) == config.grid(size) and config.whole(whole) == whole
    for axis in range(3):
        assert whole[axis] >= size[axis]
        more = tuple(n + (i == axis) for i, n in enumerate(whole))
        assert config.grid((more[0], more[1], more[2])) != config.grid(whole)


def test_fitting_follows_rate_and_shape() -> None:
    config = MMCoreConfig(sizes=SIZES, fps=8.0)
    assert fit_nearest(Video(frames(24, 60, 64), 16.0), config).size == (12, 32, 32)
    assert fit_nearest(Video(frames(20, 60, 64), 16.0), config).size == (4, 32, 32)
    assert fit_nearest(Video(frames(10, 60, 33), 8.0), config).size == (8, 32, 16)
    assert fit_nearest(Image(frames(1, 40, 80)), config).size == (1, 16, 32)


def documents() -> list[Document]:
    """Stills and clips of five shapes, read, written and edited."""
    wide, tall, square = frames(5, 20, 40), frames(9, 50, 30), frames(20, 40, 40)
    return [
        Document((Text("a red ball"), Video(wide, learn=True))),
        Document((Video(tall), Text("what is this ?"), Text("a blue cube", True))),
        Document((Text("a blue cube"), Image(frames(1, 37, 41), learn=True))),
        Document((Video(square), Text("make it green"), Video(square, learn=True))),
        Document((Image(frames(1, 30, 64)), Text("what is this ?"), Text("a red ball", True))),
    ]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Two steps on shards of them."""
    write_shards((Sample.of(d) for d in documents()), tmp_path / "shards")
    changes = [f"data={tmp_path / 'shards'}", "precision=fp32", "steps=2", "save_every=2", "vocabulary=320"]
    layout = Layout(2, (60, 60, 60), waiting=8, last_context=1.0)
    return replace(load_recipe("debug", [*changes, "sample_every=0"]), sizes=SIZES, layout=layout)


def test_a_mixture_of_sizes_trains(recipe: Recipe, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    """By the loop; the model that is exported knows the sizes, reads and edits at them, and any other can be asked."""
    run = tmp_path / "run"
    run.mkdir()
    tokenizer.save(run)
    engine = train(recipe, run, workers=0)
    assert engine.done == 2 and all(bool(p.isfinite().all()) for p in engine.model.parameters())
    stream = PackedBatches(recipe_source(recipe, shape(recipe)), run / "tokenizer.model", (4, 16, 16), recipe.layout)
    grids = set()
    for batch, _ in islice(stream, 4):
        for r in range(2):
            spans = batch.marks.span[r, batch.lengths[0] :]
            for span in spans.unique()[1:]:
                here = (spans == span) & batch.is_patch[r]
                grids.add(tuple((batch.grid[r][here].amax(0) + 1).tolist()))
    assert {(1, 1, 2), (2, 2, 1), (1, 2, 2), (3, 2, 2)} <= grids
    export(run, tmp_path / "model")
    model = mmcore.load(tmp_path / "model")
    assert model.config.sizes == SIZES
    assert model.edit(Video(frames(6, 20, 40)), "make it green", steps=1, tokens=2).size == (6, 16, 32)
    request = Request(Document((Text("a red ball"),)))
    assert model.translator.sizes(request) == {IMAGE: (1, 64, 64), VIDEO: (16, 64, 64)}


def test_packed_sizes_equal_unpacked(recipe: Recipe, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    """Five documents of four grids in one row give what each gives alone; float32, to 2e-5."""
    tokenizer.save(tmp_path)
    config = shape(recipe)
    stream = PackedBatches(recipe_source(recipe, config), tmp_path / "tokenizer.model", config.patch, recipe.layout)
    text = open_words(tmp_path)
    strips = [stream.strip(i, text, PIXELS) for i in range(5)]
    model = lively(MMCoreModel(config))
    row, *each = (pack([some], config.patch_width, dtype=torch.uint8).to("cpu") for some in (strips, *zip(strips)))
    assert len({patches.grid for strip in strips for patches in strip.patches[2]}) >= 4
    with torch.no_grad():
        together = model(row)
        alone = [model(one) for one in each]
    lt, lc, _ = row.lengths
    for d, one in enumerate(alone):
        found = together.hidden[0][row.marks.doc[0, :lt] == d], together.patches[0][row.marks.doc[0, lt + lc :] == d]
        torch.testing.assert_close(found[0], one.hidden[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(found[1], one.patches[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("[[4, 16, 24]]", r"\[4, 16, 24\] does not fill whole patches; the next that does is \[4, 16, 32\]"),
        ("[[5, 16, 16]]", r"the next that does is \[8, 16, 16\]"),
        ("[[0, 16, 16]]", r"\[0, 16, 16\]: frames, rows and columns must be above 0"),
        ("[[400, 64, 64]]", r"\[400, 64, 64\] takes 1601 positions, layout.room="),
    ],
)
def test_sizes_that_cannot_be(sizes: str, message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        shape(load_recipe("debug", [f"sizes={sizes}"]))


def test_480p_is_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """81 frames of 480 x 832 in cells of 4 x 8 x 8 and patches of 1 x 2 x 2: 21 x 30 x 52 of them, and the level."""
    recipe = load_recipe("480p")
    config = MMCoreConfig(**PRESETS["1b-480p"])
    tokens = (1 + (81 - 1) // 4) * (480 // 8 // 2) * (832 // 8 // 2)
    assert config.grid((81, 480, 832)) == (21, 30, 52) and tokens == 32760
    plan = make_plan(recipe, 64, GPUS["h100"], 0.4)
    assert plan.medium == tokens + 1 <= min(recipe.layout.room[1:])
    assert plan.positions == 64 * sum(recipe.layout.room)
    assert f"{plan.medium:,}" in table(plan, 64, GPUS["h100"], None, None)
    assert main(["plan", "480p", "--gpus", "64"]) == 0
    assert "32,761" in capsys.readouterr().out
    with pytest.raises(MMCoreError, match="make a model with mmcore init, and start from it"):
        train(recipe, tmp_path / "run")
