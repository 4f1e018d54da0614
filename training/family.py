"""Adapters for released models of other families: what the loop in `training/train.py` needs to tune one.

    mmcore train finetune data=SHARDS start=BAGEL-7B-MoT lora=8 layout.rows=1
    mmcore export runs/finetune tuned                       # then mmcore.load("tuned")

A document is a row, padded to the longest of its batch; documents come by index, so that a run resumes exactly.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmcore.document import Document, Text
from mmcore.errors import MMCoreError
from mmcore.families.convert import convert
from mmcore.families.lance import companion
from mmcore.families.lessons import Lesson
from mmcore.families.teaching import Teacher, teacher
from mmcore.loading import family_opener
from mmcore.training.data import DataState, Layout, Source
from mmcore.training.lora import OUT, add_adapters, merged
from mmcore.training.meter import Work
from mmcore.training.optimizers import average
from mmcore.training.plain import Stepper
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import Recipe

logger = logging.getLogger(__name__)

IN_VAIN = 100
"""So many documents in a row that cannot be used are an error."""

WEIGHTS, AVERAGED, MOMENTS, COUNTS = "adapters", "averaged", "optimizer", "engine.json"
"""What a checkpoint holds."""

Lessons = list[Lesson]


class LessonBatches(IterableDataset[tuple[Lessons, DataState]]):
    """An endless stream of batches.

    Args:
        source: documents by index.
        taught: the family.
        recipe: rows of a batch, share of what is hidden, noise levels.
        state: where to begin.
    """

    def __init__(self, source: Source, taught: Teacher, recipe: Recipe, state: DataState) -> None:
        self.source, self.taught, self.recipe, self.state = source, taught, recipe, state

    def __iter__(self) -> Iterator[tuple[Lessons, DataState]]:
        """Batches, each with the state from which the next one follows.

        Raises:
            MMCoreError: nothing that the source gives can be used. A single broken document is left out with a warning.
        """
        at, broken, in_vain, lessons = self.state.next, self.state.broken, 0, Lessons()
        while True:
            try:
                lessons.append(self.lesson(at))
                in_vain = 0
            except MMCoreError as error:
                broken, in_vain = broken + 1, in_vain + 1
                logger.warning("left out, the %d. broken document: %s", broken, error)
                if in_vain == IN_VAIN:
                    raise MMCoreError(
                        f"{self.taught.name} can learn from none of the last {IN_VAIN} documents; the last one: {error}"
                    ) from error
            at += self.recipe.engine.batches
            if len(lessons) == self.recipe.layout.rows:
                yield lessons, DataState(at, (), broken)
                lessons = Lessons()

    def lesson(self, index: int) -> Lesson:
        """One document, some of what it is made by hidden, as its index decides."""
        rng, generator = np.random.default_rng((self.recipe.seed, index)), torch.Generator()
        document = hidden(self.source(index), self.recipe.layout, rng)
        generator.manual_seed(int(rng.integers(2**63)))
        return self.taught.lesson(document, generator, (self.recipe.level_mean, self.recipe.level_std))


def hidden(document: Document, layout: Layout, rng: np.random.Generator) -> Document:
    """A document without the words, or the media, or both, that media in it are made by, for guidance.

    Args:
        document: those in which words alone are learnt stay as they are.
        layout: shares of documents: `hide_all`, `hide_text`, `hide_context`.
        rng: decides.
    """
    shares = (layout.hide_all, layout.hide_text, layout.hide_context)
    words, media = ((0, 0), (0, 1), (1, 0), (1, 1))[rng.choice(4, p=(*shares, 1 - sum(shares)))]
    if not any(s.learn and not isinstance(s, Text) for s in document):
        return document
    return Document(tuple(s for s in document if s.learn or (words if isinstance(s, Text) else media)))


class FamilyEngine(Stepper[nn.Module, Lessons]):
    """Trains adapters in one process; the released weights are neither moved nor written.

    Args:
        taught: the family, on the ranks' device.
        recipe: rates, precision.
        ranks: this process.
    """

    def __init__(self, taught: Teacher, recipe: Recipe, ranks: Ranks) -> None:
        self.taught = taught
        add_adapters(taught.model, taught.stacks, recipe.lora)
        for stack in taught.stacks:
            stack.checkpointing = recipe.engine.checkpointing
        super().__init__(taught.model, recipe, ranks)
        self.adapters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.mean = {name: p.detach().clone() for name, p in self.adapters.items()}
        self.averages = 0

    def work(self, batch: Lessons) -> Work:
        """How much a step with this batch is; its arithmetic is not counted."""
        lanes = [[len(lane.span) for lane in lesson.strand.lanes] for lesson in batch]
        padded = len(batch) * sum(map(max, zip(*lanes, strict=True)))
        return Work(len(batch), sum(map(sum, lanes)), padded)

    def learnt(self, batch: Lessons) -> tuple[int, int]:
        """How many words and how many latent tokens a batch teaches to write."""
        patches = sum(len(goal.velocity) for lesson in batch for goal in lesson.goals)
        return sum(len(lesson.labels) for lesson in batch), patches

    def losses(self, batches: Sequence[Lessons], generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """See `Stepper`; the noise is in the lessons."""
        batch = [lesson for lessons in batches for lesson in lessons]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            losses = self.taught.measure(batch)
        words, patches = self.learnt(batch)
        return losses.words.sum() / max(words, 1), losses.media.mean(1).sum() / max(patches, 1)

    def move_average(self) -> None:
        """Take the adapters after a step into the average."""
        current = [p.detach() for p in self.adapters.values()]
        average(list(self.mean.values()), current, self.averages, self.recipe.optimizer.ema)
        self.averages += 1

    def save(self, folder: Path) -> None:
        """Write the adapters, their average and the optimizer's state, as safetensors."""
        parts = {WEIGHTS: self.adapters, AVERAGED: self.mean, MOMENTS: self.moments()}
        for name, tensors in parts.items():
            save_file({key: t.detach().contiguous() for key, t in tensors.items()}, folder / f"{name}.safetensors")
        (folder / COUNTS).write_text(json.dumps({"done": self.done, "averaged": self.averages}))

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            MMCoreError: a file is missing or of another model.
        """
        try:
            device = str(self.device)
            read = {n: load_file(folder / f"{n}.safetensors", device=device) for n in (WEIGHTS, AVERAGED, MOMENTS)}
            for name, p in self.adapters.items():
                p.copy_(read[WEIGHTS][name])
                self.mean[name].copy_(read[AVERAGED][name])
            counts = json.loads((folder / COUNTS).read_text())
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise MMCoreError(f"{folder}: cannot resume: {error}") from error
        self.take_moments(read[MOMENTS])
        self.done, self.averages = counts["done"], counts["averaged"]


def family_engine(recipe: Recipe, ranks: Ranks) -> FamilyEngine:
    """What trains adapters of the model that a recipe starts from.

    Raises:
        MMCoreError: the recipe asks for what is not done with these models, or the model cannot be opened.
    """
    folder, engine = Path(recipe.start), recipe.engine
    opener = family_opener(folder)
    assert opener is not None
    asked = {
        "lora=0": not recipe.lora,
        f"engine.kind={engine.kind}": engine.kind != "torch",
        "rates": bool(recipe.rates),
        "compile=true": recipe.compile,
    }
    if wrong := [name for name, given in asked.items() if given]:
        raise MMCoreError(
            f"{folder}: of a released model of another family adapters alone are trained, in one process: set lora=8 "
            f"or another rank; not for it: {', '.join(wrong)}"
        )
    backbone, translator, _ = opener(folder, ranks.device)
    return FamilyEngine(teacher(folder, backbone, translator), recipe, ranks)


def held_out_lessons(stream: LessonBatches, indexes: Iterable[int]) -> list[Lessons]:
    """Documents in batches; those that the family cannot learn from are left out.

    Args:
        stream: what they are drawn from; nothing is drawn from the stream itself, and nothing is hidden.
        indexes: of the documents.
    Raises:
        MMCoreError: none is left.
    """
    shown = replace(stream.recipe.layout, hide_all=0.0, hide_text=0.0, hide_context=0.0)
    whole = LessonBatches(stream.source, stream.taught, replace(stream.recipe, layout=shown), stream.state)
    lessons = Lessons()
    for i in indexes:
        try:
            lessons.append(whole.lesson(i))
        except MMCoreError as error:
            logger.warning("left out of validation: %s", error)
    if not lessons:
        raise MMCoreError(f"{stream.taught.name} can learn from no held-out document")
    return [lessons[i : i + shown.rows] for i in range(0, len(lessons), shown.rows)]


def export_family(checkpoint: Path, start: Path, target: Path) -> None:
    """Write a released folder anew with a run's averaged adapters added to its matrices, whole or not at all.

    Args:
        checkpoint: of the run.
        start: the folder that it began with.
        target: where the result goes; must not be there yet. What lies beside `start` comes into it.
    Raises:
        MMCoreError: a folder cannot be read, or the target is there or cannot be written.
    """
    opener = family_opener(start)
    assert opener is not None
    backbone, translator, _ = opener(start, "cpu")
    taught = teacher(start, backbone, translator)
    try:
        adapters = load_file(checkpoint / f"{AVERAGED}.safetensors")
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{checkpoint}: cannot be read: {str(error).strip().splitlines()[0]}") from error
    ours = {taught.released(n.removesuffix(OUT) + "weight"): n.removesuffix(OUT) for n in adapters if n.endswith(OUT)}

    def tuned(name: str, tensor: Tensor) -> Tensor:
        if (stem := ours.get(name)) is None:
            return tensor
        own = {key: value for key, value in adapters.items() if key.startswith(f"{stem}lora_")}
        return merged({f"{stem}weight": tensor, **own})[f"{stem}weight"]

    made = target.with_name(f"{target.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    try:
        convert(start, made, files=taught.files, change=tuned)
        for name in taught.beside:
            if (whole := companion(start, name)).is_dir():
                shutil.copytree(whole, made / name)
        made.rename(target)
    except OSError as error:
        raise MMCoreError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
