"""How the writing loop drives BAGEL: its contexts, cached, and the predictions that guidance takes.

    backbone = BagelBackbone(model, vocabulary)
    for event in write(backbone, [Order(pieces, {IMAGE: (1, 64, 64)}, IMAGE, foreword=0)], Settings(49, DRAWING)):
        ...

A document is a row of blocks: text is `begin`, its tokens, `end`; a picture that was drawn, or is to be drawn by, is a
block of clean latents and a block of what the tower sees; a picture that is only looked at is the latter alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmcore.attention import CONTEXT, TARGET
from mmcore.backbone import Guidance
from mmcore.cache import Cache
from mmcore.families.bagel import Bagel
from mmcore.families.guidance import Renormed
from mmcore.families.lanes import Strand, lay_out
from mmcore.families.past import Standing, StrandPast
from mmcore.families.vocabulary import Vocabulary
from mmcore.flow import Model
from mmcore.sequence import IMAGE, Grid, Patches, Piece, Tokens

DRAWING = Renormed(text=4.0, media=1.0, until=0.6, renorm="global")
"""Guidance for pictures from words, as the released notebook has it. (Its page passes an image weight of 1.5 too, which
without a source picture does the work of a larger text weight; `replace(DRAWING, media=1.5)` is that.)"""

EDITING = Renormed(text=4.0, media=2.0, until=1.0, renorm="text_channel")
"""Guidance for a picture from a picture and words, as the released notebook and page have it."""


@dataclass(frozen=True)
class Picture(Patches):
    """A picture to be read.

    Args:
        values: (N, P) its clean latent tokens, or (0, P) where it is only to be looked at.
        grid: (1, h, w) latent tokens.
        seen: (3, H, W) in [-1, 1], as the tower takes it.
    """

    seen: Tensor


class BagelBackbone:
    """BAGEL as a `mmcore.backbone.Backbone`.

    Args:
        model: in evaluation mode.
        vocabulary: its special ids.
        view: what the tower sees of a picture that the model has drawn: latents -> (3, H, W). Without it the model
            remembers its own pictures by their latents alone.
    """

    limit, rest = float("inf"), 0.0

    def __init__(self, model: Bagel, vocabulary: Vocabulary, view: Callable[[Patches], Tensor] | None = None) -> None:
        self.model, self.vocabulary, self.view = model, vocabulary, view

    @property
    def patch_width(self) -> int:
        """`P`."""
        return self.model.config.patch_width

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def read(self, prompts: Sequence[Sequence[Piece]]) -> tuple[BagelPast, Tensor]:
        """See `mmcore.backbone.Backbone`.

        Raises:
            MMCoreError: a document takes more positions than the model holds.
        """
        past = BagelPast(self, len(prompts))
        past.take([list(pieces) for pieces in prompts])
        return past, past.begun()


@dataclass
class Place(Standing):
    """Where one document stands.

    Args:
        speaking: whether a run of text is open.
        cut: (span, position) at which its last words begin: without them it ends there.
        words: every text of the prompt, as ids of the family.
        pictured: whether there is a picture in it.
    """

    speaking: bool = False
    cut: tuple[int, int] = (0, 0)
    words: list[list[int]] = field(default_factory=list)
    pictured: bool = False

    def mark(self, strand: Strand) -> None:
        """Cut here. A span number is left free, for a block that sees what came before it and no more."""
        self.cut = (strand.span, strand.position)
        strand.span += 1


class BagelPast(StrandPast[Place]):
    """B documents; see `mmcore.backbone.Past`."""

    def __init__(self, backbone: BagelBackbone, rows: int) -> None:
        self.backbone, self.model = backbone, backbone.model
        places = [Place() for _ in range(rows)]
        super().__init__(backbone.model, backbone.vocabulary, places, backbone.model.config.context)

    @torch.inference_mode()
    def take(self, prompts: Sequence[Sequence[Piece]]) -> None:
        """Read segments of each document."""
        strands = self.strands()
        for row, strand, pieces in zip(self.rows, strands, prompts, strict=True):
            for piece in pieces:
                if isinstance(piece, Tokens):
                    row.mark(strand)
                    row.words.append(self.vocabulary.own(piece.ids))
                    strand.tokens(self._text(row.words[-1]))
                else:
                    self.picture(strand, piece)
                    row.pictured = True
                    row.mark(strand)
        self.read(strands)

    def begun(self) -> Tensor:
        """Logits (B, V) of the first token of a run of text; nothing is kept, since a picture may come instead."""
        strands = self.strands()
        for strand in strands:
            strand.tokens(self.model.words([self.vocabulary.begin]))
        return self.run(strands, commit=False)

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """See `Past`."""
        strands = self.strands()
        for row, strand, new in zip(self.rows, strands, ids, strict=True):
            own: list[int] = []
            for token in new:
                if token == IMAGE:
                    own += [self.vocabulary.end] if row.speaking else []
                else:
                    own += [*([] if row.speaking else [self.vocabulary.begin]), *self.vocabulary.own([token])]
                row.speaking = token != IMAGE
            strand.tokens(self.model.words(own))
        return self.run(strands)

    @torch.inference_mode()
    def visual(self, patches: Sequence[Patches | None]) -> Tensor:
        """See `Past`."""
        strands = self.strands()
        for row, strand, new in zip(self.rows, strands, patches, strict=True):
            if new is not None:
                view = self.backbone.view
                self.picture(strand, new if view is None else Picture(new.values, new.grid, IMAGE, True, view(new)))
                row.pictured = True
                row.mark(strand)
        self.run(strands)
        return self.begun()

    def _text(self, ids: list[int]) -> Tensor:
        return self.model.words([self.vocabulary.begin, *ids, self.vocabulary.end])

    def picture(self, strand: Strand, piece: Patches) -> None:
        """The blocks of a picture."""
        markers = self.markers()
        if len(piece.values):
            clean = torch.zeros((), device=markers.device)
            latents = self.model.latents(piece.values.to(markers.device), clean, piece.grid[1:])
            strand.block((markers, latents), CONTEXT)
        if isinstance(piece, Picture):
            seen = self.model.look(piece.seen.to(markers.device))
            strand.block((torch.cat((markers[:1], seen, markers[1:])),), CONTEXT)

    @torch.inference_mode()
    def predictor(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """See `Past`. A plain `Guidance` is one that bounds nothing.

        Words are left out by ending the context before the last of them (words that the model wrote since then go
        with them); media, by a context of the prompt's words alone.
        """
        if not isinstance(guidance, Renormed):
            guidance = Renormed(guidance.text, guidance.media, guidance.since, until=1.0, renorm="none")
        standings = [self.rows[row] for row in rows]
        cache = self.chosen(rows)
        here = [[(row.span, row.position)] for row in standings]
        plain = self._velocities(cache, here, grid)
        both = self._velocities(cache, [[*at, row.cut] for at, row in zip(here, standings, strict=True)], grid)
        alone = None
        if guidance.media > 1 and any(row.pictured for row in standings):
            words = BagelPast(self.backbone, len(rows))
            words.take([[Tokens(self.vocabulary.told(ids), False) for ids in row.words] for row in standings])
            alone = words._velocities(words.cache, [[(row.span, row.position)] for row in words.rows], grid)

        @torch.inference_mode()
        def predict(x: Tensor, t: Tensor) -> Tensor:
            """x (R, N, P) at times t (R,) -> clean (R, N, P)."""
            level = 1 - t
            if guidance.acts(t):
                full, without_text = both(x, level)
                v = guidance.combine(full, without_text, alone(x, level)[0] if alone else None)
            else:
                (v,) = plain(x, level)
            return x - level[:, None, None] * v

        return predict

    def _velocities(
        self, cache: Cache, places: Sequence[Sequence[tuple[int, int]]], grid: Grid
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        """Velocities of one picture in each row, as if the document ended at each of some places in it.

        All of them lie in one row, as target spans that do not see each other: one pass, one cache.

        Args:
            cache: of R documents.
            places: for each document its places, (span, position) each.
            grid: (1, h, w) latent tokens.
        Returns:
            (x (R, N, P), levels (R,)) -> for each place (R, N, P).
        """
        count, branches, markers = grid[1] * grid[2], len(places[0]), self.markers()
        empty = markers.new_zeros(count, markers.shape[-1])
        strands = []
        for row in places:
            strand = Strand()
            for strand.span, strand.position in row:
                strand.block((markers, empty), TARGET)
            strands.append(strand)
        new = lay_out(strands, markers)

        def run(x: Tensor, level: Tensor) -> tuple[Tensor, ...]:
            latents = self.model.latents(x, level, grid[1:]).repeat(1, branches, 1)
            hidden = self.model(replace(new, x=torch.cat((new.x[:, : new.lengths[0]], latents), 1)), cache)
            return self.model.velocity(hidden[:, new.lengths[0] :]).split(count, 1)

        return run
