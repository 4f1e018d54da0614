"""Where training's documents come from: the world, shards, or a mixture of both, always by index.

    source = recipe_source(recipe, config)       # recipe.data names folders of shards with their weights
    source(rank + i * world)                     # the i-th document of one of several processes

Everything follows from the index: a document's place in the mixture, its epoch, its place in that epoch's order. So a
run resumes to the sample, and processes that share the indexes out share the documents out, with no word between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from mmcore.config import MMCoreConfig
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.tokenizers.media import fit
from mmcore.training.data import VALIDATION, Source
from mmcore.training.recipe import WORLD, Recipe
from mmcore.training.shards import Shards
from mmcore.training.undrawn import LineSource
from mmcore.training.world.shown import Line
from mmcore.training.world.tasks import drawn, sample_document, sample_lines

BLOCK = 1000
"""Each run of so many documents holds the shares of a mixture, to the nearest document."""

READ_FOR_WORDS = 1000
"""Documents of each source that a new text tokenizer learns from."""


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """(count,) the order of one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class Shuffled:
    """Shards without end: every epoch holds every document once, in an order of its own.

    Args:
        shards: the documents.
        config: of the model; media are fitted to the nearest of its sizes, its rate and length; not for
            None.
        seed: decides the orders.
    """

    shards: Shards
    config: MMCoreConfig | None
    seed: int = 0

    def place(self, index: int) -> int:
        """Which sample of the shards is drawn."""
        epoch, place = divmod(index, len(self.shards))
        return int(epoch_order(len(self.shards), self.seed, epoch)[place])

    def __call__(self, index: int) -> Document:
        """One document; MMCoreError if it is broken."""
        c, document = self.config, self.shards.document(self.place(index))
        if c is None:
            return document
        return Document(tuple(s if isinstance(s, Text) else fit_nearest(s, c) for s in document))


def fit_nearest(medium: Image | Video, config: MMCoreConfig) -> Image | Video:
    """A medium at the nearest of a model's sizes, its frame rate and at most that many frames."""
    frames, rows, columns = medium.size
    shown = max(round(frames * config.fps / medium.fps), 1) if frames > 1 else 1
    length, *size = config.nearest((shown, rows, columns))
    return fit(medium, (size[0], size[1]), config.fps, length)


class Mixture:
    """Several sources in fixed shares, evenly spread.

    Args:
        sources: documents by index, each without end.
        weights: their shares, above 0, of any sum.
        seed: decides the order within each block.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int = 0) -> None:
        self.sources, self.seed = sources, seed
        edges = np.round(np.cumsum([0, *weights]) / np.sum(weights) * BLOCK).astype(int)
        self.counts = np.diff(edges)
        if not self.counts.all():
            raise MMCoreError(f"a weight of {min(weights)} among {list(weights)} is less than a thousandth of all")

    def place(self, index: int) -> tuple[int, int]:
        """Which source is drawn from, and which of its documents."""
        block, place = divmod(index, BLOCK)
        order = mixture_order(tuple(self.counts.tolist()), self.seed, block)
        source = int(order[place])
        before = int((order[:place] == source).sum())
        return source, block * int(self.counts[source]) + before

    def __call__(self, index: int) -> Document:
        """One document."""
        source, place = self.place(index)
        return self.sources[source](place)


@lru_cache(maxsize=4)
def mixture_order(counts: tuple[int, ...], seed: int, block: int) -> np.ndarray:
    """(BLOCK,) which source each document of a block comes from."""
    return np.random.default_rng((seed, block)).permutation(np.repeat(np.arange(len(counts)), counts))


def world(recipe: Recipe) -> Source:
    """The documents of the world that a recipe asks for."""
    return partial(_document, recipe)


def world_lines(recipe: Recipe) -> LineSource:
    """The same before they are drawn."""
    return partial(_lines, recipe)


def _lines(recipe: Recipe, index: int) -> tuple[Line, ...]:
    """Documents to validate on are the same wherever a run begins."""
    seed = index + (recipe.begin if index < VALIDATION else 0)
    return sample_lines(seed, mixture=recipe.mixture, most=recipe.solids, notes=recipe.notes)[0]


def _document(recipe: Recipe, index: int) -> Document:
    return drawn(_lines(recipe, index))


def recipe_source(recipe: Recipe, config: MMCoreConfig | None) -> Source:
    """The documents that a recipe asks for, media as in `Shuffled`.

    Raises:
        MMCoreError: a folder holds no shards, or a broken one.
    """
    if not recipe.data:
        return world(recipe)
    sources = [
        world(recipe) if name == WORLD else Shuffled(Shards(Path(name)), config, recipe.seed) for name in recipe.data
    ]
    return sources[0] if len(sources) == 1 else Mixture(sources, list(recipe.data.values()), recipe.seed)


def held_out(recipe: Recipe, config: MMCoreConfig | None, source: Source | None = None) -> tuple[Source, range]:
    """What a run is validated on: documents by index, and the indexes.

    Args:
        recipe: says how many, and where from.
        config: of the model.
        source: of a caller's own documents; those from index VALIDATION on are taken, in place of the world's.
    Raises:
        MMCoreError: the run trains on shards alone and names none to validate on, or those cannot be read.
    """
    chosen = recipe.validation
    if chosen.data:
        shards = Shards(Path(chosen.data))
        return Shuffled(shards, config, recipe.seed), range(min(chosen.documents, len(shards)))
    if source is None and recipe.data and WORLD not in recipe.data:
        raise MMCoreError(
            f"validation.every={chosen.every} needs documents that are not trained on; name a folder of shards: "
            "validation.data=FOLDER"
        )
    return source or world(recipe), range(VALIDATION, VALIDATION + chosen.documents)


def recipe_words(recipe: Recipe) -> Iterator[str]:
    """Texts that a new text tokenizer learns from; no medium is decoded."""
    for name in recipe.data or (WORLD,):
        if name == WORLD:
            drawn = (sample_document(VALIDATION - 1 - i) for i in range(READ_FOR_WORDS))
            yield from (s.text for document in drawn for s in document if isinstance(s, Text))
            continue
        shards = Shards(Path(name))
        for i in range(0, len(shards), -(-len(shards) // READ_FOR_WORDS)):
            yield from shards.texts(i)
