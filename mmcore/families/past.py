"""Documents being written by a two-expert model: their cache, and where each of them stands.

What the pasts of such families share; each adds how its documents are laid out (see `mmcore.backbone.Past`).
Shapes: `B` documents, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mmcore.cache import Cache
from mmcore.errors import MMCoreError
from mmcore.families.lanes import Strand, lay_out
from mmcore.families.pair import Pair
from mmcore.families.vocabulary import Vocabulary


@dataclass
class Standing:
    """Where one document stands.

    Args:
        span: number of its next span.
        position: its next rotary position.
        used: positions that it takes.
    """

    span: int = 0
    position: int = 0
    used: int = 0


Row = TypeVar("Row", bound=Standing)


class StrandPast(Generic[Row]):
    """The cache of B documents.

    Args:
        model: in evaluation mode.
        vocabulary: its special ids.
        rows: where each document stands.
        context: positions that one may take.
    """

    def __init__(self, model: Pair, vocabulary: Vocabulary, rows: Sequence[Row], context: int) -> None:
        self.pair, self.vocabulary, self.rows, self.context = model, vocabulary, list(rows), context
        self.cache = Cache()

    def room(self, row: int) -> int:
        """See `Past`."""
        return self.context - self.rows[row].used

    def strands(self) -> list[Strand]:
        """New positions for each document, none yet."""
        return [Strand(row.span, row.position) for row in self.rows]

    def chosen(self, rows: Sequence[int]) -> Cache:
        """The cache of some of the documents."""
        whole = list(rows) == list(range(len(self.rows)))
        return self.cache if whole else self.cache.select(torch.tensor(rows))

    def markers(self) -> Tensor:
        """What opens a medium and what closes it, (2, D)."""
        return self.pair.words([self.vocabulary.opener, self.vocabulary.closer])

    def read(self, strands: Sequence[Strand]) -> Tensor:
        """Run and keep a prompt's positions; logits as `run` gives them.

        Raises:
            MMCoreError: a document takes more positions than the model holds.
        """
        for row, strand in zip(self.rows, strands, strict=True):
            if row.used + len(strand) > self.context:
                raise MMCoreError(
                    f"the document takes {row.used + len(strand)} positions, the model holds {self.context}: "
                    "shorten the text, or send fewer or smaller media"
                )
        return self.run(strands)

    @torch.inference_mode()
    def run(self, strands: Sequence[Strand], commit: bool = True) -> Tensor:
        """Run new positions of every document; logits (B, V) after the last of each one's first lane."""
        new = lay_out(strands, self.pair.embed_tokens.weight)
        if not new.x.shape[1]:
            return self.pair.lm_head.weight.new_zeros(len(strands), 1)
        hidden = self.pair(new, self.cache)
        if commit:
            self.cache.commit(new.marks)
            for row, strand in zip(self.rows, strands, strict=True):
                row.span, row.position = strand.span, strand.position
                row.used += len(strand)
        last = [max(len(strand.lanes[0].span) - 1, 0) for strand in strands]
        return self.vocabulary.logits(self.pair.logits(hidden[range(len(strands)), last]))
