"""The key-value cache: clean positions of the past, stored once, seen by every later step.

A forward pass writes its new keys and values into free room after the past and attends to both without a copy.
`commit` keeps them; without it the next pass writes over them, which is what a sampling step wants: it runs the
target span against the same past again and again.

A layer of linear attention keeps no positions but a state, of one size whatever was read (see `chains`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mmcore.attention import Marks, join

GROWTH = 256
"""Room is made in steps of so many positions."""


@dataclass(frozen=True)
class Trail:
    """What a layer of linear attention keeps of the past, for each view of it.

    Args:
        tails: (B, V, T, 3, H K) queries, keys and values of the last positions, before the short convolution.
        states: (B, V, H, K, K) float32.
    """

    tails: Tensor
    states: Tensor


class Cache:
    """What every layer of the core keeps of the past of `B` rows: keys and values, or a state.

    Rows share one length; where a row had nothing to add, its place is padding that no one sees.
    """

    def __init__(self) -> None:
        self.length = 0
        self.marks: Marks | None = None
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._trails: dict[int, tuple[Trail, Trail]] = {}

    def joined(self, new: Marks) -> Marks:
        """Marks of the past followed by those of the new positions."""
        return new if self.marks is None else join(self.marks, new)

    def room(self, layer: int, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Buffers (B, H, past + L, K) whose last L places are free for the new positions.

        Args:
            layer: which layer of the core.
            keys: a tensor (B, H, L, K) of the shape, dtype and device that the new keys will have.
        """
        b, h, new, k = keys.shape
        if layer not in self._layers:
            empty = keys.new_empty(b, h, 0, k)
            self._layers[layer] = (empty, empty)
        need = self.length + new
        if self._layers[layer][0].shape[2] < need:
            size = -(-need // GROWTH) * GROWTH
            old = self._layers[layer]
            grown = tuple(keys.new_zeros(b, h, size, k) for _ in old)
            for buffer, was in zip(grown, old, strict=True):
                buffer[:, :, : self.length] = was[:, :, : self.length]
            self._layers[layer] = (grown[0], grown[1])
        keys_buffer, values_buffer = self._layers[layer]
        return keys_buffer[:, :, :need], values_buffer[:, :, :need]

    def trail(self, layer: int, empty: Callable[[], Trail]) -> tuple[Trail, Trail]:
        """What a layer of linear attention kept, and where it is to write what it will have kept, all of it.

        Args:
            layer: which layer of the core.
            empty: makes what is kept of no past at all.
        """
        if layer not in self._trails:
            self._trails[layer] = (empty(), empty())
        return self._trails[layer]

    def commit(self, new: Marks) -> None:
        """Keep the positions that the last forward pass wrote."""
        self._trails = {layer: (new, old) for layer, (old, new) in self._trails.items()}
        self.marks = self.joined(new)
        self.length += new.doc.shape[1]

    def select(self, rows: Tensor) -> Cache:
        """A cache of some of the rows (indices, in order, repeats allowed)."""
        chosen = Cache()
        chosen.length = self.length
        if self.marks is not None:
            chosen.marks = Marks(*(getattr(self.marks, f.name)[rows] for f in fields(Marks)))
        chosen._layers = {layer: (k[rows], v[rows]) for layer, (k, v) in self._layers.items()}
        for layer, trails in self._trails.items():
            old, new = (Trail(t.tails[rows], t.states[rows]) for t in trails)
            chosen._trails[layer] = (old, new)
        return chosen

    @property
    def bytes(self) -> int:
        """Memory held."""
        trails = [t for pair in self._trails.values() for trail in pair for t in (trail.tails, trail.states)]
        return sum(t.nbytes for t in (*trails, *(t for pair in self._layers.values() for t in pair)))


def positions_used(cache: Cache) -> int:
    """Positions of the past, padding included."""
    return 0 if cache.marks is None else torch.numel(cache.marks.doc[0])
