"""Documents that come again, patches as bytes on their way, and batches that go through the model at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.document import Document, Image
from mmcore.errors import MMCoreError
from mmcore.packing import PackedSequence, bytes_as_pixels, pixels_as_bytes
from mmcore.training.data import RECENT, DataState, Layout, PackedBatches
from mmcore.training.recipe import load_recipe
from mmcore.training.world.tasks import sample_document

TOKENIZER = Path(__file__).parents[1] / "mmcore" / "bundled" / "tokenizer.model"
LAYOUT = Layout(rows=2, room=(160, 90, 140), passes=3, waiting=8)


def still(index: int) -> Document:
    return sample_document(index, task="text to image")


def stream(layout: Layout = LAYOUT, state: DataState | None = None, source=still, stride: int = 1) -> PackedBatches:
    return PackedBatches(source, TOKENIZER, (4, 16, 16), layout, state, stride=stride)


@settings(max_examples=30, deadline=None)
@given(passes=st.integers(1, 5), stride=st.integers(1, 4), data=st.data())
def test_every_document_comes_new_in_turn_and_then_again(passes: int, stride: int, data: st.DataObject) -> None:
    """Of one stream: new ones in order, in between those of its own last RECENT, so many of each on the average."""
    mine = data.draw(st.integers(0, stride - 1))
    drawn = stream(replace(LAYOUT, passes=passes), stride=stride)
    places = [drawn.place(mine + stride * turn) for turn in range(passes * 60)]
    assert places[::passes] == [mine + stride * n for n in range(60)]
    for turn, place in enumerate(places):
        assert place % stride == mine and 0 <= turn // passes - place // stride < RECENT
    if passes > 1:
        assert max(Counter(places).values()) > 1 and len(places) / len(set(places)) == passes


def test_with_one_pass_each_document_comes_once() -> None:
    drawn = stream(replace(LAYOUT, passes=1), stride=3)
    assert [drawn.place(i) for i in range(50)] == list(range(50))


def test_what_comes_again_is_made_once_and_has_other_noise_hidden() -> None:
    made: list[int] = []

    def noted(index: int) -> Document:
        made.append(index)
        return still(index)

    some = replace(LAYOUT, hide_all=0.5)
    drawn = stream(some, source=noted)
    batches = list(islice(drawn, 12))
    assert len(made) == len(set(made)) and batches[-1][1].next > 2 * len(made)
    by_words: dict[tuple[int, ...], set[int]] = {}
    for seq, _ in batches:
        for ids, doc, hide in zip(seq.ids, seq.marks.doc, seq.marks.hide, strict=True):
            for d in range(int(doc.max()) + 1):
                words = tuple(ids[doc[: len(ids)] == d].tolist())
                target = (doc == d).nonzero()[:, 0] >= sum(some.room[:2])
                by_words.setdefault(words, set()).add(int(hide[doc == d][target].max()))
    assert any(len(hides) > 1 for hides in by_words.values()), "one document, now with its words and now without"


def test_a_stream_goes_on_where_it_was() -> None:
    whole = list(islice(stream(), 6))
    rest = list(islice(stream(state=whole[2][1]), 3))
    for (a, after), (b, as_well) in zip(whole[3:], rest, strict=True):
        assert after == as_well and torch.equal(a.patches, b.patches) and torch.equal(a.marks.hide, b.marks.hide)


def test_passes_must_be_one_or_more() -> None:
    with pytest.raises(MMCoreError, match=r"layout\.passes too, got 2 and 0"):
        load_recipe("debug", ["layout.passes=0", "layout.copies=2"])


def test_pixels_are_the_same_after_a_way_as_bytes() -> None:
    values = torch.arange(256).float() / 127.5 - 1
    assert pixels_as_bytes(values).dtype == torch.uint8
    assert torch.equal(bytes_as_pixels(pixels_as_bytes(values)), values)


def test_a_batch_travels_as_bytes_and_arrives_as_floats() -> None:
    """What arrives is what the document's pixels are; level positions and padding are zeros."""
    seq, _ = next(iter(stream(replace(LAYOUT, passes=1))))
    there = seq.to("cpu")
    assert seq.patches.dtype == torch.uint8 and there.patches.dtype == torch.float32
    assert not there.patches[~there.is_patch].any()
    assert torch.equal(there.patches[there.is_patch], bytes_as_pixels(seq.patches[seq.is_patch]))
    shown = {frame.tobytes() for i in range(40) for s in still(i) if isinstance(s, Image) for frame in s.frames}
    patches = there.target_patches[0][there.is_target_patch[0]][:16].reshape(4, 4, 4, 16, 16, 3)
    picture = ((patches.permute(2, 0, 3, 1, 4, 5).reshape(4, 64, 64, 3)[0] + 1) * 127.5).round().to(torch.uint8)
    assert picture.numpy().tobytes() in shown


def test_rows_of_several_batches_are_one_sequence() -> None:
    (a, _), (b, _) = islice(stream(), 2)
    both = a.above(b)
    assert isinstance(both, PackedSequence) and both.lengths == a.lengths and len(both.ids) == 4
    assert torch.equal(both.patches[2:], b.patches) and torch.equal(both.marks.span[:2], a.marks.span)


def test_training_on_the_world_wants_no_media_library() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('av', 'webdataset', 'deepspeed', 'gradio')));"
        "import mmcore.training.train"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
