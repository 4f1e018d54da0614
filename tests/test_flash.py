"""The rule as runs of queries with their keys, for flash-attn: against the dense reference, on any machine.

flash-attn wants a GPU. What is given to it is tested with a stand-in that computes, run by run, what its documentation
says; on a machine with flash-attn the last test asks the library itself.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT, Marks, attend, best_backend, dense_mask, find_runs, join
from mmcore.attention import make_mask as mask_of
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.sequence import VIDEO, Patches, Strip, Tokens, document_strip
from mmcore.training.recipe import load_recipe
from tests.test_sequence import WIDTH, pieces

pytestmark = pytest.mark.quick


def kernel(
    q: Tensor, k: Tensor, v: Tensor, q_offsets: Tensor, k_offsets: Tensor, most_q: int, most_k: int, *, causal: bool
) -> Tensor:
    """`flash_attn_varlen_func`: each run by itself; causal ones are aligned at their ends."""
    assert q_offsets.dtype == k_offsets.dtype == torch.int32
    runs = list(zip(q_offsets.diff().tolist(), k_offsets.diff().tolist(), strict=True))
    assert (most_q, most_k) == tuple(map(max, zip(*runs, strict=True)))
    out = []
    for some_q, some_k, some_v in zip(
        q.split(q_offsets.diff().tolist()),
        k.split(k_offsets.diff().tolist()),
        v.split(k_offsets.diff().tolist()),
        strict=True,
    ):
        some_k, some_v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (some_k, some_v))
        scores = torch.einsum("qhc,khc->hqk", some_q, some_k) * q.shape[-1] ** -0.5
        if causal:
            below = torch.ones(scores.shape[1:], dtype=torch.bool).tril(scores.shape[2] - scores.shape[1])
            scores = scores.masked_fill(~below, -torch.inf)
        out.append(torch.einsum("hqk,khc->qhc", scores.softmax(-1), some_v))
    return torch.cat(out)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("flash_attn")
    module.__spec__ = ModuleSpec("flash_attn", None)
    module.flash_attn_varlen_func = kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    yield


def as_mask(q: Marks, k: Marks) -> Tensor:
    """(B, Q, S) bool: who sees whom by the runs; each query that is no padding is in one run, padding in none."""
    (rows, queries), keys = q.doc.shape, k.doc.shape[1]
    mask, times = torch.zeros(rows * queries, rows * keys, dtype=torch.bool), torch.zeros(rows * queries)
    for runs in find_runs(q, k):
        for i in range(len(runs.query_offsets) - 1):
            mine = runs.queries[runs.query_offsets[i] : runs.query_offsets[i + 1]]
            seen = runs.keys[runs.key_offsets[i] : runs.key_offsets[i + 1]]
            times[mine] += 1
            for place, query in enumerate(mine.tolist()):
                mask[query, seen[: len(seen) - len(mine) + 1 + place] if runs.causal else seen] = True
    assert times.equal((q.doc != PADDING).flatten().float())
    mask = mask.view(rows, queries, rows, keys)
    for row in range(rows):
        assert not mask[row, :, [other for other in range(rows) if other != row]].any(), "rows keep to themselves"
    return mask[torch.arange(rows), :, torch.arange(rows)]


@st.composite
def packed_marks(draw: st.DrawFn) -> Marks:
    """Marks of rows of documents, with several targets of a medium, hidden conditions and padding."""

    def strip() -> Strip:
        hides = draw(st.lists(st.lists(st.sampled_from([0, TEXT, CONTEXT, TEXT | CONTEXT]), min_size=1, max_size=2)))
        return document_strip(draw(pieces()), draw(st.booleans()), hides)

    rows = [[strip() for _ in range(draw(st.integers(1, 2)))] for _ in range(draw(st.integers(1, 2)))]
    most = torch.stack([torch.tensor([s.lengths for s in row]).sum(0) for row in rows]).amax(0)
    text, context, target = (most + draw(st.integers(0, 2))).tolist()
    return pack(rows, WIDTH, (text, context, target)).marks


@given(packed_marks())
def test_runs_are_the_rule(marks: Marks) -> None:
    real = marks.doc != PADDING
    expected = dense_mask(marks, marks) & real[:, :, None]
    assert as_mask(marks, marks).equal(expected)
    targets = (marks.kind == TARGET).any(0).nonzero()
    if len(targets):  # the decoder's lane: each target span alone
        alone = marks[slice(int(targets.min()), None)].alone
        assert as_mask(alone, alone).equal(dense_mask(alone, alone) & (alone.doc != PADDING)[:, :, None])


@given(packed_marks(), st.data())
def test_runs_behind_a_cache_are_the_rule(marks: Marks, data: st.DataObject) -> None:
    """What is new sees what was kept: the document's later spans as queries, all that is clean and they as keys."""
    assume(len(marks.doc) == 1 and int(marks.doc.max()) == 0)
    cut = data.draw(st.integers(0, int(marks.span.max())))
    order = marks.span[0].argsort(stable=True)

    def where(chosen: Tensor) -> Marks:
        places = order[chosen[0][order]]
        return Marks(*(getattr(marks, name)[:, places] for name in ("doc", "span", "kind", "hide")))

    real = marks.doc != PADDING
    past, new = where(real & (marks.span < cut) & (marks.kind != TARGET)), where(real & (marks.span >= cut))
    if new.doc.shape[1]:
        keys = join(past, new)
        assert as_mask(new, keys).equal(dense_mask(new, keys))


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_flash_equals_the_reference(heads: tuple[int, int], stand_in: None) -> None:
    """Outputs and gradients in float64, 1e-9; padding gets zeros."""
    clip, picture = (Patches(torch.randn(math.prod(g), WIDTH), g, VIDEO, True) for g in ((2, 2, 2), (1, 2, 2)))
    words = Tokens([20, 21, 22], False)
    strips = [document_strip([words, clip, words, picture, words], True, [[0, TEXT]]), document_strip([words, clip])]
    marks = pack([strips, strips[:1]], WIDTH).marks
    length, found = marks.doc.shape[1], {}
    real = (marks.doc != PADDING)[:, None, :, None]
    for backend in ("dense", "flash"):
        generator = torch.Generator().manual_seed(0)
        q, k, v = (
            torch.randn(2, count, length, 8, generator=generator, dtype=torch.float64, requires_grad=True)
            for count in (heads[0], heads[1], heads[1])
        )
        out = attend(q, k, v, mask_of(marks, marks, torch.float64, backend))
        if backend == "flash":
            assert not (out * ~real).any()
        (out * real * torch.randn(out.shape, generator=generator, dtype=torch.float64)).sum().backward()
        found[backend] = [out * real, q.grad, k.grad, v.grad]
    for ours, theirs in zip(found["flash"], found["dense"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_a_model_computes_the_same_by_flash(model: MMCoreModel, prompts: list, stand_in: None) -> None:
    """Core and decoder, packed in rows with padding; float32, 2e-5."""
    rows = [[document_strip(made)] for made in prompts] + [[document_strip(made) for made in prompts]]
    seq = pack(rows, model.config.patch_width)
    found = {}
    for model.backend in ("dense", "flash"):
        with torch.no_grad():
            found[model.backend] = model(seq).hidden[seq.marks.doc[:, : seq.lengths[0]] != PADDING]
    torch.testing.assert_close(found["flash"], found["dense"], atol=2e-5, rtol=0)


def test_without_the_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    marks = pack([[document_strip([Tokens([20], False)])]], WIDTH).marks
    with pytest.raises(MMCoreError, match=r"pip install .*\[cuda\]"):
        mask_of(marks, marks, torch.bfloat16, "flash")
    for change, message in (("attention=fast", "must be auto, dense"), ("attention=flash", "16 bits")):
        with pytest.raises(MMCoreError, match=message):
            load_recipe("debug", [change, "precision=fp32"])


def test_the_backend_that_suits_a_machine(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_backend("cpu", True, True, 9000) == "dense"
    assert best_backend("cuda", False, True, 100) == "flash"
    found = [best_backend("cuda", compiled, False, n) for compiled in (True, False) for n in (1152, 9000)]
    assert found == ["sdpa", "flex", "sdpa", "sdpa"]
    monkeypatch.delitem(sys.modules, "flash_attn")
    monkeypatch.setattr("mmcore.attention.find_spec", lambda _: None)
    assert best_backend("cuda", True, True, 9000) == "flex"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention and flash-attn want a GPU")
@pytest.mark.parametrize("backend", ["sdpa", "flex", "flash"])
def test_backends_on_a_gpu_equal_the_reference(backend: str) -> None:
    """In bfloat16, 2e-2; what the reference itself loses by 8 bits of mantissa is of that size."""
    if backend == "flash":
        pytest.importorskip("flash_attn")
    clip, words = Patches(torch.randn(8, WIDTH), (2, 2, 2), VIDEO, True), Tokens([20, 21, 22], False)
    marks = pack([[document_strip([words, clip, words, clip]) for _ in range(3)]], WIDTH).marks
    marks = Marks(*(getattr(marks, name).cuda() for name in ("doc", "span", "kind", "hide")))
    q, k, v = (torch.randn(1, 4, marks.doc.shape[1], 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    found, expected = (attend(q, k, v, mask_of(marks, marks, q.dtype, name)) for name in (backend, "dense"))
    real = (marks.doc != PADDING)[:, None, :, None]
    torch.testing.assert_close(found * real, expected * real, atol=2e-2, rtol=0)
