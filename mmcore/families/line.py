"""New positions of a document in one lane, as in a plain language model: each has a rotary position of its own.

line = Line()
line.tokens(words)                        # (n, D): causal
line.block((latents,), CONTEXT)           # (n, D): sees itself whole, n positions further
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mmcore.families.lanes import Strand


class Line(Strand):
    """A strand of one lane, whose blocks take as many rotary positions as they have tokens.

    Args:
        span: number of the first new span.
        position: rotary position of the first new token.
    """

    def __init__(self, span: int = 0, position: int = 0) -> None:
        super().__init__(span, position, lanes=1)

    def block(self, values: Sequence[Tensor], kind: int) -> None:
        """Append one span that sees itself whole, each token one position further.

        Args:
            values: one tensor (n, D).
            kind: CONTEXT or TARGET.
        """
        (inside,) = values
        places = np.arange(self.position, self.position + len(inside))
        self.spread(values, [places[:, None].repeat(3, 1)], kind)
        self.position += len(inside)
