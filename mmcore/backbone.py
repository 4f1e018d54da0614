"""What the writing loop needs to know of a model, and how `MMCoreModel` provides it.

    past, logits = Native(model).read(prompts)          # B documents, their clean positions cached
    logits = past.tokens([[7], [12]])                   # append a token to each
    predict = past.predictor([0], (4, 4, 4), VIDEO, Guidance(3.0))
    clean = predict(x_t, t)                             # the target span alone runs, against the cache
    logits = past.visual([patches, None])               # append the finished segment, clean

Checkpoints of other families that put noise through the core can be driven by the same loop: they implement these two
small protocols. Shapes: `B` documents, `R` of them, `V` vocabulary, `N` patches, `P` patch width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from mmcore.attention import CONTEXT, TARGET, TEXT
from mmcore.cache import Cache
from mmcore.errors import MMCoreError
from mmcore.flow import MIN_REST, Model
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.sequence import OWN_SIGNS, Grid, Patches, Piece, Signs, Strip, document_strip


@dataclass(frozen=True)
class Guidance:
    """How far a prediction is pushed from what it would be without the condition (arXiv 2207.12598, 2211.09800).

    Args:
        text: weight of the words; 1 is no guidance.
        media: weight of the earlier media; 1 is no guidance.
        since: noise level t from which on predictions are pushed. Early ones are a blur over all that may come, and
            pushing them can make several things of one (arXiv 2404.07724).
    """

    text: float = 3.0
    media: float = 1.0
    since: float = 0.1

    def branches(self) -> tuple[tuple[int, float], ...]:
        """The predictions to make, as (hidden kinds, weight); the weights add up to 1."""
        table = ((0, self.text), (TEXT, self.media - self.text), (TEXT | CONTEXT, 1 - self.media))
        return tuple((hide, weight) for hide, weight in table if weight)


class Past(Protocol):
    """B documents being written, in step with each other."""

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Append text tokens, to each document its own (or none); logits (B, V) after the last of each."""
        ...

    def visual(self, patches: Sequence[Patches | None]) -> Tensor:
        """Append a finished visual segment, clean, with its closer; logits (B, V) after it."""
        ...

    def predictor(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """The guided prediction of the clean patches of a new segment, the same grid in R documents."""
        ...

    def room(self, row: int) -> int:
        """Positions that a document may still grow by."""
        ...


class Backbone(Protocol):
    """A model that the writing loop can drive."""

    @property
    def patch_width(self) -> int:
        """`P`."""
        ...

    @property
    def limit(self) -> float:
        """Finished patches lie in [-limit, limit]."""
        ...

    @property
    def rest(self) -> float:
        """1 - t is not taken smaller than this where a step divides by it; 0 if the model predicts velocities."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def read(self, prompts: Sequence[Sequence[Piece]]) -> tuple[Past, Tensor]:
        """Take in documents that end before a reply; logits (B, V) of each reply's first token."""
        ...


class Native:
    """`MMCoreModel` as a backbone.

    Args:
        model: in evaluation mode.
        signs: of its vocabulary.
    """

    rest = MIN_REST

    def __init__(self, model: MMCoreModel, signs: Signs = OWN_SIGNS) -> None:
        self.model, self.signs = model, signs
        self.limit = math.inf if model.config.latent_channels else 1.0

    @property
    def patch_width(self) -> int:
        """`P`."""
        return self.model.config.patch_width

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def read(self, prompts: Sequence[Sequence[Piece]]) -> tuple[Past, Tensor]:
        """See `Backbone`.

        Raises:
            MMCoreError: a document takes more positions than the model holds.
        """
        strips = [document_strip(pieces, open_reply=True, signs=self.signs) for pieces in prompts]
        for strip in strips:
            if sum(strip.lengths) > self.model.config.context_length:
                raise MMCoreError(
                    f"the document takes {sum(strip.lengths)} positions, the model holds "
                    f"{self.model.config.context_length}: shorten the text, or send fewer or shorter media"
                )
        past = NativePast(self.model, len(prompts), self.signs)
        return past, past.append(strips)


class NativePast:
    """The cache of B documents, and where each of them stands."""

    def __init__(self, model: MMCoreModel, rows: int, signs: Signs = OWN_SIGNS) -> None:
        self.model, self.cache, self.signs = model, Cache(), signs
        self._at = [(0, 0)] * rows
        self._used = [0] * rows

    def room(self, row: int) -> int:
        """See `Past`."""
        return self.model.config.context_length - self._used[row]

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """See `Past`."""
        strips = [self._strip(row) for row in range(len(self._at))]
        for strip, new in zip(strips, ids, strict=True):
            strip.text(new)
        return self.append(strips)

    def visual(self, patches: Sequence[Patches | None]) -> Tensor:
        """See `Past`."""
        strips = [self._strip(row) for row in range(len(self._at))]
        for strip, new in zip(strips, patches, strict=True):
            if new is not None:
                strip.visual(new, CONTEXT)
                strip.advance(new.grid)
                strip.text([self.signs.around(new.opener)[1]])
        return self.append(strips)

    def _strip(self, row: int) -> Strip:
        return Strip(*self._at[row])

    @torch.inference_mode()
    def append(self, strips: Sequence[Strip]) -> Tensor:
        """Run new positions of every document and keep them; logits (B, V) after each one's last text token."""
        seq = pack([[strip] for strip in strips], self.model.config.patch_width).to(self.model.device)
        output = self.model(seq, self.cache)
        self.cache.commit(seq.marks)
        for row, strip in enumerate(strips):
            self._at[row] = (strip.span, strip.position)
            self._used[row] += sum(strip.lengths)
        last = torch.tensor([max(strip.lengths[0] - 1, 0) for strip in strips], device=output.hidden.device)
        return self.model.logits(output.hidden[torch.arange(len(strips), device=last.device), last])

    def predictor(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """See `Past`."""
        free = self._predictor(rows, grid, opener, ((0, 1.0),))
        branches = guidance.branches()
        if branches == ((0, 1.0),):
            return free
        guided = self._predictor(rows, grid, opener, branches)
        return lambda x, t: (guided if bool((t >= guidance.since).all()) else free)(x, t)

    def _predictor(self, rows: Sequence[int], grid: Grid, opener: int, branches: Sequence[tuple[int, float]]) -> Model:
        """The weighted sum of predictions that do not see all. They lie in one row, as target spans that do not see
        each other: one pass, one cache."""
        cache = self.cache if list(rows) == list(range(len(self._at))) else self.cache.select(torch.tensor(rows))
        count = grid[0] * grid[1] * grid[2]
        blank = Patches(torch.zeros(count, self.model.config.patch_width), grid, opener, True)
        strips = []
        for row in rows:
            strip = self._strip(row)
            for hide, _ in branches:
                strip.visual(blank, TARGET, hide)
            strips.append([strip])
        seq = pack(strips, self.model.config.patch_width).to(self.model.device)
        patches = seq.patches.to(self.model.dtype)
        targets = patches.unflatten(1, (len(branches), count + 1))[:, :, 1:]

        @torch.inference_mode()
        def predict(x: Tensor, t: Tensor) -> Tensor:
            """x (R, N, P) at times t (R,) -> clean (R, N, P)."""
            targets.copy_(x[:, None])  # in place: these are the largest tensors of a step
            output = self.model(replace(seq, patches=patches, level=t[:, None].expand(patches.shape[:2])), cache)
            split = output.patches.unflatten(1, (len(branches), count + 1))[:, :, 1:]
            (_, weight), *others = branches
            clean = split[:, 0].to(x.dtype, copy=True).mul_(weight)
            for branch, (_, weight) in enumerate(others, 1):
                clean.add_(split[:, branch], alpha=weight)
            return clean

        return predict
