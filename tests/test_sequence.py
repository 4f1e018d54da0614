"""Positions, labels and packing: properties over random documents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT
from mmcore.packing import pack
from mmcore.sequence import CLOSER, END, IGNORE, IMAGE, REPLY, START, VIDEO, Patches, Piece, Tokens, document_strip

pytestmark = pytest.mark.quick
WIDTH = 3


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    made: list[Piece] = []
    for _ in range(draw(st.integers(0, 5))):
        learn = draw(st.booleans())
        if draw(st.booleans()):
            made.append(Tokens(draw(st.lists(st.integers(20, 99), max_size=5)), learn))
        else:
            t, y, x = draw(st.tuples(*[st.integers(1, 3)] * 3))
            made.append(Patches(torch.randn(t * y * x, WIDTH), (t, y, x), IMAGE if t == 1 else VIDEO, learn))
    return made


def test_a_document_by_hand() -> None:
    clip = Patches(torch.arange(8.0 * WIDTH).view(8, WIDTH), (2, 2, 2), VIDEO, True)
    strip = document_strip([Tokens([20, 21], False), clip, Tokens([22], True)])
    closer = CLOSER[VIDEO]
    assert strip.ids == [START, 20, 21, REPLY, VIDEO, closer, 22, END]
    assert strip.labels == [IGNORE, IGNORE, IGNORE, VIDEO, IGNORE, 22, END, IGNORE]
    seq = pack([[strip]], WIDTH)
    # The opener is at 4, the level position at time 5, patches stand 3 apart at their frame, row and column, and the
    # closer follows the last frame.
    assert seq.coords[0, :8, 0].tolist() == [0, 1, 2, 3, 4, 12, 13, 14]
    assert seq.coords[0, 8].tolist() == [5, 0, 0]
    assert seq.coords[0, 9:17].tolist() == [
        [8 + 3 * t, 3 + 3 * y, 3 + 3 * x] for t in (0, 1) for y in (0, 1) for x in (0, 1)
    ]
    assert torch.equal(seq.coords[0, 8:17], seq.coords[0, 17:26]), "context and target copies share positions"
    assert torch.equal(seq.target_patches[0, 1:], clip.values)
    assert torch.equal(seq.patches[0, 1:9], clip.values)


def test_a_prompt_ends_where_a_reply_begins() -> None:
    """What was replied earlier is context now, and there is nothing to learn."""
    clip = Patches(torch.zeros(1, WIDTH), (1, 1, 1), IMAGE, True)
    strip = document_strip([Tokens([20], False), clip, Tokens([21], False)], open_reply=True)
    assert strip.ids == [START, 20, REPLY, IMAGE, CLOSER[IMAGE], END, 21, REPLY]
    assert strip.lengths == (8, 2, 0)


@settings(max_examples=60, deadline=None)
@given(pieces(), st.booleans())
def test_every_learnt_token_is_predicted_once_and_nothing_else(document: list[Piece], last: bool) -> None:
    strip = document_strip(document, last)
    labels = [label for label in strip.labels if label != IGNORE]
    expected: list[int] = []
    for i, piece in enumerate(document):
        if piece.learn:
            expected += list(piece.ids) if isinstance(piece, Tokens) else [piece.opener]
            ends = i + 1 == len(document) or not document[i + 1].learn
            cut = isinstance(piece, Patches) and i + 1 == len(document) and not last
            expected += [END] if ends and not cut else []
    assert labels == expected
    shown = [p for p in document if isinstance(p, Patches)]
    assert len(strip.patches[TARGET]) == sum(p.learn for p in shown)


@settings(max_examples=60, deadline=None)
@given(pieces())
def test_positions_never_go_back(document: list[Piece]) -> None:
    """In reading order time rises from span to span, and no span begins inside an earlier one."""
    seq = pack([[document_strip(document)]], WIDTH)
    span, coords = seq.marks.span[0], seq.coords[0, :, 0]
    reach = -1
    for s in range(int(span.max()) + 1):
        own = coords[span == s]
        target = bool((seq.marks.kind[0][span == s] == TARGET).all())
        assert int(own.min()) > reach
        if not target:
            reach = int(own.max())


@settings(max_examples=40, deadline=None)
@given(st.lists(pieces(), min_size=1, max_size=5), st.integers(1, 3))
def test_packing_keeps_everything(documents: list[list[Piece]], rows: int) -> None:
    strips = [document_strip(d) for d in documents]
    layout = [strips[r::rows] for r in range(rows)]
    seq = pack(layout, WIDTH)
    kept = seq.marks.doc != PADDING
    assert int(kept.sum()) == sum(sum(s.lengths) for s in strips)
    lt = seq.lengths[0]
    for r, row in enumerate(layout):
        assert seq.ids[r][kept[r, :lt]].tolist() == [i for s in row for i in s.ids]
        for d, strip in enumerate(row):
            own = seq.marks.doc[r] == d
            for kind, n in zip((TEXT, CONTEXT, TARGET), strip.lengths, strict=True):
                assert int((own & (seq.marks.kind[r] == kind)).sum()) == n
            values = [p.values for kind in (CONTEXT, TARGET) for p in strip.patches[kind]]
            visual = own[lt:] & ~seq.is_level[r]
            found = seq.patches[r][visual]
            assert sorted(found.sum(1).tolist()) == sorted(torch.cat([*values, found[:0]]).sum(1).tolist())


def test_noise_lies_in_target_patches_alone_each_at_its_level() -> None:
    """On the straight path from noise to data; context, level positions and padding are as they were."""
    clips = [Patches(torch.randn(n, WIDTH), (n, 1, 1), VIDEO, True) for n in (2, 4)]
    seq = pack([[document_strip([clip])] for clip in clips], WIDTH)  # the first row is padded
    noise = torch.randn(seq.target_patches.shape)
    noisy = seq.noised(noise, torch.tensor([[0.25], [0.5]]).expand(noise.shape[:2]))
    for row, (clip, t) in enumerate(zip(clips, (0.25, 0.5), strict=True)):
        here = seq.is_target_patch[row]
        expected = t * clip.values + (1 - t) * noise[row, here]
        torch.testing.assert_close(noisy.target_patches[row, here], expected)
        assert not noisy.target_patches[row, ~here].any() and (~here).any()
    lc = seq.lengths[1]
    assert torch.equal(noisy.patches[:, :lc], seq.patches[:, :lc]) and torch.equal(
        noisy.level[:, :lc], seq.level[:, :lc]
    )
    assert noisy.level[:, lc:].unique(dim=1).tolist() == [[0.25], [0.5]]


def test_patches_that_do_not_fill_their_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="3 patches do not fill the grid"):
        document_strip([Patches(torch.zeros(3, WIDTH), (2, 2, 1), VIDEO, False)])
