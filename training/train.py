"""The loop: batches in, checkpoints, a log and samples out. One loop for every scale.

    mmcore train tiny --out runs/tiny            # what comes before it lies in runs, too; goes on where it was stopped
    mmcore train debug steps=10
    torchrun --nproc-per-node 2 -m mmcore train debug engine.kind=deepspeed engine.batches=2

A run folder holds `recipe.json` (resolved), the text tokenizer, `vae/` if the model has one, `log.jsonl`, `curves.png`,
`checkpoint/` (whole or not at all), `samples/`, and `tensorboard/` where that is installed. `training/engine.py` lists
the ways to start a run in many processes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmcore.errors import MMCoreError
from mmcore.memory import keep_freed_memory
from mmcore.training.checkpoints import recover
from mmcore.training.data import DataState, Source, Turn, Turns, step_generator
from mmcore.training.log import Log
from mmcore.training.meter import Meter, Report
from mmcore.training.plain import Stepper
from mmcore.training.ranks import join
from mmcore.training.recipe import Recipe, load_recipe
from mmcore.training.saving import load_position, save_checkpoint
from mmcore.training.subjects import subject_of


def train(
    recipe: Recipe,
    folder: Path,
    source: Source | None = None,
    workers: int = 1,
    on_sample: Callable[[Any, Path], None] | None = None,
) -> Any:
    """Train, or go on with a run that has begun.

    Documents are dealt out to `recipe.engine.batches` streams, each of which gives a batch to every step, and streams
    to ranks. So a run may go on with more or fewer ranks, and nothing is seen twice.

    Args:
        recipe: what to do; what it comes after is trained first, by the same `engine`.
        folder: the run's folder, the same for all ranks. Runs that come before lie beside it.
        source: documents by index; None is what the recipe's `data` names. Those from index VALIDATION on are asked
            for only to validate.
        workers: processes that make batches beside each rank, at most one for each of its streams; 0 for none.
        on_sample: called every `sample_every` steps, on every rank, with the engine and a path to write to.
    Returns:
        The trained `Engine`, or `family.FamilyEngine`; its `ranks.leave()` ends what many ranks have in common.
    Raises:
        MMCoreError: the folder cannot be written, or its checkpoint is broken or of another recipe, or what it
            starts from is not there; a loss is not finite; no batch comes.
    """
    if recipe.after:
        before = folder.parent / Path(recipe.after).stem
        earlier = dataclasses.replace(load_recipe(recipe.after), engine=recipe.engine)
        train(earlier, before, source, workers, on_sample)
        recipe = dataclasses.replace(recipe, start=str(before), after="")
    keep_freed_memory()
    ranks = join(recipe.engine)
    first, checkpoint = ranks.rank == 0, folder / "checkpoint"
    if first:
        begin_folder(recipe, folder)
        recover(checkpoint)
    torch.manual_seed(recipe.seed)
    subject = subject_of(recipe, source, ranks, folder)
    engine = subject.engine
    count, samples, tokens = recipe.engine.batches, 0, 0
    states = {stream: DataState(stream) for stream in range(ranks.rank, count, ranks.world)}
    if checkpoint.exists():
        engine.load(checkpoint)
        states, samples, tokens = load_position(checkpoint, states, count)
    watched: list[tuple[int, Callable[[], Report]]] = []
    if recipe.validation.every:
        watched.append((recipe.validation.every, subject.validation()))
    if recipe.ruler.every:
        assert subject.ruler is not None
        watched.append((recipe.ruler.every, subject.ruler()))
    loader = Turns([subject.stream(state) for state in states.values()]).loader(workers if subject.parallel else 0)
    meter = Meter(engine.work, recipe, ranks, samples, tokens)
    log = Log(folder, engine.done) if first else None

    def due(every: int) -> bool:
        return bool(every) and engine.done % every == 0

    with (
        closing(log) if log else nullcontext(),
        tqdm(total=recipe.steps, initial=engine.done, disable=None if first else True, unit="step") as bar,
    ):
        for batches in meter.timed(drawn(loader, engine)):
            if engine.done >= recipe.steps:
                break
            report = train_step(engine, [batch for batch, _ in batches])
            meter.add([batch for batch, _ in batches], report if sound(report, engine) else None)
            states = dict(zip(states, (state for _, state in batches), strict=True))
            last = engine.done == recipe.steps
            bar.update()
            if due(recipe.log_every):
                line = meter.line()
                bar.set_postfix({key: f"{line[key]:.4f}" for key in ("text", "flow") if key in line})
                if log:
                    log.write(engine.done, line)
            for every, measure in watched:
                if last or due(every):
                    found = measure()
                    if log:
                        log.write(engine.done, found | {"tokens": meter.tokens})
            if last or due(recipe.save_every):
                save_checkpoint(engine, states, meter.samples, meter.tokens, checkpoint)
                if log:
                    log.draw()
            if on_sample and due(recipe.sample_every):
                on_sample(engine, folder / "samples" / f"{engine.done:06d}.png")
    return engine


def begin_folder(recipe: Recipe, folder: Path) -> None:
    """Make a run's folder, with its resolved recipe."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1))
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write the run: {error.strerror}; choose another with --out") from error


def drawn(loader: Iterable[Turn], engine: Stepper[Any, Any]) -> Iterator[Turn]:
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


def train_step(engine: Stepper[Any, Any], batches: Sequence[Any]) -> Report:
    """One step.

    Args:
        engine: what is trained.
        batches: this rank's.
    Returns:
        The losses, each the mean over its tokens in the batches of all ranks, and the gradient's norm.
    """
    recipe, ranks = engine.recipe, engine.ranks
    tokens = [engine.learnt(batch) for batch in batches]
    all_text, all_flow = ranks.sum(*map(sum, zip(*tokens, strict=True)))
    text = flow = 0.0
    draws = [engine.done * recipe.engine.batches + ranks.rank + i * ranks.world for i in range(len(batches))]
    for first in range(0, len(batches), recipe.engine.at_once):
        some = slice(first, first + recipe.engine.at_once)
        words, patches = map(sum, zip(*tokens[some], strict=True))
        generators = [step_generator(recipe.seed, draw, engine.device) for draw in draws[some]]
        of_text, of_flow = engine.losses(batches[some], generators)
        of_text, of_flow = of_text * (words / max(all_text, 1)), of_flow * (patches / max(all_flow, 1))
        engine.backward(of_text + recipe.flow_weight * of_flow)
        text, flow = text + of_text.item(), flow + of_flow.item()
    norm = engine.step()
    text, flow = ranks.sum(text, flow)
    return {"text": text, "flow": flow, "norm": norm}


def sound(report: Report, engine: Stepper[Any, Any]) -> bool:
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
