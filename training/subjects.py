"""What a run trains: our own model, or adapters of a released one; what it learns from, and what watches over it.

    subject = subject_of(recipe, None, ranks, folder)
    subject.engine, subject.stream(DataState()), subject.validation()

The loop (`training/train.py`) knows no more of a model than this.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import IterableDataset

from mmcore.autoencoder import VAE
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.loading import family_opener
from mmcore.model import MMCoreModel
from mmcore.tokenizers.words import OWN, copy_words, words_file
from mmcore.training.checkpoints import load_averaged, load_weights
from mmcore.training.data import DataState, PackedBatches, Source, new_tokenizer
from mmcore.training.engine import make_engine
from mmcore.training.family import LessonBatches, family_engine, held_out_lessons
from mmcore.training.optimizers import let_learn
from mmcore.training.plain import Engine, Stepper
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import WORLD, Recipe
from mmcore.training.ruler import Ruler
from mmcore.training.sources import held_out, recipe_source, recipe_words, world_lines
from mmcore.training.undrawn import UndrawnBatches
from mmcore.training.validation import Validation, held_out_batches
from mmcore.training.world.notes import QUESTION


@dataclass(frozen=True)
class Subject:
    """What differs from one kind of model to another.

    Args:
        engine: what is trained.
        stream: batches of documents from a state on.
        validation: makes what the recipe asks to be validated on.
        ruler: makes what it asks to be scored by; None where the ruler cannot score it.
        parallel: whether other processes may make its batches.
    """

    engine: Stepper[Any, Any]
    stream: Callable[[DataState], IterableDataset[Any]]
    validation: Callable[[], Validation]
    ruler: Callable[[], Ruler] | None
    parallel: bool


def subject_of(recipe: Recipe, source: Source | None, ranks: Ranks, folder: Path) -> Subject:
    """What a recipe trains.

    Args:
        recipe: what to do.
        source: documents by index; None is what the recipe's `data` names.
        ranks: who takes part.
        folder: the run's, which is there.
    Raises:
        MMCoreError: what it starts from, or the documents, are not there; it asks to be scored, and cannot be.
    """
    of_family = recipe.preset == "start" and family_opener(Path(recipe.start)) is not None
    if recipe.ruler.every:
        check_scored(recipe, source, of_family)
    return family_subject(recipe, source, ranks) if of_family else native_subject(recipe, source, ranks, folder)


def native_subject(recipe: Recipe, source: Source | None, ranks: Ranks, folder: Path) -> Subject:
    """This library's own model, which begins with what the recipe says; its tokenizer goes into the run's folder."""
    first, config = ranks.rank == 0, shape(recipe)
    model = MMCoreModel(config)
    if config.latent_channels and not recipe.start:
        raise MMCoreError(f"preset {recipe.preset} is of latents: make a model with mmcore init, and start from it")
    if recipe.start:
        begin_from(model, Path(recipe.start), folder if first else None)
    if first and not words_file(folder):
        new_tokenizer(folder / OWN, recipe.vocabulary, recipe_words(recipe))
    let_learn(model, recipe)
    ranks.wait()
    tokenizer = words_file(folder)
    assert tokenizer is not None
    engine = make_engine(model, recipe, ranks)
    stride, undrawn = recipe.engine.batches, source is None and draws_itself(recipe, config, engine.device)
    documents = source or recipe_source(recipe, config)

    def stream(state: DataState) -> PackedBatches:
        if undrawn:
            lines = world_lines(recipe)
            return UndrawnBatches(lines, tokenizer, config.patch, recipe.layout, state, recipe.seed, stride)
        return PackedBatches(documents, tokenizer, config.patch, recipe.layout, state, recipe.seed, stride, config.look)

    return Subject(
        engine,
        stream,
        lambda: make_validation(engine, source, tokenizer),
        lambda: Ruler(engine, folder),
        parallel=True,
    )


def draws_itself(recipe: Recipe, config: MMCoreConfig, device: torch.device) -> bool:
    """Whether the device that learns from the world draws it as well: a GPU, for a model of pixels without an eye."""
    return device.type == "cuda" and not (recipe.data or config.look or config.latent_channels)


def family_subject(recipe: Recipe, source: Source | None, ranks: Ranks) -> Subject:
    """A released model of another family, whose adapters learn."""
    engine = family_engine(recipe, ranks)
    stream = partial(LessonBatches, source or recipe_source(recipe, None), engine.taught, recipe)

    def validation() -> Validation:
        documents, indexes = held_out(recipe, None, source)
        taught = LessonBatches(documents, engine.taught, recipe, DataState())
        return Validation(held_out_lessons(taught, indexes), engine)

    return Subject(engine, stream, validation, None, parallel=False)


def make_validation(engine: Engine, source: Source | None, tokenizer: Path) -> Validation:
    """What a recipe asks to be validated on; conditions are never hidden there."""
    recipe, config = engine.recipe, engine.model.config
    documents, indexes = held_out(recipe, config, source)
    layout = dataclasses.replace(recipe.layout, hide_all=0.0, hide_text=0.0, hide_context=0.0)
    stream = PackedBatches(documents, tokenizer, config.patch, layout, seed=recipe.seed, look=config.look)
    return Validation(held_out_batches(stream, indexes), engine)


def check_scored(recipe: Recipe, source: Source | None, of_family: bool) -> None:
    """Whether a recipe that asks to be scored can be.

    Args:
        recipe: asks.
        source: documents by index; None is what the recipe's `data` names.
        of_family: whether it trains a released model of another family.
    Raises:
        MMCoreError: the model is none of ours, or the run does not train on the world.
    """
    if of_family or source or (recipe.data and WORLD not in recipe.data):
        other = f"{recipe.start} is a released model" if of_family else "this run trains on other documents"
        raise MMCoreError(
            f"ruler.every={recipe.ruler.every} scores what this library's own models know of the world, and {other}; "
            "set ruler.every=0"
        )


def shape(recipe: Recipe) -> MMCoreConfig:
    """The configuration of the model that a recipe trains.

    Raises:
        MMCoreError: there is nothing to start from; or a size does not fill the grid of patches, or has no room.
    """
    config = begun_shape(recipe)
    config.sizes = recipe.sizes or config.sizes
    config.note = QUESTION if recipe.notes else ""
    for size in config.sizes:
        if min(size) < 1:
            raise MMCoreError(f"sizes: {list(size)}: frames, rows and columns must be above 0")
        if (fits := config.whole(size)) != size:
            raise MMCoreError(f"sizes: {list(size)} does not fill whole patches; the next that does is {list(fits)}")
        if (need := 1 + math.prod(config.grid(size))) > max(recipe.layout.room[1:]):
            raise MMCoreError(f"sizes: {list(size)} takes {need} positions, layout.room={list(recipe.layout.room)}")
    return config


def begun_shape(recipe: Recipe) -> MMCoreConfig:
    """The same as it is before the recipe says which sizes media have."""
    if recipe.preset != "start":
        return MMCoreConfig(vocab_size=recipe.vocabulary, linear=recipe.linear, **PRESETS[recipe.preset])
    start = Path(recipe.start)
    if family_opener(start):
        raise MMCoreError(f"{start}: a released model of another family; this is for the library's own")
    folders = (start / "checkpoint" / "shards", start / "checkpoint" / "ema")
    file = next((folder for folder in folders if folder.is_dir()), start) / "config.json"
    try:
        return MMCoreConfig.from_json_file(file)
    except (OSError, ValueError, TypeError) as error:
        raise MMCoreError(f"{file}: cannot read the shape to start from: {error}; change start=") from error


def begin_from(model: MMCoreModel, source: Path, folder: Path | None) -> None:
    """Put a model folder's weights, or a run's averaged ones, into a model, and its tokenizers into a run's folder."""
    checkpoint = source / "checkpoint"
    try:
        if checkpoint.is_dir():
            load_averaged(model, checkpoint)
        else:
            load_weights(model, source)
        if folder:
            copy_words(source, folder)
            if model.config.latent_channels:
                shutil.copytree(source / VAE, folder / VAE, dirs_exist_ok=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{source}: cannot start from it: {reason}; train it first, or change start=") from error
