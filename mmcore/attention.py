"""Who sees whom in a packed sequence, and the backends that compute attention under that rule.

Every position carries four integers (`Marks`), and `visible` is the one statement of the rule. Backends are tested
against `dense`, which is written to be read:

    dense   matrix products and a softmax: the reference, and the fastest way to train short rows on a CPU
    sdpa    torch's scaled_dot_product_attention with an additive mask; any device, little memory where rows are short
    flex    FlexAttention with a block mask: skips what no one sees; CUDA, where blocks are compiled and rows are long
    flash   flash-attn, as runs of queries with the keys that they see (`find_runs`); CUDA, 16 bits

Shapes: `B` rows, `Q` queries, `S` keys, `H` heads, `G` key-value heads, `K` head width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from mmcore.errors import MMCoreError

BACKENDS = ("dense", "sdpa", "flex", "flash")

TEXT, CONTEXT, TARGET = 1, 2, 4
"""Kinds of span, as bits, so that `Marks.hide` can name several."""

PADDING = -1
"""The `doc` of a position that holds nothing."""


@dataclass(frozen=True)
class Marks:
    """What the mask needs to know of each position: four (B, L) integer tensors.

    Args:
        doc: the document, `PADDING` where there is none.
        span: counts on in reading order within a row; each text token is a span of its own.
        kind: TEXT, CONTEXT or TARGET.
        hide: as a query, the kinds of other spans that this position does not see (bits).
    """

    doc: Tensor
    span: Tensor
    kind: Tensor
    hide: Tensor

    def __getitem__(self, where: slice) -> Marks:
        return Marks(*(getattr(self, f.name)[:, where] for f in fields(self)))

    @property
    def alone(self) -> Marks:
        """The same positions, each seeing its own span only (what the decoder uses)."""
        return Marks(self.doc, self.span, self.kind, torch.full_like(self.hide, TEXT | CONTEXT | TARGET))


def join(*parts: Marks) -> Marks:
    """Marks of positions that follow each other."""
    return Marks(*(torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(Marks)))


def visible(doc_q: Tensor, span_q: Tensor, hide_q: Tensor, doc_k: Tensor, span_k: Tensor, kind_k: Tensor) -> Tensor:
    """The rule: a position sees its own span whole, and what came before it in its document, less what it hides.

    Text is causal because each token is a span of its own; a visual span is bidirectional because it is one span.
    Every position hides TARGET, so nothing but a target span itself sees its noise; guidance lets a target span
    hide TEXT, CONTEXT or both. Arguments broadcast against each other; returns bool.
    """
    earlier = (span_k < span_q) & ((kind_k & hide_q) == 0)
    return (doc_q == doc_k) & ((span_k == span_q) | earlier)


def dense_mask(q: Marks, k: Marks) -> Tensor:
    """(B, Q, S) bool: True where query sees key."""
    return visible(*(t[:, :, None] for t in (q.doc, q.span, q.hide)), *(t[:, None] for t in (k.doc, k.span, k.kind)))


@dataclass(frozen=True)
class Runs:
    """Runs of queries, each with the keys that it sees, laid end to end: what a kernel for ragged lengths takes.

    Args:
        queries: (N,) which queries, in rows laid end to end.
        keys: (M,) which keys.
        query_offsets: (R + 1,) int32, where each of R runs begins among the queries, and the end.
        key_offsets: (R + 1,) int32, the same among the keys.
        longest: queries and keys of the longest run.
        causal: whether the last query of a run sees all of its keys, the one before it all but the last, and so on;
            else each sees all.
    """

    queries: Tensor
    keys: Tensor
    query_offsets: Tensor
    key_offsets: Tensor
    longest: tuple[int, int]
    causal: bool


def reading_order(marks: Marks) -> tuple[Tensor, Marks]:
    """Positions of each row by document and span: where they stand (B, L), and their marks."""
    order = marks.span.argsort(dim=1, stable=True)
    order = order.gather(1, marks.doc.gather(1, order).argsort(dim=1, stable=True))
    return order, Marks(*(getattr(marks, f.name).gather(1, order) for f in fields(Marks)))


def offsets(counts: Tensor) -> Tensor:
    """(R,) lengths -> (R + 1,) int32, where each begins, and the end."""
    return F.pad(counts.cumsum(0), (1, 0)).int()


def find_runs(q: Marks, k: Marks) -> tuple[Runs, ...]:
    """The rule as runs: text between two media, whose tokens each see one key more, and media, which see alike.

    Args:
        q: marks of the queries (B, Q), as `sequence` writes them: text hides no text, and no two tokens share a span.
        k: marks of the keys (B, S), the queries' own among them.
    Returns:
        Causal runs and others, where there are any. Padding is in none.
    """
    (where_q, q), (where_k, k) = reading_order(q), reading_order(k)
    text, rows = q.kind == TEXT, torch.arange(len(q.doc), device=q.doc.device)[:, None]
    begins = torch.ones_like(text)
    other = (q.doc != q.doc.roll(1, 1)) | (text != text.roll(1, 1))
    begins[:, 1:] = (other | (~text & (q.span != q.span.roll(1, 1))))[:, 1:]
    run = begins.flatten().cumsum(0) - 1
    last = F.pad(begins.flatten()[1:], (0, 1), value=True).nonzero()[:, 0]  # (R,) the last query of each run
    doc, span, hide = (t.flatten()[last, None] for t in (q.doc, q.span, q.hide))
    row = rows.expand_as(q.doc).flatten()[last]
    seen = visible(doc, span, hide, k.doc[row], k.span[row], k.kind[row]) & (doc != PADDING)  # (R, S)
    flat_q, flat_k = (where_q + rows * q.doc.shape[1]).flatten(), where_k + rows * k.doc.shape[1]
    found: list[Runs] = []
    for causal in (True, False):
        chosen = (text.flatten()[last] == causal) & (doc[:, 0] != PADDING)
        if chosen.any():
            lengths, sees = run.bincount()[chosen], seen[chosen]
            found.append(
                Runs(
                    *(flat_q[chosen[run]], flat_k[row[chosen]][sees]),
                    *(offsets(lengths), offsets(sees.sum(1))),
                    (int(lengths.max()), int(sees.sum(1).max())),
                    causal,
                )
            )
    return tuple(found)


def ragged_attention(q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
    """Attention of the runs' queries (N, H, K) to their keys (M, G, K), by flash-attn (arXiv 2307.08691)."""
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    spans: tuple[Any, ...] = (runs.query_offsets, runs.key_offsets, *runs.longest)
    return flash_attn_varlen_func(q, k, v, *spans, causal=runs.causal)


@dataclass(frozen=True)
class Mask:
    """A mask made ready for one backend: `additive` (B, 1, Q, S) for dense and sdpa, `blocks` for flex, or `runs`."""

    additive: Tensor | None = None
    blocks: BlockMask | None = None
    runs: tuple[Runs, ...] | None = None
    dense: bool = False


LONG = 4096
"""Rows of more positions than these are long: an additive mask takes 32 MB for each of them, or more."""


def best_backend(device: torch.device | str, compiled: bool, bf16: bool, positions: int) -> str:
    """The backend that a training run takes if it is not told which.

    For short rows FlexAttention costs more than it saves: an H200 took 0.18 s for a step with rows of 1152 positions,
    and 0.11 s with torch's own.

    Args:
        device: where it computes.
        compiled: whether blocks are.
        bf16: whether attention sees 16 bits.
        positions: of a row.
    """
    if torch.device(device).type == "cpu":
        return "dense"
    if bf16 and find_spec("flash_attn"):
        return "flash"
    return "flex" if compiled and positions > LONG else "sdpa"


def make_mask(q: Marks, k: Marks, dtype: torch.dtype, backend: str) -> Mask:
    """The rule, made ready for a backend, once for all layers.

    Args:
        q: marks of the queries (B, Q).
        k: marks of the keys (B, S).
        dtype: of the queries that will come.
        backend: "dense", "sdpa", "flex" or "flash".
    Raises:
        MMCoreError: flash-attn is not installed.
    """
    if backend == "flash":
        if not find_spec("flash_attn"):
            raise MMCoreError('attention = "flash" needs flash-attn: pip install "mmcore[cuda]", or attention = "sdpa"')
        return Mask(runs=find_runs(q, k))
    if backend == "flex":
        doc_q, span_q, hide_q, doc_k, span_k, kind_k = q.doc, q.span, q.hide, k.doc, k.span, k.kind

        def rule(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return visible(doc_q[b, i], span_q[b, i], hide_q[b, i], doc_k[b, j], span_k[b, j], kind_k[b, j])

        rows, queries = doc_q.shape
        return Mask(blocks=create_block_mask(rule, rows, None, queries, doc_k.shape[1], device=str(doc_q.device)))
    additive = torch.zeros((), dtype=dtype, device=q.doc.device).where(dense_mask(q, k), -torch.inf)
    return Mask(additive=additive[:, None], dense=backend == "dense")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attention: q (B, H, Q, K), k and v (B, G, S, K) -> (B, H, Q, K).

    `G` is `H`, or divides it: then neighbouring query heads share a key-value head (arXiv 2305.13245).
    """
    if mask.runs is not None:
        flat = [t.transpose(1, 2).flatten(0, 1) for t in (q, k, v)]  # (B Q, H, K)
        out = torch.zeros_like(flat[0])
        for runs in mask.runs:
            some = flat[0][runs.queries], flat[1][runs.keys], flat[2][runs.keys]
            out = out.index_copy(0, runs.queries, ragged_attention(*some, runs))
        return out.unflatten(0, (len(q), -1)).transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    if mask.blocks is not None:
        out = flex_attention(q, k, v, block_mask=mask.blocks, enable_gqa=grouped)
        assert isinstance(out, Tensor)
        return out
    if mask.dense:
        assert mask.additive is not None
        if grouped:
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        return (q @ k.mT * q.shape[-1] ** -0.5 + mask.additive).softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.additive, enable_gqa=grouped)
