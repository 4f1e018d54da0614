"""A family's token ids as the writing loop numbers them: the loop's special tokens first, then the family's own.

    vocabulary = Vocabulary(begin=151644, end=151645, opener=151652, closer=151653, special=(151643, ...))
    logits = vocabulary.logits(own)        # (B, V) -> (B, V + 9)
    own = vocabulary.own(ids)              # text tokens that the loop chose, as the family knows them

So the loop ends a reply, opens a picture and tells text from special tokens as with our own model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcore.sequence import END, IMAGE, VIDEO, VIDEO_END

SHIFT = VIDEO_END + 1
"""The family's id `i` is `i + SHIFT` to the loop."""


@dataclass(frozen=True)
class Vocabulary:
    """Which ids of a family are special.

    Args:
        begin: stands before every run of text.
        end: stands after it.
        opener: opens a picture or a clip.
        closer: closes it.
        special: other ids that are never text.
    """

    begin: int
    end: int
    opener: int
    closer: int
    special: tuple[int, ...] = ()

    def logits(self, own: Tensor) -> Tensor:
        """(B, V) as the model gives them -> (B, V + SHIFT) as the loop reads them."""
        told = torch.nn.functional.pad(own, (SHIFT, 0), value=-torch.inf)
        special = (self.begin, self.end, self.opener, self.closer, *self.special)
        told[:, [SHIFT + i for i in special]] = -torch.inf
        told[:, END] = own[:, self.end]
        told[:, [IMAGE, VIDEO]] = own[:, [self.opener]]
        return told

    @staticmethod
    def own(ids: Sequence[int]) -> list[int]:
        """Text tokens as the family numbers them."""
        return [i - SHIFT for i in ids]

    @staticmethod
    def told(ids: Sequence[int]) -> tuple[int, ...]:
        """Text tokens as the loop numbers them."""
        return tuple(i + SHIFT for i in ids)
