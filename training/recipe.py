"""Recipes: one TOML file says all of a training run; `key=value` on the command line changes a line of it.

    recipe = load_recipe("tiny", ["steps=100", "layout.rows=4"])

A key that no recipe knows is an error, and the resolved recipe is saved with the run.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcore.attention import BACKENDS
from mmcore.config import PERIOD, PRESETS
from mmcore.errors import MMCoreError
from mmcore.model import PARTS
from mmcore.training.data import VALIDATION, Layout
from mmcore.training.tables import from_table
from mmcore.training.world.mixtures import MIXTURES

RECIPES = Path(__file__).parent / "recipes"

WORLD = "world"
"""Name of the procedural world in a recipe's `data`."""


@dataclass(frozen=True)
class Optimizer:
    """Learning rates and what goes with them.

    Args:
        muon: learning rate of the matrices, the embedding aside; 0 leaves them to AdamW too.
        adam: learning rate of everything else.
        weight_decay: of the same matrices, times the learning rate.
        warmup: steps over which the rates rise.
        cooldown: steps over which they fall to nothing at the end.
        clip: the largest norm of the gradient.
        ema: decay of the average of weights, which is what a run releases.
    """

    muon: float = 0.02
    adam: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 100
    cooldown: int = 1000
    clip: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True)
class Driver:
    """What drives a run (see `training/engine.py`). Which ranks there are, the launcher says, not the recipe.

    Args:
        kind: "torch", in one process, or "deepspeed", in any number of them.
        zero: what DeepSpeed splits over ranks: 0 nothing, 1 optimizer and average, 2 gradients too, 3 weights too.
        offload: whether optimizer state is kept in the CPU's memory; from zero = 1 on.
        batches: batches that make one step, all ranks together; each takes its share of them one after the other. The
            numbers of a run follow from this, not from how many ranks there are.
        at_once: batches that go through the model at once: as many as a device has memory for.
        checkpointing: whether blocks run again in the backward pass, so that what they computed need not be kept.
        skip: whether a step whose loss or gradient is not finite is left out; else the run stops there.
    """

    kind: str = "torch"
    zero: int = 0
    offload: bool = False
    batches: int = 1
    at_once: int = 1
    checkpointing: bool = False
    skip: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("torch", "deepspeed"):
            raise MMCoreError(f"engine.kind must be torch or deepspeed, got {self.kind!r}")
        if self.zero not in range(4):
            raise MMCoreError(f"engine.zero must be 0, 1, 2 or 3, got {self.zero}")
        if self.batches < 1:
            raise MMCoreError(f"engine.batches must be at least 1, got {self.batches}")
        if self.at_once < 1 or self.batches % self.at_once:
            raise MMCoreError(f"engine.at_once must divide engine.batches={self.batches}, got {self.at_once}")
        if self.zero and self.kind == "torch":
            raise MMCoreError(f"engine.zero={self.zero} is DeepSpeed's; set engine.kind=deepspeed, or engine.zero=0")
        if self.offload and not self.zero:
            raise MMCoreError("engine.offload=true needs engine.zero=1, 2 or 3")


@dataclass(frozen=True)
class HeldOut:
    """Losses on documents that are never trained on, always the same ones with the same noise, while a run goes on.

    Args:
        every: steps from one time to the next, and once at the end; 0 is never.
        documents: how many; those that take more than the layout's room are left out.
        data: a folder of shards that hold them; "" takes documents of the world that training never draws.
    """

    every: int = 0
    documents: int = 64
    data: str = ""

    def __post_init__(self) -> None:
        if self.every < 0 or self.documents < 1:
            raise MMCoreError(
                f"validation.every must be at least 0 and validation.documents at least 1, got {self.every} and "
                f"{self.documents}"
            )


@dataclass(frozen=True)
class Scoring:
    """Scores as of `mmcore eval` while a run goes on: of the averaged weights, on documents of the world.

    Args:
        every: steps from one time to the next, and once at the end; 0 is never.
        documents: how many of each task of the recipe's mixture; always the same ones.
    """

    every: int = 0
    documents: int = 4

    def __post_init__(self) -> None:
        if self.every < 0 or self.documents < 1:
            raise MMCoreError(
                f"ruler.every must be at least 0 and ruler.documents at least 1, got {self.every} and {self.documents}"
            )


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Args:
        preset: one of `mmcore.config.PRESETS`; "start" takes shape and vocabulary of what the run begins with.
        linear: how many of each four blocks of the core have linear attention (see `MMCoreConfig`); 3 is the hybrid.
        start: a run, or a model's folder, whose weights and tokenizer this run begins with; "" begins from nothing.
        after: the recipe that comes before, by name in a file and by path here. Its run lies beside this one's, is made
            or finished first, and is what this one starts from; "" for none, and where `start` is given.
        data: folders of shards, each with its weight in the mixture; the name "world" is the procedural world, as is
            an empty table. In a file or on the command line a single folder's path is enough.
        rates: learning rates of parts of the model (`mmcore.model.PARTS`), as shares of the optimizer's; 0 freezes a
            part, and what is not named learns at the full rate, but for the eye, which stays.
        lora: rank of the adapters that are trained in place of the core's matrices and all the rest; 0 trains
            everything (see `lora`).
        mixture: one of `mmcore.training.world.mixtures.MIXTURES`, where the world is the source.
        solids: how many solids a scene of the world has at most, 1 to 4, before anything is added to it.
        notes: whether documents of the world have notes on the media that are given, and the model writes its own in
            use (see `mmcore.notes`).
        begin: the first of the world's documents, so that what an earlier stage learnt from does not come again.
        sizes: [frames, rows, columns] of several; media of shards are fitted to the nearest in shape and area. They go
            into the model's configuration; [] is what that has.
        vocabulary: number of text tokens.
        steps: optimizer steps in all.
        flow_weight: weight of the flow loss beside the text loss.
        level_mean: mean of the logit-normal noise levels; the larger and smoother the patches, the lower.
        level_std: their standard deviation.
        least_rest: 1 - t is not taken smaller than this where the loss divides by its square.
        attention: backend, one of `mmcore.attention.BACKENDS`, or "auto" for what suits the machine (`best_backend`).
        precision: "bf16" (autocast) or "fp32".
        compile: whether blocks are compiled.
        seed: decides weights, data and noise.
        save_every: steps between checkpoints.
        keep: how many checkpoints are kept.
        sample_every: steps between sheets of samples; 0 for none.
        log_every: steps between lines of the log.
        layout: how documents become rows.
        optimizer: learning rates and what goes with them.
        engine: one process or many, and what is split over them.
        validation: losses on documents that are held out.
        ruler: scores of what the model writes.
    """

    preset: str = "tiny"
    linear: int = 0
    start: str = ""
    after: str = ""
    data: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    lora: int = 0
    mixture: str = "all"
    solids: int = 4
    notes: bool = False
    begin: int = 0
    sizes: tuple[tuple[int, int, int], ...] = ()
    vocabulary: int = 1024
    steps: int = 1000
    flow_weight: float = 1.0
    level_mean: float = -1.4
    level_std: float = 1.5
    least_rest: float = 0.2
    attention: str = "auto"
    precision: str = "bf16"
    compile: bool = False
    seed: int = 0
    save_every: int = 200
    keep: int = 1
    sample_every: int = 400
    log_every: int = 10
    layout: Layout = field(default_factory=Layout)
    optimizer: Optimizer = field(default_factory=Optimizer)
    engine: Driver = field(default_factory=Driver)
    validation: HeldOut = field(default_factory=HeldOut)
    ruler: Scoring = field(default_factory=Scoring)

    def __post_init__(self) -> None:
        if self.attention not in ("auto", *BACKENDS):
            raise MMCoreError(f"attention must be auto, {', '.join(BACKENDS)}, got {self.attention!r}")
        if self.attention == "flash" and self.precision != "bf16":
            raise MMCoreError('attention="flash" computes in 16 bits; set precision="bf16", or attention="auto"')
        if self.keep < 1:
            raise MMCoreError(f"keep must be at least 1, got {self.keep}")
        if unknown := self.rates.keys() - PARTS.keys():
            raise MMCoreError(f"rates: no part {min(unknown)!r}; known are: {', '.join(PARTS)}")
        if any(rate < 0 for rate in self.rates.values()):
            raise MMCoreError(f"rates must be 0 or more, got {self.rates}")
        if self.engine.zero and self.optimizer.muon:
            raise MMCoreError(
                f"engine.zero={self.engine.zero} leaves each rank pieces of matrices, and Muon needs whole ones, with "
                "whole gradients; set optimizer.muon=0 (AdamW for everything), or engine.zero=0"
            )


def load_recipe(name: str | Path, changes: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: a bundled recipe's name, or the path of a TOML file.
        changes: "key=value" or "table.key=value", values as in TOML; they win.
    Raises:
        MMCoreError: no such recipe, a broken file, an unknown key, or a value of the wrong type, in this recipe or in
            one that comes before.
    """
    recipe = _read(name, changes)
    behind, earlier = [Path(name).stem], recipe
    while earlier.after:
        behind.append(Path(earlier.after).stem)
        if behind[-1] in behind[:-1]:
            raise MMCoreError(f"{name}: recipes come after each other in a circle: {' after '.join(behind)}")
        earlier = _read(earlier.after)
    return recipe


def _read(name: str | Path, changes: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read one recipe, not those that come before."""
    path = Path(name)
    if path.suffix != ".toml":
        path = RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise MMCoreError(f"{name}: no such recipe; give the path of a .toml file or one of: {known}") from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise MMCoreError(f"{path}: cannot read the recipe: {error}") from error
    for change in changes:
        _apply(table, change)
    if isinstance(folder := table.get("data"), str):
        table["data"] = {folder: 1.0}
    if before := table.pop("after", ""):
        if Path(str(before)).name != before:
            raise MMCoreError(f"{path}: after must be the name of a recipe in the same folder, got {before!r}")
        table["after"] = "" if table.get("start") else str(path.with_name(f"{before}.toml"))
    recipe = from_table(Recipe, table, str(path))
    if recipe.preset not in (*PRESETS, "start"):
        raise MMCoreError(f"{path}: preset must be one of {', '.join(PRESETS)}, start, got {recipe.preset!r}")
    if not 0 <= recipe.linear <= (0 if recipe.preset == "start" else PERIOD):
        raise MMCoreError(
            f"{path}: linear must be 0 to {PERIOD}, and 0 where the shape is that of what the run starts with, "
            f"got {recipe.linear}"
        )
    if recipe.preset == "start" and not recipe.start:
        raise MMCoreError(f'{path}: preset is "start", but there is nothing to start from; add start=MODEL_FOLDER')
    if any(weight <= 0 for weight in recipe.data.values()):
        raise MMCoreError(f"{path}: the weights of data must be above 0, got {recipe.data}")
    if recipe.lora < 0:
        raise MMCoreError(f"{path}: lora must be 0 or the rank of the adapters, got {recipe.lora}")
    if recipe.mixture not in MIXTURES:
        raise MMCoreError(f"{path}: mixture must be one of {', '.join(MIXTURES)}, got {recipe.mixture!r}")
    if not 1 <= recipe.solids <= 4:
        raise MMCoreError(f"{path}: solids must be 1, 2, 3 or 4, got {recipe.solids}")
    if not 0 <= recipe.begin < VALIDATION // 2:
        raise MMCoreError(f"{path}: begin must be 0 to {VALIDATION // 2 - 1}, got {recipe.begin}")
    if recipe.layout.copies < 1:
        raise MMCoreError(f"{path}: layout.copies must be at least 1, got {recipe.layout.copies}")
    if not 0 <= recipe.layout.word_noise <= 1:
        raise MMCoreError(f"{path}: layout.word_noise must be in [0, 1], got {recipe.layout.word_noise}")
    return recipe


def _apply(table: dict[str, Any], change: str) -> None:
    """Put one "key=value" into the table."""
    key, equals, value = change.partition("=")
    if not equals:
        raise MMCoreError(f"{change!r}: write changes to a recipe as key=value, for example steps=100")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    try:
        table[last] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        table[last] = value
