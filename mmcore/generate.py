"""Writing interleaved replies: one loop, many documents at once, told as events.

    for event in write(Native(model), [Order(pieces)], Settings(steps=8)):
        match event:
            case TokenEvent(row, token): ...
            case StepEvent(row, step, preview): ...
            case SegmentEvent(row, piece): ...

Text is written until the model opens an image or a video; the sampling steps run over the target span only; the
finished segment is appended clean, and it goes on, until the end token. Everything else (API, command line, page) is a
view on these events. Writing many documents gives each exactly what it would get alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmcore.backbone import Backbone, Guidance, Past
from mmcore.errors import MMCoreError
from mmcore.flow import SAMPLERS, schedule
from mmcore.sequence import IMAGE, OWN_SIGNS, VIDEO, Grid, Patches, Piece, Signs, Tokens

FOREWORD = 128
"""Text tokens that a reply of our own model may have before the medium that a caller forces."""


@dataclass(frozen=True)
class Order:
    """One document to be continued with a reply.

    Args:
        pieces: the document so far.
        grids: patches (T, Y, X) of an image or a video, by opener, if the model writes one.
        opener: IMAGE or VIDEO to have one of that written, after words if the model has some; None lets it decide.
        media: how many media it may write at most; 0 for text alone.
        seed: decides everything that is drawn.
        foreword: text tokens that may come before a medium that is forced.
        signs: of the model's vocabulary.
    """

    pieces: Sequence[Piece]
    grids: dict[int, Grid] = field(default_factory=dict)
    opener: int | None = None
    media: int = 4
    seed: int = 0
    foreword: int = FOREWORD
    signs: Signs = OWN_SIGNS


@dataclass(frozen=True)
class Settings:
    """How to write; the same for all documents of a batch.

    Args:
        steps: sampling steps for each medium, >= 1; beyond 8 the bundled model is no better (`training/sampling.py`).
        guidance: see `backbone.Guidance`.
        sampler: "euler" or "heun".
        shift: above 1 spends more of the steps near the noise.
        temperature: of text; 0 takes the likeliest token each time.
        min_p: tokens less likely than this share of the likeliest are never drawn (arXiv 2407.01082), in [0, 1]. So
            what is open is drawn by the seed, and what the model knows is said.
        tokens: text tokens that a reply may have at most.
    """

    steps: int = 8
    guidance: Guidance = field(default_factory=Guidance)
    sampler: str = "euler"
    shift: float = 6.0
    temperature: float = 1.0
    min_p: float = 0.4
    tokens: int = 256

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MMCoreError(f"steps must be at least 1, got {self.steps}")
        if self.sampler not in SAMPLERS:
            raise MMCoreError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        if self.temperature < 0:
            raise MMCoreError(f"temperature must be 0 or more, got {self.temperature:g}")
        if not 0 <= self.min_p <= 1:
            raise MMCoreError(f"min_p must lie in [0, 1], got {self.min_p:g}")


def make_settings(given: dict[str, object], base: Settings | None = None) -> Settings:
    """`Settings` from keyword arguments.

    Args:
        given: what was asked for; a number for `guidance` weighs the words.
        base: says the rest; `Settings()` where it is None.
    Raises:
        MMCoreError: an unknown name.
    """
    base = base or Settings()
    guidance = given.get("guidance")
    if isinstance(guidance, int | float):
        given = {**given, "guidance": replace(base.guidance, text=float(guidance))}
    try:
        return replace(base, **given)  # type: ignore[arg-type]
    except TypeError as error:
        raise MMCoreError(f"unknown setting: {error}; known are: {', '.join(Settings.__dataclass_fields__)}") from error


@dataclass(frozen=True)
class TokenEvent:
    """A text token was written."""

    row: int
    token: int


@dataclass(frozen=True)
class StepEvent:
    """A sampling step was made; `preview` is the clean segment as the model sees it so far."""

    row: int
    step: int
    steps: int
    preview: Patches


@dataclass(frozen=True)
class SegmentEvent:
    """A segment of the reply is finished."""

    row: int
    piece: Piece


Event = TokenEvent | StepEvent | SegmentEvent


class Row:
    """Where the writing of one document stands."""

    def __init__(self, order: Order, device: torch.device) -> None:
        self.order = order
        self.generator = torch.Generator(device).manual_seed(order.seed)
        self.ids: list[int] = []
        self.tokens = self.media = 0
        self.opener: int | None = None
        self.done = False

    def flush(self, index: int) -> Iterator[SegmentEvent]:
        """The text that has gathered, as a finished segment."""
        if self.ids:
            yield SegmentEvent(index, Tokens(tuple(self.ids), True))
            self.ids = []

    def choose(self, logits: Tensor, settings: Settings) -> int:
        """The next token: what the caller forces, else the likeliest, or drawn. Only what may come next."""
        order, signs = self.order, self.order.signs
        forced = None if order.opener is None else signs.around(order.opener)[0]
        end = signs.end[0]
        if forced is not None and self.media:
            return end
        if self.tokens >= (settings.tokens if forced is None else min(order.foreword, settings.tokens)):
            return end if forced is None else forced
        allowed = [end] if forced is None else [forced]
        if forced is None and self.media < order.media:
            allowed += [signs.around(opener)[0] for opener in (IMAGE, VIDEO) if opener in order.grids]
        masked = logits.clone()
        masked[list(signs.special)] = -torch.inf
        masked[allowed] = logits[allowed]
        if settings.temperature == 0:
            return int(masked.argmax())
        shares = (masked / settings.temperature).softmax(-1)
        shares[shares < settings.min_p * shares.max()] = 0
        return int(torch.multinomial(shares, 1, generator=self.generator))


def write(backbone: Backbone, orders: Sequence[Order], settings: Settings) -> Iterator[Event]:
    """Write a reply to each document.

    Args:
        backbone: the model.
        orders: the documents.
        settings: how.
    Yields:
        Events of all rows as they come; a row's finished segments, in order, are its reply.
    Raises:
        MMCoreError: a document takes more positions than the model holds.
    """
    past, logits = backbone.read([order.pieces for order in orders])
    rows = [Row(order, backbone.device) for order in orders]
    while not all(row.done for row in rows):
        logits = yield from _write_text(past, rows, logits, settings)
        if any(row.opener is not None for row in rows):
            finished: list[Patches | None] = [None] * len(rows)
            for group in _groups(rows):
                for index, patches in (yield from _sample(backbone, past, rows, group, settings)).items():
                    finished[index] = patches
                    rows[index].opener = None
                    rows[index].media += 1
                    yield SegmentEvent(index, patches)
            if all(row.done or (row.order.opener is not None) for row in rows):
                return
            logits = past.visual(finished)


def _write_text(past: Past, rows: list[Row], logits: Tensor, settings: Settings) -> Iterator[Event]:
    """Let every row write text until it ends or opens a medium; returns the last logits."""
    writing = [i for i, row in enumerate(rows) if not row.done]
    while writing:
        new: list[list[int]] = [[] for _ in rows]
        for i in writing:
            row = rows[i]
            token = row.choose(logits[i], settings)
            if token == row.order.signs.end[0]:
                row.done = True
                yield from row.flush(i)
                continue
            new[i] = [token]
            row.opener = row.order.signs.opens(token)
            if row.opener is not None:
                yield from row.flush(i)
            else:
                row.ids.append(token)
                row.tokens += 1
                yield TokenEvent(i, token)
                _check_room(past, i, 1)
        if any(new):
            logits = past.tokens(new)
        writing = [i for i in writing if not rows[i].done and rows[i].opener is None]
    return logits


def _groups(rows: list[Row]) -> list[list[int]]:
    """Rows that are to write a medium, those of the same kind, grid and condition together."""
    groups: dict[tuple[int, Grid], list[int]] = {}
    for i, row in enumerate(rows):
        if row.opener is not None:
            groups.setdefault((row.opener, row.order.grids[row.opener]), []).append(i)
    return list(groups.values())


def _check_room(past: Past, row: int, need: int) -> None:
    if past.room(row) < need:
        raise MMCoreError(
            f"the document is full: {need} more positions are needed, {max(past.room(row), 0)} are left; "
            "begin a new one, or ask for fewer or shorter media"
        )


def _sample(backbone: Backbone, past: Past, rows: list[Row], group: list[int], settings: Settings) -> Iterator[Event]:
    """Sample one medium in each row of a group; returns them by row."""
    opener = rows[group[0]].opener
    assert opener is not None
    grid = rows[group[0]].order.grids[opener]
    count = grid[0] * grid[1] * grid[2]
    for i in group:
        _check_room(past, i, count + 2)
    predict = past.predictor(group, grid, opener, settings.guidance)
    shape = (count, backbone.patch_width)
    noise = torch.stack([torch.randn(shape, generator=rows[i].generator, device=backbone.device) for i in group])
    times = schedule(settings.steps, settings.shift).to(backbone.device)
    made = noise
    for step, (now, clean) in enumerate(SAMPLERS[settings.sampler](predict, noise, times, backbone.rest), 1):
        made = now
        for i, values in zip(group, clean, strict=True):
            yield StepEvent(i, step, settings.steps, Patches(values, grid, opener, True))
    made = made.clamp(-backbone.limit, backbone.limit)
    return {i: Patches(values, grid, opener, True) for i, values in zip(group, made, strict=True)}
