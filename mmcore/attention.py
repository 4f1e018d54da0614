"""Who sees whom in a packed sequence, and the backends that compute attention under that rule.

Every position carries four integers (`Marks`), and `visible` is the one statement of the rule. Backends are tested
against `dense`, which is written to be read:

    dense   matrix products and a softmax: the reference, and the fastest way to train short rows on a CPU
    sdpa    torch's scaled_dot_product_attention with an additive mask; any device, little memory
    flex    FlexAttention with a block mask: skips what no one sees; CUDA

Shapes: `B` rows, `Q` queries, `S` keys, `H` heads, `G` key-value heads, `K` head width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

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
class Mask:
    """A mask made ready for one backend: `additive` (B, 1, Q, S) for dense and sdpa, or `blocks` for flex."""

    additive: Tensor | None = None
    blocks: BlockMask | None = None
    dense: bool = False


def make_mask(q: Marks, k: Marks, dtype: torch.dtype, backend: str) -> Mask:
    """The rule, made ready for a backend, once for all layers.

    Args:
        q: marks of the queries (B, Q).
        k: marks of the keys (B, S).
        dtype: of the queries that will come.
        backend: "dense", "sdpa" or "flex".
    """
    if backend == "flex":

        def rule(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return visible(q.doc[b, i], q.span[b, i], q.hide[b, i], k.doc[b, j], k.span[b, j], k.kind[b, j])

        rows, queries = q.doc.shape
        return Mask(blocks=create_block_mask(rule, rows, None, queries, k.doc.shape[1], device=str(q.doc.device)))
    additive = torch.zeros((), dtype=dtype, device=q.doc.device).where(dense_mask(q, k), -torch.inf)
    return Mask(additive=additive[:, None], dense=backend == "dense")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attention: q (B, H, Q, K), k and v (B, G, S, K) -> (B, H, Q, K).

    `G` is `H`, or divides it: then neighbouring query heads share a key-value head (arXiv 2305.13245).
    """
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
