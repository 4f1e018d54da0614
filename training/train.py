"""The loop: batches in, checkpoints, a log and samples out. One loop for every scale.

    mmcore train tiny --out runs/tiny            # goes on from runs/tiny if that has begun
    mmcore train debug steps=10
    torchrun --nproc-per-node 2 -m mmcore train debug engine.kind=deepspeed engine.batches=2

A run folder holds `recipe.json` (resolved), the text tokenizer, `vae/` if the model has one, `log.jsonl`,
`checkpoint/` (whole or not at all) and `samples/`. `training/engine.py` lists the ways to start a run in many
processes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmcore.autoencoder import VAE
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.sequence import IGNORE, PackedSequence
from mmcore.tokenizers.words import OWN, copy_words, words_file
from mmcore.training.checkpoints import load_averaged, load_weights, recover, replace, writing
from mmcore.training.data import DataState, PackedBatches, Source, Turns, new_tokenizer, step_generator
from mmcore.training.engine import make_engine
from mmcore.training.lora import add_adapters
from mmcore.training.optimizers import freeze
from mmcore.training.plain import Engine
from mmcore.training.ranks import join
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

    Documents are dealt out to `recipe.engine.batches` streams, each of which gives a batch to every step, and streams
    to ranks. So a run may go on with more or fewer ranks, and nothing is seen twice.

    Args:
        recipe: what to do.
        folder: the run's folder, the same for all ranks.
        source: documents by index; None is what the recipe's `data` names.
        workers: processes that make batches beside each rank: 0 or 1.
        on_sample: called every `sample_every` steps, on every rank, with the engine and a path to write to.
    Returns:
        The engine, trained; `engine.ranks.leave()` ends what many ranks have in common.
    Raises:
        MMCoreError: the folder cannot be written, or its checkpoint is broken or of another recipe, or what it
            starts from is not there; a loss is not finite; no batch comes.
    """
    ranks = join(recipe.engine)
    first, checkpoint = ranks.rank == 0, folder / "checkpoint"
    if first:
        begin_folder(recipe, folder)
        recover(checkpoint)
    torch.manual_seed(recipe.seed)
    config = shape(recipe)
    source = source or recipe_source(recipe, config)
    model = MMCoreModel(config)
    if recipe.start:
        begin_from(model, Path(recipe.start), folder if first else None)
    if first and not words_file(folder):
        new_tokenizer(folder / OWN, recipe.vocabulary, recipe_words(recipe))
    if recipe.lora:
        add_adapters(model, recipe.lora)
    freeze(model, recipe.rates)
    ranks.wait()
    tokenizer = words_file(folder)
    assert tokenizer is not None
    engine = make_engine(model, recipe, ranks)
    count = recipe.engine.batches
    states, samples = {stream: DataState(stream) for stream in range(ranks.rank, count, ranks.world)}, 0
    if checkpoint.exists():
        engine.load(checkpoint)
        states, samples = load_position(checkpoint, states, count)
    deal = partial(PackedBatches, source, tokenizer, config.patch, recipe.layout, seed=recipe.seed, stride=count)
    loader = Turns([deal(state=state) for state in states.values()]).loader(workers)
    began, seen, skipped = time.perf_counter(), 0, 0
    recent: list[Report] = []
    log = folder / "log.jsonl"
    if first:
        forget_after(log, engine.done)
    with tqdm(total=recipe.steps, initial=engine.done, disable=None if first else True, unit="step") as bar:
        for batches in drawn(loader, engine):
            if engine.done >= recipe.steps:
                break
            report = train_step(engine, [batch for batch, _ in batches])
            states = dict(zip(states, (state for _, state in batches), strict=True))
            if sound(report, engine):
                recent.append(report)
            else:
                skipped += 1
            (new,) = ranks.sum(sum(int(batch.marks.doc.amax(1).add(1).sum()) for batch, _ in batches))
            samples, seen = samples + int(new), seen + int(new)
            bar.update()
            if engine.done % recipe.log_every == 0 and first:
                line: Report = {key: fmean(step[key] for step in recent) for key in recent[0]} if recent else {}
                bar.set_postfix({key: f"{line[key]:.4f}" for key in ("text", "flow") if key in line})
                line |= {"samples": samples, "samples_per_s": seen / (time.perf_counter() - began)}
                line |= {"skipped": skipped} if skipped else {}
                with writing(log, engine.done), log.open("a") as file:
                    file.write(json.dumps({"step": engine.done} | {k: round(v, 5) for k, v in line.items()}) + "\n")
                recent = []
            if engine.done % recipe.save_every == 0 or engine.done == recipe.steps:
                save_checkpoint(engine, states, samples, checkpoint)
            if on_sample and recipe.sample_every and engine.done % recipe.sample_every == 0:
                on_sample(engine, folder / "samples" / f"{engine.done:06d}.png")
    return engine


def begin_folder(recipe: Recipe, folder: Path) -> None:
    """Make a run's folder, with its resolved recipe."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1))
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write the run: {error.strerror}; choose another with --out") from error


def shape(recipe: Recipe) -> MMCoreConfig:
    """The configuration of the model that a recipe trains."""
    if recipe.preset != "start":
        return MMCoreConfig(vocab_size=recipe.vocabulary, **PRESETS[recipe.preset])
    start = Path(recipe.start)
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


def forget_after(log: Path, step: int) -> None:
    """Take the lines of later steps out of a log: they are made again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        partial = log.with_suffix(".part")
        partial.write_text("".join(lines))
        partial.rename(log)


def drawn(loader: DataLoader, engine: Engine) -> Iterator[list[tuple[PackedSequence, DataState]]]:
    """What a loader gives.

    Raises:
        MMCoreError: the process that makes batches has died or hangs, or found nothing that can be used.
    """
    batches = iter(loader)
    while True:
        try:
            made = next(batches)
        except MMCoreError as error:
            line = str(error).strip().splitlines()[-1]  # another process sends its traceback along
            raise MMCoreError(line.removeprefix(f"{MMCoreError.__module__}.{MMCoreError.__name__}: ")) from error
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise MMCoreError(
                f"step {engine.done + 1}: no batch came: {reason}; start it again: it goes on from its checkpoint"
            ) from error
        yield made


def train_step(engine: Engine, batches: Sequence[PackedSequence]) -> Report:
    """One step.

    Args:
        engine: what is trained.
        batches: this rank's.
    Returns:
        The losses, each the mean over its tokens in the batches of all ranks, and the gradient's norm.
    """
    recipe, ranks = engine.recipe, engine.ranks
    tokens = [(int((batch.labels != IGNORE).sum()), int(batch.is_target_patch.sum())) for batch in batches]
    all_text, all_flow = ranks.sum(*map(sum, zip(*tokens, strict=True)))
    text = flow = 0.0
    for i, (batch, (words, patches)) in enumerate(zip(batches, tokens, strict=True)):
        draw = engine.done * recipe.engine.batches + ranks.rank + i * ranks.world
        generator = step_generator(recipe.seed, draw, engine.device)
        of_text, of_flow = engine.losses(batch.to(engine.device), generator)
        of_text, of_flow = of_text * (words / max(all_text, 1)), of_flow * (patches / max(all_flow, 1))
        engine.backward(of_text + recipe.flow_weight * of_flow)
        text, flow = text + of_text.item(), flow + of_flow.item()
    norm = engine.step()
    text, flow = ranks.sum(text, flow)
    return {"text": text, "flow": flow, "norm": norm}


def sound(report: Report, engine: Engine) -> bool:
    """Whether all numbers of a step are finite.

    Raises:
        MMCoreError: they are not, and the recipe does not skip such steps.
    """
    broken = [f"{name} is {value}" for name, value in report.items() if not math.isfinite(value)]
    if broken and not engine.recipe.engine.skip:
        raise MMCoreError(
            f"step {engine.done}: {', '.join(broken)}; lower optimizer.adam and optimizer.muon, or set engine.skip=true"
            " and start it again: it goes on from its checkpoint"
        )
    return not broken


def position_file(checkpoint: Path, stream: int) -> Path:
    """Where a checkpoint says how far a stream of documents has come."""
    return checkpoint / (f"data-{stream}.json" if stream else "data.json")


def load_position(checkpoint: Path, streams: Mapping[int, DataState], count: int) -> tuple[dict[int, DataState], int]:
    """How far streams have come, and how many documents were seen in all.

    Raises:
        MMCoreError: the checkpoint was written with another number of streams.
    """
    whole = json.loads(position_file(checkpoint, 0).read_text())
    if (before := whole.get("streams", 1)) != count:
        raise MMCoreError(f"{checkpoint}: written with engine.batches={before}; go on with the same, not {count}")
    read = {stream: json.loads(position_file(checkpoint, stream).read_text()) for stream in streams}
    states = {s: DataState(at["next"], tuple(at["waiting"]), at.get("broken", 0)) for s, at in read.items()}
    return states, whole["samples"]


def save_checkpoint(engine: Engine, states: Mapping[int, DataState], samples: int, folder: Path) -> None:
    """Write a checkpoint beside the old one, each rank its part, then put it in its place."""
    made, ranks = folder.with_suffix(".part"), engine.ranks
    try:
        with writing(folder, engine.done):
            if ranks.rank == 0:
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
            ranks.wait()
            engine.save(made)
            for stream, state in states.items():
                position = {"next": state.next, "waiting": state.waiting, "broken": state.broken}
                position |= {"samples": samples, "streams": engine.recipe.engine.batches}
                position_file(made, stream).write_text(json.dumps(position))
            ranks.wait()
            if ranks.rank == 0:
                replace(made, folder)
            ranks.wait()
    except MMCoreError:
        shutil.rmtree(made, ignore_errors=True)
        raise
