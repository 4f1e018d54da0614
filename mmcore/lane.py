"""A lane of a strip (see `mmcore.sequence`): their order in reading, where they stand, what they do not see."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Lane:
    """Positions of one kind, in reading order: runs of arrays that `pack` joins."""

    span: list[np.ndarray] = field(default_factory=list)
    coords: list[np.ndarray] = field(default_factory=list)
    hide: list[np.ndarray] = field(default_factory=list)
    length: int = 0

    def extend(self, span: np.ndarray, coords: np.ndarray, hide: int) -> None:
        """Add `n` positions: span (n,), coords (n, 3)."""
        self.span.append(span)
        self.coords.append(coords)
        self.hide.append(np.full(len(span), hide))
        self.length += len(span)
