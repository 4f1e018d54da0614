"""The engine in one process, by plain torch. `training/engine.py` has those that DeepSpeed drives, `training/family.py`
that for released models of other families.

engine = Engine(model, recipe, Ranks())
text, flow = engine.losses([batch], [generator])
engine.backward(text + flow)
norm = engine.step()
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mmcore.attention import best_backend
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel, flow_losses
from mmcore.packing import PackedSequence
from mmcore.sequence import IGNORE
from mmcore.training.checkpoints import load_weights
from mmcore.training.meter import Work, packed_work
from mmcore.training.optimizers import average, make_optimizer, rate
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import Recipe


class Objective(nn.Module):
    """A model with its losses, so that all that is computed in a step lies within one module's forward pass.

    Args:
        model: what is trained.
        recipe: precision and noise levels.
    """

    def __init__(self, model: MMCoreModel, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, seq: PackedSequence, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """The text and the flow loss, each the mean over the sequence's own tokens."""
        recipe = self.recipe
        with torch.autocast(seq.ids.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            levels = (recipe.level_mean, recipe.level_std)
            losses = flow_losses(self.model, seq, generators, levels, recipe.least_rest)
        return losses.text, losses.flow


Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")


class Stepper(ABC, Generic[Network, Batch]):
    """What the loop knows of an engine: a model, what a batch of documents teaches it, and a step.

    Args:
        model: fresh or loaded, on the ranks' device.
        recipe: rates, precision, what drives it.
        ranks: this process among others, and where it computes.
    """

    def __init__(self, model: Network, recipe: Recipe, ranks: Ranks) -> None:
        self.model, self.recipe, self.ranks, self.done = model, recipe, ranks, 0
        self.device = torch.device(ranks.device)
        self.optimizer = make_optimizer(self.model, recipe)
        self._rates = tuple(group["lr"] for group in self.optimizer.param_groups)

    @abstractmethod
    def work(self, batch: Batch) -> Work:
        """How much a step with this batch is; no time is told."""

    @abstractmethod
    def learnt(self, batch: Batch) -> tuple[int, int]:
        """How many words and how many patches a batch teaches to write."""

    @abstractmethod
    def losses(self, batches: Sequence[Batch], generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """The text and the flow loss of batches that go through the model at once, each the mean over their tokens.

        Args:
            batches: one or more, laid out alike.
            generators: of the noise of each.
        """

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients."""
        loss.backward()

    def step(self) -> float:
        """Clip, step, average; nothing moves where a gradient is not finite, and the step is counted all the same.

        Returns:
            The gradient's norm before it was clipped.
        """
        chosen = self.recipe.optimizer
        share = rate(self.done, self.recipe.steps, chosen.warmup, chosen.cooldown)
        for group, full in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = full * share
        norm = self.update()
        if math.isfinite(norm):
            self.move_average()
        self.done += 1
        return norm

    def update(self) -> float:
        """Clip the gradients, step, and forget them; returns their norm."""
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state, by "KIND/WEIGHT"."""
        state = self.optimizer.state
        learnt = [(name, p) for name, p in self.model.named_parameters() if p in state]
        return {f"{key}/{name}": value for name, p in learnt for key, value in state[p].items()}

    def take_moments(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `moments` gave."""
        for name, p in self.model.named_parameters():
            state = {key.split("/")[0]: t for key, t in tensors.items() if key.partition("/")[2] == name}
            if state:
                self.optimizer.state[p] = state

    @abstractmethod
    def move_average(self) -> None:
        """Take the weights after a step into the average."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write this rank's part of weights, averaged weights and optimizer state, as safetensors."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            MMCoreError: a file is missing or of another model.
        """


class Engine(Stepper[MMCoreModel, PackedSequence]):
    """Trains one model in one process.

    Args:
        model: fresh or loaded.
        recipe: rates, precision, what drives it.
        ranks: this process among others, and where it computes.
    """

    def __init__(self, model: MMCoreModel, recipe: Recipe, ranks: Ranks) -> None:
        super().__init__(model.to(ranks.device), recipe, ranks)  # type: ignore[arg-type]
        self.model.backend = recipe.attention
        if recipe.attention == "auto":
            positions, bf16 = sum(recipe.layout.room), recipe.precision == "bf16"
            self.model.backend = best_backend(self.device, recipe.compile, bf16, positions)
        self.model.core.checkpointing = self.model.decoder.checkpointing = recipe.engine.checkpointing
        self.objective = Objective(self.model, recipe)
        self.begin_average()
        if recipe.compile:
            for block in [*self.model.core.blocks, *self.model.decoder.blocks]:
                block.compile()

    def work(self, batch: PackedSequence) -> Work:
        """How much a step with this batch is; no time is told."""
        return packed_work(self.model.config, batch)

    def learnt(self, batch: PackedSequence) -> tuple[int, int]:
        """How many words and how many patches a batch teaches to write."""
        return int((batch.labels != IGNORE).sum()), int(batch.is_target_patch.sum())

    def losses(self, batches: Sequence[PackedSequence], generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """See `Stepper`."""
        first, *others = batches
        return self.objective(first.above(*others).to(self.device), generators)

    def begin_average(self) -> None:
        """Start the average at the weights as they are."""
        self.ema = AveragedModel(self.model, multi_avg_fn=partial(average, decay=self.recipe.optimizer.ema))

    def move_average(self) -> None:
        """Take the weights after a step into the average."""
        self.ema.update_parameters(self.model)

    @property
    def averaged(self) -> MMCoreModel:
        """The model with averaged weights: what is sampled from and released. All ranks ask for it together."""
        module = self.ema.module
        assert isinstance(module, MMCoreModel)
        return module

    def save(self, folder: Path) -> None:
        """Write this rank's part of weights, averaged weights and optimizer state, as safetensors."""
        if self.ranks.rank:
            return
        self.model.save_pretrained(folder / "model")
        self.averaged.save_pretrained(folder / "ema")
        save_file(self.moments(), folder / "optimizer.safetensors")
        counts = {"done": self.done, "averaged": int(self.ema.n_averaged)}
        (folder / "engine.json").write_text(json.dumps(counts))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            MMCoreError: a file is missing or of another model.
        """
        try:
            load_weights(self.model, folder / "model")
            load_weights(self.averaged, folder / "ema")
            tensors = load_file(folder / "optimizer.safetensors", device=str(self.device))
            counts = json.loads((folder / "engine.json").read_text())
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise MMCoreError(f"{folder}: cannot resume: {error}") from error
        self.take_moments(tensors)
        self.done = counts["done"]
        self.ema.n_averaged.fill_(counts["averaged"])
