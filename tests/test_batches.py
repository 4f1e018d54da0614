"""Batches: a stream that goes on where it was, patches as bytes on their way, rows of several as one sequence."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import torch

from mmcore.document import Document, Image
from mmcore.packing import PackedSequence, bytes_as_pixels, pixels_as_bytes
from mmcore.training.data import DataState, Layout, PackedBatches
from mmcore.training.world.tasks import sample_document

TOKENIZER = Path(__file__).parents[1] / "mmcore" / "bundled" / "tokenizer.model"
LAYOUT = Layout(rows=2, room=(160, 90, 140), waiting=8)


def still(index: int) -> Document:
    return sample_document(index, task="text to image")


def stream(layout: Layout = LAYOUT, state: DataState | None = None, source=still, stride: int = 1) -> PackedBatches:
    return PackedBatches(source, TOKENIZER, (4, 16, 16), layout, state, stride=stride)


def test_a_stream_goes_on_where_it_was() -> None:
    whole = list(islice(stream(), 6))
    rest = list(islice(stream(state=whole[2][1]), 3))
    for (a, after), (b, as_well) in zip(whole[3:], rest, strict=True):
        assert after == as_well and torch.equal(a.patches, b.patches) and torch.equal(a.marks.hide, b.marks.hide)


def test_pixels_are_the_same_after_a_way_as_bytes() -> None:
    values = torch.arange(256).float() / 127.5 - 1
    assert pixels_as_bytes(values).dtype == torch.uint8
    assert torch.equal(bytes_as_pixels(pixels_as_bytes(values)), values)


def test_a_batch_travels_as_bytes_and_arrives_as_floats() -> None:
    """What arrives is what the document's pixels are; level positions and padding are zeros."""
    seq, _ = next(iter(stream()))
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
