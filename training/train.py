"""The loop: batches in, checkpoints, a log and samples out. One loop for every scale.

    mmcore train tiny --out runs/tiny            # goes on from runs/tiny if that has begun
    mmcore train debug steps=10

A run folder holds `recipe.json` (resolved), `tokenizer.model`, `log.jsonl`, `checkpoint/` (whole or not at all) and
`samples/`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel, flow_losses
from mmcore.training.data import DataState, PackedBatches, Source, new_tokenizer, step_generator
from mmcore.training.engine import Engine, load_weights
from mmcore.training.lora import add_adapters
from mmcore.training.recipe import Recipe
from mmcore.training.sources import recipe_source, recipe_words

Report = dict[str, float]
"""One line of the log."""


def train(
    recipe: Recipe,
    folder: Path,
    source: Source | None = None,
    workers: int = 1,
    on_sample: Callable[[Engine, Path], None] | None = None,
) -> Engine:
    """Train, or go on with a run that has begun.

    Args:
        recipe: what to do.
        folder: the run's folder.
        source: documents by index; None is what the recipe's `data` names.
        workers: processes that make batches beside the training: 0 or 1.
        on_sample: called every `sample_every` steps with the engine and a path to write to.
    Returns:
        The engine, trained.
    Raises:
        MMCoreError: the folder cannot be written, or its checkpoint is broken or of another recipe, or what it
            starts from is not there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1))
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write the run: {error.strerror}; choose another with --out") from error
    tokenizer = folder / "tokenizer.model"
    torch.manual_seed(recipe.seed)
    config = shape(recipe)
    source = source or recipe_source(recipe, config)
    model = MMCoreModel(config)
    if recipe.start:
        begin_from(model, Path(recipe.start), tokenizer)
    if not tokenizer.exists():
        new_tokenizer(tokenizer, recipe.vocabulary, recipe_words(recipe))
    if recipe.lora:
        add_adapters(model, recipe.lora)
    engine = Engine(model, recipe)
    state, samples = DataState(), 0
    if (checkpoint := folder / "checkpoint").exists():
        engine.load(checkpoint)
        position = json.loads((checkpoint / "data.json").read_text())
        state = DataState(position["next"], tuple(position["waiting"]), position.get("broken", 0))
        samples = position["samples"]
    batches = PackedBatches(source, tokenizer, config.patch, recipe.layout, state, recipe.seed)
    began, seen = time.perf_counter(), 0
    recent: list[Report] = []
    with (
        (folder / "log.jsonl").open("a") as log,
        tqdm(total=recipe.steps, initial=engine.done, disable=None, unit="step") as bar,
    ):
        for batch, state in batches.loader(workers):
            if engine.done >= recipe.steps:
                break
            recent.append(train_step(engine, batch.to(engine.device)))
            drawn = int(batch.marks.doc.amax(1).add(1).sum())
            samples, seen = samples + drawn, seen + drawn
            bar.update()
            if engine.done % recipe.log_every == 0:
                report: Report = {key: fmean(step[key] for step in recent) for key in recent[0]}
                report |= {"samples": samples, "samples_per_s": seen / (time.perf_counter() - began)}
                log.write(json.dumps({"step": engine.done} | {k: round(v, 5) for k, v in report.items()}) + "\n")
                log.flush()
                recent = []
                bar.set_postfix(text=f"{report['text']:.3f}", flow=f"{report['flow']:.4f}")
            if engine.done % recipe.save_every == 0 or engine.done == recipe.steps:
                save_checkpoint(engine, state, samples, checkpoint)
            if on_sample and recipe.sample_every and engine.done % recipe.sample_every == 0:
                on_sample(engine, folder / "samples" / f"{engine.done:06d}.png")
    return engine


def shape(recipe: Recipe) -> MMCoreConfig:
    """The configuration of the model that a recipe trains."""
    if recipe.preset != "start":
        return MMCoreConfig(vocab_size=recipe.vocabulary, **PRESETS[recipe.preset])
    file = weights_folder(Path(recipe.start)) / "config.json"
    try:
        return MMCoreConfig.from_json_file(file)
    except (OSError, ValueError, TypeError) as error:
        raise MMCoreError(f"{file}: cannot read the shape to start from: {error}; change start=") from error


def weights_folder(source: Path) -> Path:
    """Of a run the folder of its averaged weights, of a model folder that itself."""
    averaged = source / "checkpoint" / "ema"
    return averaged if averaged.is_dir() else source


def begin_from(model: MMCoreModel, source: Path, tokenizer: Path) -> None:
    """Put a model folder's weights, or a run's averaged ones, into a model, and its tokenizer into place."""
    try:
        load_weights(model, weights_folder(source))
        shutil.copyfile(source / "tokenizer.model", tokenizer)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{source}: cannot start from it: {reason}; train it first, or change start=") from error


def train_step(engine: Engine, batch) -> Report:
    """One step on one batch; what the log averages."""
    recipe = engine.recipe
    generator = step_generator(recipe.seed, engine.done, engine.device)
    with engine.precision():
        levels = (recipe.level_mean, recipe.level_std)
        losses = flow_losses(engine.model, batch, generator, levels, recipe.least_rest)
    engine.backward(losses.text + recipe.flow_weight * losses.flow)
    norm = engine.step()
    return {"text": losses.text.item(), "flow": losses.flow.item(), "norm": norm}


def save_checkpoint(engine: Engine, state: DataState, samples: int, folder: Path) -> None:
    """Write a checkpoint beside the old one, then put it in its place."""
    partial, old = folder.with_suffix(".part"), folder.with_suffix(".old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    engine.save(partial)
    position = {"next": state.next, "waiting": state.waiting, "broken": state.broken, "samples": samples}
    (partial / "data.json").write_text(json.dumps(position))
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
