"""Ablations: a small model, and variants of it, each trained from nothing for the same time of one core.

    python -m mmcore.training.ablation runs/ablation 240                       # seconds each; all, one process a core
    python -m mmcore.training.ablation runs/ablation 240 "no long skips" "no long skips, another seed"

Every result is a JSON file in the folder; what has one is not trained again. Learning rates do not fall, and what is
measured is the average of weights, but for the variant that says otherwise. `VARIANTS` is the list.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import mmcore
from mmcore.config import MMCoreConfig
from mmcore.core import Block
from mmcore.errors import MMCoreError
from mmcore.memory import keep_freed_memory
from mmcore.model import MMCoreModel, Output
from mmcore.packing import PackedSequence
from mmcore.sequence import IGNORE
from mmcore.training.data import VALIDATION, Layout, PackedBatches, step_generator
from mmcore.training.plain import Engine
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import Optimizer, Recipe
from mmcore.training.sources import Mixture
from mmcore.training.train import train_step
from mmcore.training.validation import held_out_batches
from mmcore.training.world.mixtures import MIXTURES
from mmcore.training.world.tasks import sample_document

TOKENIZER = Path(mmcore.__file__).parent / "bundled" / "tokenizer.model"

SMALL: dict[str, Any] = {
    **{"width": 128, "depth": 4, "decoder_depth": 2, "heads": 4, "ff_width": 352, "floors": (32, 64)},
    "vocab_size": 1024,
}
"""The model that is varied: 2 million parameters, the shape of `tiny` at half its width."""

STILLS, READING = MIXTURES["stills"], MIXTURES["reading"]
CLIPS = {"text to video": 0.5, "video edit": 0.2, "video to text": 0.3}
DRAWING = {"text to image": 0.64, "image edit": 0.36}

LEVELS = (0.05, 0.2, 0.7)
"""Noise levels at which the error of drawn media is measured."""

HELD_OUT = 96
"""Documents that each half of a measurement takes."""


class VelocityModel(MMCoreModel):
    """A model whose decoder predicts the velocity, v, in place of the clean patches, which are x_t + (1 - t) v."""

    def forward(self, seq: PackedSequence, cache: Any = None) -> Output:
        """See `MMCoreModel.forward`."""
        output, level = super().forward(seq, cache), seq.level[:, seq.lengths[1] :, None]
        return Output(output.hidden, seq.target_patches + (1 - level) * output.patches)


def freeze(model: MMCoreModel, ends: str | tuple[str, ...]) -> None:
    """Hold weights whose names end so at 0: what they do is as if it were not there."""
    for name, p in model.named_parameters():
        if name.endswith(ends):
            p.requires_grad_(False).zero_()


def share_feed_forwards(model: MMCoreModel) -> None:
    """One feed-forward for words and patches in each block of the core."""
    for block in model.core.blocks:
        assert isinstance(block, Block)
        block.visual = block.text


def look_nowhere(model: MMCoreModel) -> None:
    """Begin all heads alike (see `MMCoreModel._look_up_places`)."""
    for block in model.core.blocks:
        assert isinstance(block, Block)
        for matrix in (block.attention.query, block.attention.key):
            assert isinstance(matrix, torch.nn.Linear)
            torch.nn.init.normal_(matrix.weight, std=matrix.in_features**-0.5)


@dataclass(frozen=True)
class Variant:
    """What is different, from the model that is varied.

    Args:
        shape: of the model.
        recipe: of the training.
        optimizer: rates, and the average.
        layout: of the rows.
        shares: of the tasks.
        mend: does something to the model before it is trained.
        kind: the model's class.
        raw: whether the weights themselves are measured rather than their average.
    """

    shape: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=lambda: STILLS)
    mend: Callable[[MMCoreModel], None] | None = None
    kind: type[MMCoreModel] = MMCoreModel
    raw: bool = False


MANY_STILLS = {"rows": 4, "room": (164, 325, 715)}
FEW_CLIPS = {"rows": 4, "room": (140, 160, 300)}
FREE = {"room": (164, 92, 187)}

VARIANTS: dict[str, Variant] = {
    "as it is": Variant(),
    "wide: 192, 2 + 1 blocks": Variant({"width": 192, "heads": 6, "depth": 2, "decoder_depth": 1, "ff_width": 528}),
    "deep: 96, 8 + 4 blocks": Variant({"width": 96, "heads": 3, "depth": 8, "decoder_depth": 4, "ff_width": 264}),
    "decoder: 3 + 3 blocks": Variant({"depth": 3, "decoder_depth": 3}),
    "decoder: 5 + 1 blocks": Variant({"depth": 5, "decoder_depth": 1}),
    "decoder: 6 + 0 blocks": Variant({"depth": 6, "decoder_depth": 0}),
    "no long skips": Variant(mend=partial(freeze, ends=".skip.weight")),
    "noise level as a token alone": Variant(mend=partial(freeze, ends=("modulate.weight", ".level"))),
    "noise level as adaLN alone": Variant(mend=partial(freeze, ends="level_out.weight")),
    "one feed-forward": Variant(mend=share_feed_forwards),
    "one feed-forward, twice as wide": Variant({"ff_width": 704}, mend=share_feed_forwards),
    "v-prediction": Variant(kind=VelocityModel),
    "levels around -0.8": Variant(recipe={"level_mean": -0.8}),
    "levels around -2.8": Variant(recipe={"level_mean": -2.8}),
    "AdamW alone, 1e-3": Variant(optimizer={"muon": 0.0, "adam": 1e-3}),
    "AdamW alone, 3e-3": Variant(optimizer={"muon": 0.0, "adam": 3e-3}),
    "Muon 0.03": Variant(optimizer={"muon": 0.03}),
    "weight of flow 1": Variant(recipe={"flow_weight": 1.0}),
    "weight of flow 20": Variant(recipe={"flow_weight": 20.0}),
    "1 noise level a medium": Variant(layout={"copies": 1, "room": (164, 92, 102)}),
    "4 noise levels a medium": Variant(layout={"copies": 4, "room": (120, 68, 289)}),
    "reading alone": Variant(shares=READING, layout={"room": (312, 136, 0)}),
    "drawing alone": Variant(shares=DRAWING, layout={"room": (140, 51, 255)}),
    "patches of 8 x 8 x 4": Variant({"patch": (4, 8, 8)}, layout=MANY_STILLS),
    "no pyramid": Variant({"floors": ()}),
    "no grid features": Variant(mend=partial(freeze, ends="patch_in.grid.weight")),
    "no head that looks up places": Variant(mend=look_nowhere),
    "no average": Variant(raw=True),
    "average of 0.95": Variant(optimizer={"ema": 0.95}),
    "average of 0.998": Variant(optimizer={"ema": 0.998}),
    "clips": Variant(shares=CLIPS, layout=FEW_CLIPS),
    "clips, patches of 16 x 16 x 2": Variant(
        {"patch": (2, 16, 16)}, shares=CLIPS, layout={"rows": 2, "room": (140, 320, 600)}
    ),
    "clips, patches of 8 x 8 x 4": Variant(
        {"patch": (4, 8, 8)}, shares=CLIPS, layout={"rows": 1, "room": (140, 640, 1200)}
    ),
}


AGAIN = ", another seed"
"""Ends the name of a variant whose weights, documents and noise are others."""


def variant_of(name: str) -> Variant:
    """A variant by name.

    Raises:
        MMCoreError: there is none.
    """
    variant = VARIANTS.get(name.removesuffix(AGAIN))
    if variant is None:
        raise MMCoreError(f"no variant {name!r}; known are: {', '.join(VARIANTS)}")
    return replace(variant, recipe={**variant.recipe, "seed": 1}) if name.endswith(AGAIN) else variant


@dataclass(frozen=True)
class Result:
    """What a variant came to.

    Args:
        steps: in its time.
        documents: that it saw.
        text: loss of held-out captions and answers, nats a token; None where it learnt none.
        errors: mean squared error of clean pixels of held-out media at each of LEVELS; [] where it learnt none.
    """

    steps: int
    documents: int
    text: float | None
    errors: list[float]


def batches_of(variant: Variant, config: MMCoreConfig, shares: Mapping[str, float], **layout: Any) -> PackedBatches:
    """Documents of one solid, of some tasks."""
    sources = [partial(sample_document, task=task, most=1) for task in shares]
    chosen = Layout(**{"rows": 8, **FREE, "copies": 2, **variant.layout, **layout})
    seed = variant.recipe.get("seed", 0)
    return PackedBatches(Mixture(sources, list(shares.values())), TOKENIZER, config.patch, chosen, seed=seed)


@torch.no_grad()
def measure(model: MMCoreModel, batches: Sequence[PackedSequence], level: float) -> tuple[float, float]:
    """The text loss a token, and the squared error of clean target patches at one noise level; nan where there is none.

    Args:
        model: computes in bfloat16, as it was trained.
        batches: target patches clean.
        level: in [0, 1].
    """
    sums = torch.zeros(4, dtype=torch.float64)
    for i, seq in enumerate(batches):
        data = seq.target_patches
        noise = torch.randn(data.shape, generator=step_generator(0, i, data.device))
        noisy = seq.noised(noise, torch.full(data.shape[:2], level))
        learnt = seq.labels != IGNORE
        with torch.autocast(data.device.type, torch.bfloat16):
            output: Output = model(noisy)
            logits = model.logits(output.hidden[learnt])
        text = F.cross_entropy(logits, seq.labels[learnt], reduction="sum")
        error: Tensor = (output.patches.float() - data).square().mean(-1)[seq.is_target_patch]
        sums += torch.tensor([text.item(), int(learnt.sum()), error.sum().item(), error.numel()])
    return float(sums[0] / sums[1]), float(sums[2] / sums[3])


def train_variant(variant: Variant, seconds: float) -> Result:
    """Train a variant from nothing for so many seconds of this process, and measure it."""
    recipe = Recipe(
        **{"steps": 10**9, "flow_weight": 5.0, "level_mean": -1.8, **variant.recipe},
        optimizer=Optimizer(**{"muon": 0.015, "adam": 2e-3, "warmup": 20, "ema": 0.99, **variant.optimizer}),
    )
    torch.manual_seed(recipe.seed)
    model = variant.kind(MMCoreConfig(**{**SMALL, **variant.shape}))
    if variant.mend:
        with torch.no_grad():
            variant.mend(model)
    engine, documents = Engine(model, recipe, Ranks()), 0
    model.train()
    begin = time.process_time()
    for batch, _ in batches_of(variant, model.config, variant.shares):
        train_step(engine, [batch])
        documents += int(engine.work(batch).documents)
        if time.process_time() - begin > seconds:
            break
    judged = (model if variant.raw else engine.averaged).eval()
    judged.backend = model.backend
    shown = {"copies": 1, "hide_all": 0.0, "hide_text": 0.0, "hide_context": 0.0}
    indexes = range(VALIDATION, VALIDATION + HELD_OUT)

    def held_out(reads: bool) -> list[PackedSequence]:
        shares = {task: share for task, share in variant.shares.items() if reads == task.endswith(("text", "question"))}
        return held_out_batches(batches_of(variant, model.config, shares, **shown), indexes) if shares else []

    to_read, to_draw = held_out(reads=True), held_out(reads=False)
    text = measure(judged, to_read, 0.0)[0] if to_read else None
    return Result(engine.done, documents, text, [measure(judged, to_draw, t)[1] for t in LEVELS] if to_draw else [])


def run(name: str, folder: Path, seconds: float) -> str:
    """Train a variant if its result is not there yet; returns its row of a table."""
    file = folder / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        torch.set_num_threads(1)
        keep_freed_memory()
        result = train_variant(variant_of(name), seconds)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(result)))
        part.rename(file)
    made = Result(**json.loads(file.read_text()))
    text = "" if made.text is None else f"{made.text:.3f}"
    errors = [f"{error:.4f}" for error in made.errors] or [""] * len(LEVELS)
    return f"| {name} | {made.documents / 1000:.1f} k | {text} | {' | '.join(errors)} |"


def main(folder: Path, seconds: float, names: Sequence[str]) -> None:
    """Run variants, as many at a time as there are cores, and print a table."""
    for name in names:
        variant_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    print("| variant | documents | text loss |", " | ".join(f"error at {t}" for t in LEVELS), "|")
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for row in pool.map(partial(run, folder=folder, seconds=seconds), names):
            print(row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:] or list(VARIANTS))
