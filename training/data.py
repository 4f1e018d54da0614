"""Documents to packed batches: drawn by index, cut to pieces, laid out in rows of a fixed size.

    batches = PackedBatches(world_source, "tokenizer.model", (4, 16, 16), Layout(rows=12, room=(112, 148, 148)))
    for batch, state in batches: ...         # state: where to go on from after this batch

Everything follows from the index of a document, so that a run resumes exactly from a `DataState`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from mmcore.attention import CONTEXT, TARGET, TEXT
from mmcore.autoencoder import PIXELS, Autoencoder, autoencoder_in
from mmcore.document import Document
from mmcore.errors import MMCoreError
from mmcore.packing import PackedSequence, pack, pixels_as_bytes
from mmcore.sequence import Patches, Piece, Strip, document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer, train_text_tokenizer
from mmcore.tokenizers.words import Words, open_words
from mmcore.training.word_noise import learn_noise

Source = Callable[[int], Document]
"""Any documents, by index."""

logger = logging.getLogger(__name__)

IN_VAIN = 1000
"""So many documents in a row that cannot be used are an error."""

VALIDATION = 2**40
"""World documents from this index on are never trained on."""

BEAM = 16
"""So many ways to fill a row are followed at once."""

SURVEYED = 400
"""From so many documents it is learnt which words are alike."""

PATIENCE = 600
"""Seconds after which a process that makes batches is taken to hang."""


@dataclass(frozen=True)
class Layout:
    """How documents become rows.

    Args:
        rows: `B`.
        room: positions in each lane of a row (text, context, target). Documents that take more are left out.
        waiting: how many documents are at hand to choose from when rows are filled.
        last_context: share of documents whose last written medium is followed by its clean copy and the end token.
        copies: target spans of each medium to be written, each at a noise level of its own.
        hide_all: share of target spans that see no condition at all, for guidance.
        hide_text: share of those that see earlier media but no text.
        hide_context: share of those that see text but no earlier media.
        word_noise: share of the words of replies that are read as others, where nothing is drawn; see `word_noise`.
        noisy: words, one or more of each kind that is read so; () is all kinds.
    """

    rows: int = 12
    room: tuple[int, int, int] = (112, 148, 148)
    waiting: int = 96
    last_context: float = 0.15
    copies: int = 1
    hide_all: float = 0.08
    hide_text: float = 0.05
    hide_context: float = 0.03
    word_noise: float = 0.0
    noisy: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataState:
    """Where a stream of batches stands: the next index, the documents drawn but not used yet, how many were broken."""

    next: int = 0
    waiting: tuple[int, ...] = ()
    broken: int = 0


class PackedBatches(IterableDataset[tuple[PackedSequence, DataState]]):
    """An endless stream of packed batches.

    Args:
        source: the documents, as a `Source`; or whatever a subclass makes pieces of.
        tokenizer: the text tokenizer's file; an autoencoder, if the model has one, lies beside it.
        patch: (frames, rows, columns) of one patch.
        layout: how documents become rows.
        state: where to begin.
        seed: decides what is hidden and which documents end with their last medium's copy.
        stride: from one index to the next; streams that begin at 0 to stride - 1 share all documents, none twice.
        look: side in pixels of what the model's eye is shown; 0 where it has none.
    """

    def __init__(
        self,
        source: Callable[[int], Any],
        tokenizer: str | Path,
        patch: tuple[int, int, int],
        layout: Layout,
        state: DataState | None = None,
        seed: int = 0,
        stride: int = 1,
        look: int = 0,
    ) -> None:
        self.source, self.tokenizer, self.patch = source, Path(tokenizer), patch
        self.layout, self.state, self.seed, self.stride = layout, state or DataState(), seed, stride
        self.look = look

    def __iter__(self) -> Iterator[tuple[PackedSequence, DataState]]:
        """Batches, each with the state from which the next one follows.

        Raises:
            MMCoreError: nothing that the source gives can be used. A single broken document is left out with a warning.
        """
        text, autoencoder = open_words(self.tokenizer.parent), autoencoder_in(self.tokenizer.parent)
        layout = self.layout
        at, broken, in_vain = self.state.next, self.state.broken, 0
        strips = self.surveyed(text, autoencoder)
        noise = learn_noise(strips, text, layout.noisy) if layout.word_noise else None

        def read(index: int) -> Strip:
            strip = self.strip(index, text, autoencoder)
            if noise and not strip.patches[TARGET]:
                noise.put(strip, layout.word_noise, np.random.default_rng((self.seed, index, 1)))
            return strip

        waiting = {i: read(i) for i in self.state.waiting}
        while True:
            while len(waiting) < layout.waiting:
                try:
                    strip = read(at)
                except MMCoreError as error:
                    broken += 1
                    logger.warning("left out, the %d. broken document: %s", broken, error)
                else:
                    if all(n <= room for n, room in zip(strip.lengths, layout.room, strict=True)):
                        waiting[at], in_vain = strip, -1
                at, in_vain = at + self.stride, in_vain + 1
                if in_vain == IN_VAIN:
                    raise MMCoreError(
                        f"none of the last {IN_VAIN} documents could be used: they are broken, or take more than "
                        f"layout.room={list(layout.room)}; look at them with: mmcore data check"
                    )
            lengths = {i: strip.lengths for i, strip in waiting.items()}
            chosen = fill_rows(lengths, layout.rows, layout.room)
            rows = [[waiting.pop(i) for i in row] for row in chosen]
            yield self.batch(rows, autoencoder), DataState(at, tuple(waiting), broken)

    def strip(self, index: int, text: Words, autoencoder: Autoencoder) -> Strip:
        """One document as positions."""
        rng, layout = np.random.default_rng((self.seed, index)), self.layout
        pieces = self.pieces(index, text, autoencoder)
        kinds = (TEXT | CONTEXT, TEXT, CONTEXT, 0)
        shares = (layout.hide_all, layout.hide_text, layout.hide_context)
        media = sum(isinstance(p, Patches) and p.learn for p in pieces)
        hides = rng.choice(kinds, size=(media, layout.copies), p=(*shares, 1 - sum(shares)))
        return document_strip(pieces, bool(rng.random() < layout.last_context), hides.tolist(), signs=text.signs)

    def surveyed(self, text: Words, autoencoder: Autoencoder) -> Iterator[Strip]:
        """Those of the first SURVEYED documents that are not broken."""
        for index in range(SURVEYED):
            with suppress(MMCoreError):
                yield self.strip(index, text, autoencoder)

    def pieces(self, index: int, text: Words, autoencoder: Autoencoder) -> list[Piece]:
        """A document of the source cut to pieces, pixels as bytes."""
        pieces = document_pieces(self.source(index), text, self.patch, autoencoder, self.look)
        if autoencoder is not PIXELS:
            return pieces
        return [replace(p, values=pixels_as_bytes(p.values)) if isinstance(p, Patches) else p for p in pieces]

    def batch(self, rows: Sequence[Sequence[Strip]], autoencoder: Autoencoder) -> PackedSequence:
        """Rows of strips that `strip` made, packed."""
        width = int(np.prod(self.patch)) * autoencoder.channels
        return pack(rows, width, self.layout.room, torch.uint8 if autoencoder is PIXELS else torch.float32)


Turn = list[tuple[Any, DataState]]
"""A batch of each stream, with the state from which the stream goes on."""


class Turns(IterableDataset[Turn]):
    """A batch of each of several streams at a time: what one rank needs for a step.

    Args:
        streams: endless, as `PackedBatches`.
    """

    def __init__(self, streams: Sequence[IterableDataset[Any]]) -> None:
        self.streams = streams

    def __iter__(self) -> Iterator[Turn]:
        """Lists of (batch, state), in the order of the streams."""
        return map(list, zip(*self.streams, strict=True))

    def loader(self, workers: int) -> Iterable[Turn]:
        """The same in the same order, made by processes beside the training.

        Args:
            workers: how many processes, of which none takes less than a stream; 0 makes batches in this one.
        """
        if workers <= 1 or len(self.streams) == 1:
            prefetch, patience = (3, PATIENCE) if workers else (None, 0)
            one = min(workers, 1)
            pinned = torch.cuda.is_available()
            return DataLoader(
                self, None, num_workers=one, prefetch_factor=prefetch, timeout=patience, pin_memory=pinned
            )
        count = min(workers, len(self.streams))
        return Together([Turns(self.streams[i::count]).loader(1) for i in range(count)])


class Together:
    """Several loaders' turns, dealt out to streams one by one, as those of one.

    Args:
        loaders: the i-th has each so-many-th stream, from the i-th on.
    """

    def __init__(self, loaders: Sequence[Iterable[Turn]]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[Turn]:
        """Lists of (batch, state), in the order of all streams."""
        for made in zip(*self.loaders, strict=True):
            streams = sum(map(len, made))
            yield [made[i % len(made)][i // len(made)] for i in range(streams)]


def fill_rows(lengths: dict[int, tuple[int, int, int]], rows: int, room: tuple[int, int, int]) -> list[list[int]]:
    """Choose documents for rows: the oldest opens a row, then whatever fills it best.

    Args:
        lengths: positions that each document takes in each lane; each fits into an empty row.
        rows: how many rows; all get at least one document if there are enough.
        room: positions in each lane of a row.
    Returns:
        For each row the documents in it.
    """
    names, need = list(lengths), np.array(list(lengths.values())) / np.maximum(room, 1)
    free = np.ones(len(names), bool)
    chosen: list[list[int]] = []
    for _ in range(rows):
        row = fill_row(need, free, np.array(room) / sum(room))
        free[row] = False
        chosen.append([names[i] for i in row])
    return chosen


def fill_row(need: np.ndarray, free: np.ndarray, share: np.ndarray) -> list[int]:
    """Fill one row by beam search: of all ways to add a document, those go on that leave little room, and evenly.

    Args:
        need: (n, 3) what each document takes of the room in each lane, in [0, 1].
        free: (n,) which documents may be taken; the first of them opens the row.
        share: (3,) each lane's share of a row's positions.
    Returns:
        The documents of the fullest row that was found.
    """
    ways = [np.flatnonzero(free)[:1].tolist()]
    best, most = ways[0], 0.0
    while ways:
        left = 1 - np.stack([need[way].sum(0) for way in ways])
        full = 1 - left @ share
        if full.max() > most:
            best, most = ways[int(full.argmax())], float(full.max())
        rest = left[:, None] - need
        fits = free & (rest > -1e-9).all(2)
        for row, way in zip(fits, ways, strict=True):
            row[way] = False
        cost = np.where(fits, rest @ share + np.ptp(rest, axis=2) / 2, np.inf)
        order = np.argsort(cost, axis=None, kind="stable")[: min(int(fits.sum()), 4 * BEAM)]
        longer: dict[frozenset[int], list[int]] = {}
        for way, document in zip(*np.unravel_index(order, cost.shape), strict=True):
            row = [*ways[way], int(document)]
            longer.setdefault(frozenset(row), row)
        ways = list(longer.values())[:BEAM]
    return best


def new_tokenizer(path: Path, size: int, texts: Iterable[str]) -> TextTokenizer:
    """Train a text tokenizer on some texts and all printable ASCII; the file appears whole or not at all."""
    alphabet, partial = " ".join(chr(c) for c in range(33, 127)), path.with_suffix(".part")
    train_text_tokenizer([*texts, *[alphabet] * 20], size, partial)
    partial.rename(path)
    return TextTokenizer(path)


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step's noise."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)
