"""How the writing loop drives Show-o2: its contexts, cached, and the predictions that guidance takes.

    backbone = Showo2Backbone(model, words)
    for event in write(backbone, [Order(pieces, {IMAGE: (1, 27, 27)}, IMAGE, foreword=0)], Settings(49, DRAWING)):
        ...

A document is `begin`, then text as it is and media between their markers; the translator says what stands in the text.
The reference does not agree with itself in two things; both ways are here, and the one that the published numbers were
made with is the default.

- *The level of a clean medium.* It is t = 1, but for the script of mixed replies, which gives earlier pictures t = 0
  while it writes words (not while it draws). `Showo2Backbone(clean=0.0)` is that.
- *Where a medium begins.* Training and drawing count its time token to the span that sees itself whole. The scripts
  that answer questions are one token late: the span is the medium without its time token, with the closing marker. In a
  clip only as many tokens as one picture has see each other; the rest are causal. `Asked` pieces are laid out so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from mmcore.attention import CONTEXT, TARGET, join
from mmcore.backbone import Guidance
from mmcore.cache import Cache
from mmcore.errors import MMCoreError
from mmcore.families.lanes import Layout, lay_out
from mmcore.families.line import Line
from mmcore.families.showo2 import Showo2
from mmcore.families.vocabulary import Vocabulary
from mmcore.flow import Model
from mmcore.sequence import IMAGE, VIDEO, Grid, Patches, Piece, Tokens

DRAWING = Guidance(text=7.5, media=1.0, since=0.0)
"""Weight of the words as in the family's page and in its script for GenEval; that for DPG-Bench has 10."""

SEEN = (14, 14)
"""Rows and columns to which each frame's tokens are brought where a clip is only asked about."""


@dataclass(frozen=True)
class Asked(Patches):
    """A medium that words alone will follow, laid out as by the reference's scripts that answer questions. Each frame
    of a clip is a picture by itself."""


@dataclass(frozen=True)
class Begun(Patches):
    """The first frame of the clip that is to be written: it is not read, but given to it."""


@dataclass(frozen=True)
class Showo2Words(Vocabulary):
    """The special ids.

    Args:
        film: opens a clip.
        cut: closes it.
    """

    film: int = -1
    cut: int = -1

    def logits(self, own: Tensor) -> Tensor:
        """See `Vocabulary`."""
        told = super().logits(own)
        told[:, VIDEO] = own[:, self.film]
        return told

    def markers(self, opener: int) -> list[int]:
        """What stands before and after a medium."""
        return [self.opener, self.closer] if opener == IMAGE else [self.film, self.cut]


class Showo2Backbone:
    """Show-o2 as a `mmcore.backbone.Backbone`.

    Args:
        model: in evaluation mode.
        words: its special ids.
        clean: noise level that finished media are said to have.
    """

    limit, rest = float("inf"), 0.0

    def __init__(self, model: Showo2, words: Showo2Words, clean: float = 1.0) -> None:
        self.model, self.words, self.clean = model, words, clean
        self._seen = WeakTensorKeyDictionary()

    @property
    def patch_width(self) -> int:
        """`P`."""
        return self.model.config.patch_width

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def read(self, prompts: Sequence[Sequence[Piece]]) -> tuple[Showo2Past, Tensor]:
        """See `mmcore.backbone.Backbone`.

        Raises:
            MMCoreError: a document takes more positions than the model holds.
        """
        past = Showo2Past(self, len(prompts))
        return past, past.take(prompts)

    @torch.inference_mode()
    def features(self, medium: Patches) -> Tensor:
        """The tokens (N, D) of a finished medium. They are kept as long as its latents are: none is looked at twice."""
        if (kept := self._seen.get(medium.values)) is None:
            kept = self.model.features(medium.values[None].to(self.device), medium.grid)[0]
            self._seen[medium.values] = kept
        return kept


@dataclass
class Standing:
    """Where one document stands.

    Args:
        span: number of its next span.
        position: its next rotary position; so many it takes.
        first: (h w, P) the first frame of the clip that comes, where it is given.
    """

    span: int = 0
    position: int = 0
    first: Tensor | None = None


class Showo2Past:
    """The cache of B documents, and where each of them stands; see `mmcore.backbone.Past`.

    The head has a cache of its own. What the core has made of new positions waits until a medium is drawn: for words
    alone the head does not run.
    """

    def __init__(self, backbone: Showo2Backbone, rows: int) -> None:
        self.backbone, self.model, self.words = backbone, backbone.model, backbone.words
        self.cache, self.head_cache = Cache(), Cache()
        self.rows = [Standing() for _ in range(rows)]
        self._waiting: list[tuple[Tensor, Layout]] = []

    def room(self, row: int) -> int:
        """See `Past`."""
        return self.model.config.context - self.rows[row].position

    def take(self, prompts: Sequence[Sequence[Piece]]) -> Tensor:
        """Read documents from their beginning; logits (B, V) after each."""
        lines = [Line() for _ in prompts]
        for row, line, pieces in zip(self.rows, lines, prompts, strict=True):
            line.tokens(self.model.words([self.words.begin]))
            for piece in pieces:
                if isinstance(piece, Tokens):
                    line.tokens(self.model.words(self.words.own(piece.ids)))
                elif isinstance(piece, Begun):
                    row.first = piece.values
                else:
                    line.tokens(self.markers(piece)[:1])
                    self.medium(line, piece)
            if line.position > self.model.config.context:
                raise MMCoreError(
                    f"the document takes {line.position} positions, the model holds {self.model.config.context}: "
                    "shorten the text, or send fewer or smaller pictures"
                )
        return self._run(lines)

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """See `Past`."""
        lines = self._lines()
        openers = {IMAGE: self.words.opener, VIDEO: self.words.film}
        for line, new in zip(lines, ids, strict=True):
            line.tokens(self.model.words([openers[i] if i in openers else self.words.own([i])[0] for i in new]))
        return self._run(lines)

    def visual(self, patches: Sequence[Patches | None]) -> Tensor:
        """See `Past`."""
        lines = self._lines()
        for line, new in zip(lines, patches, strict=True):
            if new is not None:
                self.medium(line, new)
        return self._run(lines)

    def _lines(self) -> list[Line]:
        return [Line(row.span, row.position) for row in self.rows]

    def markers(self, medium: Patches) -> Tensor:
        """(2, D). A clip that is asked about goes by a picture's."""
        return self.model.words(self.words.markers(IMAGE if isinstance(medium, Asked) else medium.opener))

    @torch.inference_mode()
    def medium(self, line: Line, medium: Patches) -> None:
        """A finished medium behind its opener, with its closer."""
        level = torch.tensor([self.backbone.clean], device=self.model.device)
        time, features, closer = self.model.time(level), self.backbone.features(medium), self.markers(medium)[1:]
        if not isinstance(medium, Asked):
            line.block((torch.cat((time, features)),), CONTEXT)
            line.tokens(closer)
            return
        frames, rows, columns = medium.grid
        whole = rows * columns + 1
        if frames > 1:
            planes = rearrange(features, "(t y x) d -> t d y x", t=frames, y=rows)
            features = rearrange(F.interpolate(planes, SEEN, mode="bilinear"), "t d y x -> (t y x) d")
        line.tokens(time)
        rest = torch.cat((features, closer))
        line.block((rest[:whole],), CONTEXT)
        line.tokens(rest[whole:])

    @torch.inference_mode()
    def _run(self, lines: Sequence[Line]) -> Tensor:
        """Run new positions of every document and keep them; logits (B, V) after the last of each."""
        new = lay_out(lines, self.model.embed_tokens.weight)
        hidden = self.model(new, self.cache)
        self.cache.commit(new.marks)
        self._waiting.append((hidden, new))
        for row, line in zip(self.rows, lines, strict=True):
            row.span, row.position = line.span, line.position
        last = [max(len(line) - 1, 0) for line in lines]
        return self.words.logits(self.model.logits(hidden[range(len(lines)), last]))

    @torch.inference_mode()
    def _catch_up(self) -> None:
        """Let the head see what it has not seen yet."""
        if not self._waiting:
            return
        parts = [layout for _, layout in self._waiting]
        hidden = torch.cat([hidden for hidden, _ in self._waiting], 1)
        new = Layout(hidden, torch.cat([part.coords for part in parts], 1), join(*(p.marks for p in parts)), ())
        level = torch.full((len(self.rows), 1), self.backbone.clean, device=self.model.device)
        self.model.velocity(hidden, level, new, self.head_cache)
        self.head_cache.commit(new.marks)
        self._waiting = []

    def predictor(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """See `Past`."""
        velocity = self.velocity(rows, grid, opener, guidance)
        return lambda x, t: x + (1 - t)[:, None, None] * velocity(x, t)

    def velocity(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """The guided velocity of a new medium, (x (R, N, P), times (R,)) -> (R, N, P); see `Past.predictor`.

        Guidance leads away from a document that holds nothing: words and media are weighed together. A first frame that
        is given is put in the place of what is sampled there, and its velocity leads to it.

        Raises:
            MMCoreError: media are to be weighed by themselves.
        """
        if guidance.media != 1:
            raise MMCoreError("this model weighs words and media together: leave the media's guidance at 1")
        full, nothing = self._velocity(rows, grid), None
        if guidance.text != 1:
            empty = Showo2Past(self.backbone, 1)
            empty.take([[]])
            empty.tokens([[opener]])
            nothing = empty._velocity([0] * len(rows), grid)
        frames = [self.rows[row].first for row in rows] if opener == VIDEO else []
        given = {i: frame.to(self.model.device) for i, frame in enumerate(frames) if frame is not None}

        @torch.inference_mode()
        def run(x: Tensor, t: Tensor) -> Tensor:
            seen = x.clone()
            for i, frame in given.items():
                seen[i, : len(frame)] = frame
            features = self.model.features(seen, grid)
            v = full(features, t)
            if nothing is not None and bool((t >= guidance.since).all()):
                base = nothing(features, t)
                v = base + guidance.text * (v - base)
            for i, frame in given.items():
                v[i, : len(frame)] = (frame - x[i, : len(frame)]) / (1 - t[i])
            return v

        return run

    def _velocity(self, rows: Sequence[int], grid: Grid) -> Callable[[Tensor, Tensor], Tensor]:
        """Unguided, at the end of some documents: (features (R, N, D), times (R,)) -> (R, N, P)."""
        self._catch_up()
        whole = list(rows) == list(range(len(self.rows)))
        cache, head_cache = (c if whole else c.select(torch.tensor(rows)) for c in (self.cache, self.head_cache))
        like = self.model.embed_tokens.weight
        lines = [Line(self.rows[row].span, self.rows[row].position) for row in rows]
        for line in lines:
            line.block((like.new_zeros(1 + grid[0] * grid[1] * grid[2], like.shape[1]),), TARGET)
        new = lay_out(lines, like)

        def run(features: Tensor, t: Tensor) -> Tensor:
            hidden = self.model(replace(new, x=torch.cat((self.model.time(t[:, None]), features), 1)), cache)
            return self.model.velocity(hidden, t[:, None], new, head_cache)[:, 1:]

        return run
