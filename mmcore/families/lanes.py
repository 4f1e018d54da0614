"""New positions of documents as embeddings in lanes, one lane for each expert.

    strand = Strand(lanes=2)
    strand.tokens(words)                                   # (n, D): causal, each token at its own rotary position
    strand.block((markers, latents), CONTEXT)              # sees itself whole; all at one rotary position
    strand.spread((markers, latents), coords, CONTEXT)     # the same, each of its tokens at a position of its own
    batch = lay_out([strand, other])                       # B rows, padded

As `mmcore.sequence.Strip`, for models that take features of a tower as well as ids: so what goes in is embedded
already. Shapes: `B` rows, `L` positions, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from mmcore.attention import PADDING, TARGET, TEXT, Marks


@dataclass
class Lane:
    """Positions that one expert works on: runs that `lay_out` joins."""

    values: list[Tensor] = field(default_factory=list)
    span: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    hide: list[int] = field(default_factory=list)
    coords: list[np.ndarray] = field(default_factory=list)

    def extend(self, values: Tensor, span: Sequence[int], coords: np.ndarray, kind: int, hide: int) -> None:
        """Add positions: values (n, D), spans (n), coordinates (n, 3)."""
        self.values.append(values)
        self.span.extend(span)
        self.kind.extend([kind] * len(values))
        self.hide.extend([hide] * len(values))
        self.coords.append(coords)


class Strand:
    """New positions of one document, written from left to right.

    Args:
        span: number of the first new span.
        position: rotary position of the first new token.
        lanes: how many experts there are.
    """

    def __init__(self, span: int = 0, position: int = 0, lanes: int = 2) -> None:
        self.span, self.position = span, position
        self.lanes = tuple(Lane() for _ in range(lanes))

    def __len__(self) -> int:
        return sum(len(lane.span) for lane in self.lanes)

    def tokens(self, values: Tensor, kind: int = TEXT, hide: int = TARGET) -> None:
        """Append text tokens (n, D) to the first lane: each a span of its own, each one position further.

        Args:
            values: their embeddings.
            kind: what they are to those who hide kinds of span.
            hide: kinds of span that they do not see.
        """
        n = len(values)
        coords = np.arange(self.position, self.position + n)[:, None].repeat(3, 1)
        self.lanes[0].extend(values, range(self.span, self.span + n), coords, kind, hide)
        self.span += n
        self.position += n

    def block(self, values: Sequence[Tensor], kind: int) -> None:
        """Append one span that sees itself whole, all of it at one rotary position.

        Args:
            values: (n, D) for each lane, from the first on.
            kind: CONTEXT or TARGET.
        """
        self.spread(values, [np.full((len(inside), 3), self.position) for inside in values], kind)
        self.position += 1

    def spread(self, values: Sequence[Tensor], coords: Sequence[np.ndarray], kind: int, hide: int = TARGET) -> None:
        """Append one span that sees itself whole, each of its tokens at a given rotary position.

        Args:
            values: (n, D) for each lane, from the first on.
            coords: (n, 3) for each lane.
            kind: CONTEXT or TARGET.
            hide: kinds of other spans that it does not see.
        """
        for lane, inside, places in zip(self.lanes, values, coords, strict=False):
            lane.extend(inside, [self.span] * len(inside), places, kind, hide)
        self.span += 1


@dataclass(frozen=True)
class Layout:
    """B rows of new positions.

    Args:
        x: (B, L, D) embeddings, lane after lane, zeros where there is nothing.
        coords: (B, L, 3) rotary coordinates.
        marks: (B, L) what the mask needs.
        lengths: positions in each lane; they add up to L.
    """

    x: Tensor
    coords: Tensor
    marks: Marks
    lengths: tuple[int, ...]


def lay_out(strands: Sequence[Strand], like: Tensor) -> Layout:
    """Lay strands out in rows.

    Args:
        strands: one for each row.
        like: any tensor (..., D) of the width, dtype and device that embeddings have.
    """
    lengths = tuple(max(len(lane.span) for lane in lanes) for lanes in zip(*(s.lanes for s in strands), strict=True))
    rows, total = len(strands), sum(lengths)
    x = like.new_zeros(rows, total, like.shape[-1])
    coords = np.zeros((rows, total, 3), int)
    doc, span, kind, hide = (np.full((rows, total), fill) for fill in (PADDING, PADDING, TEXT, TARGET))
    for r, strand in enumerate(strands):
        begin = 0
        for lane, length in zip(strand.lanes, lengths, strict=True):
            where = slice(begin, begin + len(lane.span))
            begin += length
            if lane.span:
                x[r, where] = torch.cat(lane.values)
                coords[r, where], span[r, where] = np.concatenate(lane.coords), lane.span
                kind[r, where], hide[r, where], doc[r, where] = lane.kind, lane.hide, 0
    marks = Marks(*(torch.from_numpy(a) for a in (doc, span, kind, hide)))
    moved = Marks(*(getattr(marks, f.name).to(x.device) for f in fields(Marks)))
    return Layout(x, torch.from_numpy(coords).to(x.device), moved, lengths)
