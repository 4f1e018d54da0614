"""How the writing loop drives Lance: its contexts, cached, and the predictions that guidance takes.

    backbone = LanceBackbone(model, vocabulary, template)
    for event in write(backbone, [Order(pieces, {VIDEO: (13, 30, 53)}, VIDEO, foreword=0)], Settings(30, GUIDANCE)):
        ...

A document is a sentence that sets the task, then turns; the media of a turn come before its words. A medium that is to
be drawn by is a block of what the tower sees and a block of clean latents; one that is only looked at is the former
alone. The reference knows a single turn; that a conversation goes on in the same way is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from mmcore.attention import CONTEXT, TARGET
from mmcore.backbone import Guidance
from mmcore.cache import Cache
from mmcore.families.lance import Lance, block_places
from mmcore.families.lance_pieces import Given, LanceGuidance, Medium, Sentence, Template, as_lance
from mmcore.families.lanes import Strand, lay_out
from mmcore.families.past import Standing, StrandPast
from mmcore.families.vocabulary import Vocabulary
from mmcore.flow import Model
from mmcore.sequence import IMAGE, VIDEO, Grid, Patches, Piece, Tokens

ASIDE = 8
"""Kind of the tokens that end a context without its last words; only predictions without words see them."""

SEEN_FROM = 1000
"""Time position at which the first of the media begins, as the tower sees it, where a medium is to be drawn by it."""


class LanceBackbone:
    """Lance as a `mmcore.backbone.Backbone`.

    Args:
        model: in evaluation mode.
        vocabulary: its special ids.
        template: what stands around turns.
        view: what the tower sees of a medium that the model has written: latents -> (3, T, H, W). Without it the model
            remembers its own media by their latents alone.
    """

    limit, rest = float("inf"), 0.0

    def __init__(
        self,
        model: Lance,
        vocabulary: Vocabulary,
        template: Template,
        view: Callable[[Patches], Tensor] | None = None,
    ) -> None:
        self.model, self.vocabulary, self.template, self.view = model, vocabulary, template, view

    @property
    def patch_width(self) -> int:
        """`P`."""
        return self.model.config.channels

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def read(self, prompts: Sequence[Sequence[Piece]]) -> tuple[LancePast, Tensor]:
        """See `mmcore.backbone.Backbone`.

        Raises:
            MMCoreError: a document takes more positions than the model holds.
        """
        past = LancePast(self, len(prompts))
        return past, past.take(prompts)


@dataclass
class Place(Standing):
    """Where one document stands.

    Args:
        turn: whose turn it is, the model's or not; None before the first.
        cut: (span, position) at which its last words begin.
        tail: position at which the reply was opened, behind those words.
        sources: rotary positions of the media of the last turn that had any, as latents.
        stale: whether that turn is over.
        shift: time positions by which what the tower sees is moved.
        given: first latent frames (n, P) of what is to be written.
    """

    turn: bool | None = None
    cut: tuple[int, int] = (0, 0)
    tail: int = 0
    sources: list[np.ndarray] = field(default_factory=list)
    stale: bool = True
    shift: int | None = None
    given: Tensor | None = None


class LancePast(StrandPast[Place]):
    """B documents; see `mmcore.backbone.Past`."""

    def __init__(self, backbone: LanceBackbone, rows: int) -> None:
        self.model, self.template, self.view = backbone.model, backbone.template, backbone.view
        places = [Place() for _ in range(rows)]
        super().__init__(backbone.model, backbone.vocabulary, places, backbone.model.config.context)

    @torch.inference_mode()
    def take(self, prompts: Sequence[Sequence[Piece]]) -> Tensor:
        """Read segments of each document, and open a reply; logits (B, V) of its first token."""
        strands = self.strands()
        for row, strand, pieces in zip(self.rows, strands, prompts, strict=True):
            for piece in pieces:
                if isinstance(piece, Given):
                    row.given = piece.values.to(self.model.device)
                    continue
                if not isinstance(piece, Sentence):
                    self.turn(row, strand, piece.learn)
                self.piece(row, strand, piece)
            self.turn(row, strand, True)
        return self.read(strands)

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """See `Past`."""
        strands = self.strands()
        for strand, new in zip(strands, ids, strict=True):
            self._say(strand, self.vocabulary.own([i for i in new if i not in (IMAGE, VIDEO)]))
        return self.run(strands)

    @torch.inference_mode()
    def visual(self, patches: Sequence[Patches | None]) -> Tensor:
        """See `Past`."""
        strands = self.strands()
        for row, strand, new in zip(self.rows, strands, patches, strict=True):
            if new is not None:
                seen = () if self.view is None else (self.view(new),)
                kind = Medium if seen else Patches
                self._medium(row, strand, kind(new.values, new.grid, new.opener, True, *seen))
                row.given = None
        return self.run(strands)

    def _say(self, strand: Strand, ids: Sequence[int]) -> None:
        strand.tokens(self.model.words(ids))

    def turn(self, row: Place, strand: Strand, learn: bool) -> None:
        """Open a turn where the other's stands."""
        if row.turn == learn:
            return
        if row.turn is None:
            self._mark(row, strand)
        row.turn, row.stale = learn, True
        if learn:
            row.tail = strand.position
        self._say(strand, self.template.reply if learn else self.template.user)

    def piece(self, row: Place, strand: Strand, piece: Piece) -> None:
        """Append a segment of the turn that is open, or the sentence before the first."""
        if isinstance(piece, Sentence):
            self._say(strand, (*self.template.opening, *self.vocabulary.own(piece.ids)))
        elif isinstance(piece, Tokens):
            if not piece.learn:
                self._mark(row, strand)
            self._say(strand, self.vocabulary.own(piece.ids))
        else:
            self._medium(row, strand, piece)
            if not piece.learn:
                self._mark(row, strand)

    def _mark(self, row: Place, strand: Strand) -> None:
        """Cut here. Span numbers are left free, for tokens that open a reply and for a block that sees them and what
        came before the cut, and no more."""
        row.cut = (strand.span, strand.position)
        strand.span += len(self.template.reply) + 1

    def _medium(self, row: Place, strand: Strand, piece: Patches) -> None:
        """The blocks of a picture or a clip."""
        markers, drawn = self.markers(), len(piece.values) > 0
        if isinstance(piece, Medium):
            seen = piece.seen.to(markers.device)
            places = self._places(strand.position, self.model.tower.grid(seen))
            strand.position = int(places.max()) + 1
            if drawn:
                row.shift = SEEN_FROM - int(places[0, 0]) if row.shift is None else row.shift
                places = places + (row.shift, 0, 0)
            strand.spread((torch.cat((markers[:1], self.model.look(seen), markers[1:])),), (places,), CONTEXT)
        if drawn:
            places = self._places(strand.position, piece.grid)
            strand.position = int(places.max()) + 1
            values = piece.values.to(markers.device)
            latents = self.model.latents(values, torch.zeros(len(values), device=values.device), piece.grid)
            strand.spread((markers, latents), (places[[0, -1]], places[1:-1]), CONTEXT)
            row.sources = [*([] if row.stale else row.sources), places]
            row.stale = False

    def _places(self, position: int, grid: Grid) -> np.ndarray:
        return block_places(position, grid, self.model.config.stride)

    def predictor(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """See `Past`. A plain `Guidance` is one that bounds nothing. Words that the model wrote before the medium are
        left out together with the user's last ones.

        Raises:
            MMCoreError: guidance by media is asked for, which this family has not.
        """
        rule = as_lance(guidance)
        standings, cache = [self.rows[row] for row in rows], self.chosen(rows)
        plain = self._velocities(cache, standings, grid, None)
        both = self._velocities(cache, standings, grid, rule)
        given, known = self._given(standings, prod(grid))

        @torch.inference_mode()
        def predict(x: Tensor, t: Tensor) -> Tensor:
            """x (R, N, P) at times t (R,) -> clean (R, N, P)."""
            x = given.where(known, x)
            level = (1 - t)[:, None, None].where(~known, 0)
            if rule.acts(t):
                without_text, full = both(x, level[..., 0])
                if rule.anew:
                    without_text, full = without_text.where(~known, 0), full.where(~known, 0)
                v = rule.combine(full, without_text)
            else:
                (v,) = plain(x, level[..., 0])
            return x - level * v

        return predict

    def _given(self, rows: Sequence[Place], count: int) -> tuple[Tensor, Tensor]:
        """Latents (R, N, P) that are given, and where (R, N, 1)."""
        values = torch.zeros(len(rows), count, self.model.config.channels, device=self.model.device)
        known = torch.zeros(len(rows), count, 1, dtype=torch.bool, device=self.model.device)
        for r, row in enumerate(rows):
            if row.given is not None:
                values[r, : len(row.given)], known[r, : len(row.given)] = row.given, True
        return values, known

    @torch.inference_mode()
    def _velocities(
        self, cache: Cache, rows: Sequence[Place], grid: Grid, rule: LanceGuidance | None
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        """Velocities of a medium in each row: without the last words where there is a rule, then with all.

        Both lie in one row, as target spans that do not see each other: one pass, one cache.

        Returns:
            (x (R, N, P), levels (R, N)) -> for each of the one or two, (R, N, P).
        """
        count, markers, strands = prod(grid), self.markers(), []
        for row in rows:
            strand = Strand()
            if rule is not None:
                strand.span, position = row.cut
                strand.position = position if rule.anew else row.tail
                strand.tokens(self.model.words(self.template.reply), ASIDE)
                self.target(strand, row, position + len(self.template.reply), grid, TARGET)
            strand.span = row.span
            self.target(strand, row, row.position, grid, TARGET | ASIDE)
            strands.append(strand)
        new = lay_out(strands, markers)
        branches = 1 if rule is None else 2

        @torch.inference_mode()
        def run(x: Tensor, level: Tensor) -> tuple[Tensor, ...]:
            latents = self.model.latents(x, level, grid).repeat(1, branches, 1)
            hidden = self.model(replace(new, x=torch.cat((new.x[:, : new.lengths[0]], latents), 1)), cache)
            return self.model.velocity(hidden[:, new.lengths[0] :]).split(count, 1)

        return run

    def target(self, strand: Strand, row: Place, position: int, grid: Grid, hide: int) -> None:
        """A medium to be written: where its one source stands if that has as many tokens, else behind the context."""
        places = self._places(position, grid)
        if len(row.sources) == 1 and len(row.sources[0]) == len(places):
            places = row.sources[0]
        markers = self.markers()
        empty = markers.new_zeros(len(places) - 2, markers.shape[-1])
        strand.spread((markers, empty), (places[[0, -1]], places[1:-1]), TARGET, hide)
