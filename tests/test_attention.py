"""The mask's rule, and every backend against the dense reference."""

from __future__ import annotations

import pytest
import torch

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT, Marks, attend, dense_mask, make_mask
from mmcore.packing import pack
from mmcore.sequence import IMAGE, Patches, Strip, Tokens, document_strip

pytestmark = pytest.mark.quick


def picture(seed: int, learn: bool) -> Patches:
    return Patches(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)), (1, 2, 2), IMAGE, learn)


def sees(strips: list[Strip]) -> tuple[torch.Tensor, Marks]:
    seq = pack([strips], 6)
    return dense_mask(seq.marks, seq.marks)[0], seq.marks


def test_the_rule_position_by_position() -> None:
    strip = document_strip([Tokens([20, 21], False), picture(0, True), Tokens([22], True)])
    mask, marks = sees([strip])
    # text lane: <start> 20 21 <reply> <image> </image> 22 <end>; context: level + 4; target: level + 4
    text, context, target = range(8), range(8, 13), range(13, 18)
    for q in text:
        assert [bool(mask[q, k]) for k in text] == [k <= q for k in text]
        assert all(bool(mask[q, k]) == (q >= 5) for k in context)
        assert not mask[q, target].any()
    for q in context:
        assert [bool(mask[q, k]) for k in text] == [k < 5 for k in text]
        assert mask[q, context].all()
        assert not mask[q, target].any()
    for q in target:
        assert [bool(mask[q, k]) for k in text] == [k < 5 for k in text]
        assert not mask[q, context].any()
        assert mask[q, target].all()
    assert marks.kind[0].tolist() == [TEXT] * 8 + [CONTEXT] * 5 + [TARGET] * 5


@pytest.mark.parametrize(("hide", "text", "context"), [(0, True, True), (TEXT, False, True), (CONTEXT, True, False)])
def test_a_target_hides_what_it_is_told_to(hide: int, text: bool, context: bool) -> None:
    strip = document_strip([picture(0, False), Tokens([20], False), picture(1, True)], False, [[hide]])
    mask, marks = sees([strip])
    query = int((marks.kind[0] == TARGET).nonzero()[0])
    assert bool(mask[query, 1]) is text
    assert bool(mask[query, (marks.kind[0] == CONTEXT).nonzero()[0, 0]]) is context
    assert mask[query, (marks.kind[0] == TARGET)].all()


def test_documents_and_padding_do_not_see_each_other() -> None:
    a, b = (document_strip([Tokens([20, 21], False), picture(i, True)]) for i in range(2))
    seq = pack([[a, b], [a]], 6)
    mask = dense_mask(seq.marks, seq.marks)
    doc = seq.marks.doc
    assert not mask[(doc[:, :, None] != doc[:, None])].any()
    assert (doc[1] == PADDING).any()


def random_marks(rows: int, length: int, generator: torch.Generator) -> Marks:
    def draw(low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high, (rows, length), generator=generator)

    span = draw(0, 3).cumsum(1)
    return Marks(draw(0, 2), span, 2 ** draw(0, 3), draw(0, 8))


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_backends_equal_the_reference(backend: str) -> None:
    """Float32, absolute tolerance 1e-5; the dense reference is itself held to a loop in float64."""
    generator = torch.Generator().manual_seed(0)
    marks = random_marks(2, 128, generator)
    q, k, v = (torch.randn(2, 2, 128, 16, generator=generator) for _ in range(3))
    dense = attend(q, k, v, make_mask(marks, marks, q.dtype, "dense"))
    other = attend(q, k, v, make_mask(marks, marks, q.dtype, backend))
    torch.testing.assert_close(other, dense, atol=1e-5, rtol=0)


def test_the_reference_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    marks = random_marks(1, 9, generator)
    q, k, v = (torch.randn(1, 1, 9, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    out = attend(q, k, v, make_mask(marks, marks, q.dtype, "dense"))
    doc, span, kind, hide = (getattr(marks, name)[0].tolist() for name in ("doc", "span", "kind", "hide"))
    for i in range(9):
        seen = [
            j
            for j in range(9)
            if doc[i] == doc[j] and (span[i] == span[j] or (span[j] < span[i] and not kind[j] & hide[i]))
        ]
        weights = torch.softmax(torch.stack([q[0, 0, i] @ k[0, 0, j] / 8**0.5 for j in seen]), 0)
        torch.testing.assert_close(out[0, 0, i], sum(w * v[0, 0, j] for w, j in zip(weights, seen, strict=True)))


@pytest.mark.parametrize("backend", ["dense", "sdpa", "flex"])
def test_query_heads_may_share_a_key_value_head(backend: str) -> None:
    """Neighbouring query heads share one: as if each had a copy of it. Float32, absolute tolerance 1e-5."""
    generator = torch.Generator().manual_seed(0)
    marks = random_marks(2, 128, generator)
    q = torch.randn(2, 6, 128, 16, generator=generator)
    k, v = (torch.randn(2, 2, 128, 16, generator=generator) for _ in range(2))
    found = attend(q, k, v, make_mask(marks, marks, q.dtype, backend))
    keys, values = (torch.stack([t[:, i // 3] for i in range(6)], 1) for t in (k, v))
    expected = attend(q, keys, values, make_mask(marks, marks, q.dtype, "dense"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
