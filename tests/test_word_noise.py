"""Word noise: what is read changes, what is to be written never; streams with it go on where they were."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmcore
from mmcore.attention import PADDING, TEXT
from mmcore.document import Document, Text
from mmcore.sequence import IGNORE, OWN_SIGNS, Strip, Tokens, document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.words import open_words
from mmcore.training.data import DataState, Layout, PackedBatches
from mmcore.training.recipe import load_recipe
from mmcore.training.word_noise import WordNoise
from mmcore.training.world.scene import COLOURS, SHAPES, SIZES
from mmcore.training.world.tasks import sample_document

TOKENIZER = Path(__file__).parents[1] / "mmcore" / "bundled" / "tokenizer.model"

A, RED, BLUE, BALL, CUBE, FALLS, ASKED = range(20, 27)


def strip_of(*reply: int) -> Strip:
    """A question that holds the same words, and a reply."""
    return document_strip([Tokens([ASKED, A, RED, BALL], False), Tokens(reply, True)])


KNOWN = [strip_of(A, RED, BALL, FALLS), strip_of(A, BLUE, BALL, FALLS), strip_of(A, BLUE, CUBE, FALLS)]


def test_a_word_becomes_one_that_stands_between_the_same_words() -> None:
    """Each by itself: "red cube" comes to be, which no document says."""
    noise, rng = WordNoise(KNOWN, OWN_SIGNS), np.random.default_rng(0)
    found = set[tuple[int, ...]]()
    for _ in range(200):
        strip = strip_of(A, BLUE, CUBE, FALLS)
        noise.put(strip, 1.0, rng)
        found.add(tuple(strip.ids[-5:-1]))
    assert found == {(A, colour, shape, FALLS) for colour in (RED, BLUE) for shape in (BALL, CUBE)}


def test_words_of_one_kind_are_found_in_the_world() -> None:
    """By where they stand alone: all colours, all shapes, sizes, and no others among them."""
    text = open_words(TOKENIZER.parent)
    pieces = (document_pieces(mixed(2 * i), text, (4, 16, 16)) for i in range(300))
    noise = WordNoise([document_strip(p, signs=text.signs) for p in pieces], text.signs)
    for kind in (list(COLOURS), list(SHAPES), list(SIZES)):
        ids = [text.encode(f"a {word}")[-1] for word in kind]
        assert all(len(text.encode(f"a {word}")) == 2 for word in kind), "one token each"
        for i in ids:
            assert set(noise.alike[i]) <= set(ids) and len(noise.alike[i]) >= len(ids) - 1, text.decode([i])


def test_examples_choose_the_kinds() -> None:
    """By one word of a kind all of it is meant, and nothing else changes; by none, all kinds."""
    noise, rng = WordNoise(KNOWN, OWN_SIGNS, [RED]), np.random.default_rng(0)
    found = set[tuple[int, ...]]()
    for _ in range(100):
        strip = strip_of(A, BLUE, CUBE, FALLS)
        noise.put(strip, 1.0, rng)
        found.add(tuple(strip.ids[-5:-1]))
    assert found == {(A, colour, CUBE, FALLS) for colour in (RED, BLUE)}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_only_what_is_read_of_replies_changes(seed: int, share: float) -> None:
    strip, true = strip_of(A, BLUE, CUBE), strip_of(A, BLUE, CUBE)
    WordNoise(KNOWN, OWN_SIGNS).put(strip, share, np.random.default_rng(seed))
    assert strip.labels == true.labels and len(strip.ids) == len(true.ids)
    changed = [i for i, (now, was) in enumerate(zip(strip.ids, true.ids, strict=True)) if now != was]
    first = true.labels.index(A) + 1
    assert all(i > first and true.labels[i - 1] != IGNORE for i in changed)
    assert all(true.ids[i] not in OWN_SIGNS.special for i in changed)


def test_so_many_change_as_are_asked_for() -> None:
    noise, rng, count = WordNoise(KNOWN, OWN_SIGNS), np.random.default_rng(0), 0
    for _ in range(1000):
        strip = strip_of(A, BLUE, CUBE)
        noise.put(strip, 0.3, rng)
        count += strip.ids[-3] != BLUE
    assert 0.11 < count / 1000 < 0.19, "of three in ten, half become what they were"


def mixed(index: int) -> Document:
    return sample_document(index, task="text to image" if index % 2 else "image to text")


def batches(noise: float, state: DataState | None = None) -> PackedBatches:
    layout = Layout(rows=2, room=(160, 90, 140), waiting=8, word_noise=noise)
    return PackedBatches(mixed, TOKENIZER, (4, 16, 16), layout, state)


def test_a_stream_with_noise_is_the_same_but_for_it_and_goes_on_where_it_was() -> None:
    """What comes before a picture that is to be drawn is as it was: the picture shows that."""
    noisy, plain = list(islice(batches(0.5), 4)), list(islice(batches(0.0), 4))
    changed = 0
    for (a, _), (b, _) in zip(noisy, plain, strict=True):
        other = a.ids != b.ids
        assert torch.equal(a.labels, b.labels) and torch.equal(a.patches, b.patches)
        text, target = a.marks.doc[:, : a.lengths[0]], a.marks.doc[:, -a.lengths[2] :]
        for row in range(len(text)):
            drawn = torch.isin(text[row], target[row][target[row] != PADDING])
            assert not (other[row] & drawn).any()
        changed += int(other.sum())
    assert changed > 5
    rest = list(islice(batches(0.5, noisy[1][1]), 2))
    assert all(torch.equal(a.ids, b.ids) for (a, _), (b, _) in zip(noisy[2:], rest, strict=True))


def test_a_broken_document_is_no_lesson() -> None:
    def source(index: int) -> Document:
        if index % 2:
            raise mmcore.MMCoreError("broken")
        return Document((Text("what is it?"), Text("a red ball", True)))

    stream = PackedBatches(source, TOKENIZER, (4, 16, 16), Layout(rows=1, room=(60, 0, 0), waiting=2, word_noise=0.5))
    assert int((next(iter(stream))[0].marks.kind == TEXT).sum()) == 60


def test_a_stream_is_noisy_in_its_kinds_alone() -> None:
    """What changes are colours, and only where they are read."""
    text = open_words(TOKENIZER.parent)
    colours = {i for word in COLOURS for i in text.encode(word)}
    layout = Layout(rows=2, room=(160, 90, 140), waiting=8, word_noise=0.9, noisy=("red",))
    noisy = islice(PackedBatches(mixed, TOKENIZER, (4, 16, 16), layout), 4)
    changed = [
        (int(now), int(was))
        for (a, _), (b, _) in zip(noisy, islice(batches(0.0), 4), strict=True)
        for now, was in zip(a.ids[a.ids != b.ids], b.ids[a.ids != b.ids], strict=True)
    ]
    assert len(changed) > 5 and colours.issuperset({i for pair in changed for i in pair})


@pytest.mark.parametrize("word", ["zebra", "red cube", "", "draw"])
def test_a_kind_by_what_is_no_word_of_replies_is_an_error(word: str) -> None:
    stream = PackedBatches(mixed, TOKENIZER, (4, 16, 16), Layout(rows=1, word_noise=0.5, noisy=("red", word)))
    with pytest.raises(mmcore.MMCoreError, match=f"layout.noisy: '{word}' is no word of the replies, or more than one"):
        next(iter(stream))


def test_a_share_above_one_is_an_error(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("preset = 'debug'\n[layout]\nword_noise = 1.5\n")
    with pytest.raises(mmcore.MMCoreError, match=r"layout.word_noise must be in \[0, 1\], got 1.5"):
        load_recipe(recipe)
