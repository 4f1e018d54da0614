"""What drives a step: precision, gradients, optimizers, the average of weights, and the state that resumes exactly.

    engine = Engine(model, recipe)
    engine.backward(loss); norm = engine.step()
    engine.save(folder); engine.load(folder)

The loop in `training/train.py` knows nothing of this but these methods. One process, plain torch.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.training.lora import IN, OUT, AdaptedLinear, merged
from mmcore.training.muon import Muon
from mmcore.training.recipe import Recipe


def rate(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """Share of the learning rate at a step: up in a line, level, down in a line at the end."""
    return min(1.0, (step + 1) / max(warmup, 1), max(steps - step, 0) / max(cooldown, 1))


@torch.no_grad()
def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int, decay: float) -> None:
    """Move averaged weights towards the current ones, in place.

    Args:
        averaged: the average.
        current: the weights after a step.
        count: how many were averaged before; while they are few the average forgets the early ones sooner.
        decay: share of the average that stays, in the long run.
    """
    n = float(count)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))


class Engine:
    """Trains one model in one process.

    Args:
        model: fresh or loaded.
        recipe: rates, precision, seed.
        device: where to train; CUDA if there is one, else the CPU.
    """

    def __init__(self, model: MMCoreModel, recipe: Recipe, device: torch.device | str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.recipe, self.done = recipe, 0
        self.model = model.to(self.device)
        self.model.backend = recipe.attention
        chosen = recipe.optimizer
        self.ema = AveragedModel(self.model, multi_avg_fn=partial(average, decay=chosen.ema))
        matrices, rest = split_parameters(self.model)
        products = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        adam = torch.optim.AdamW(rest, lr=chosen.adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (adam,)
        if matrices:
            self.optimizers = Muon(matrices, lr=chosen.muon, weight_decay=chosen.weight_decay, dtype=products), adam
        self._rates = tuple(group["lr"] for o in self.optimizers for group in o.param_groups)
        if recipe.compile:
            for block in [*self.model.core.blocks, *self.model.decoder.blocks]:
                block.compile()

    def precision(self) -> AbstractContextManager[object]:
        """The context in which the forward pass runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients."""
        loss.backward()

    def step(self) -> float:
        """Clip, step, average.

        Returns:
            The gradient's norm before it was clipped.
        """
        chosen = self.recipe.optimizer
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), chosen.clip)
        share = rate(self.done, self.recipe.steps, chosen.warmup, chosen.cooldown)
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, full in zip(groups, self._rates, strict=True):
            group["lr"] = full * share
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.model)
        self.done += 1
        return float(norm)

    @property
    def averaged(self) -> MMCoreModel:
        """The model with averaged weights: what is sampled from and released."""
        module = self.ema.module
        assert isinstance(module, MMCoreModel)
        return module

    def save(self, folder: Path) -> None:
        """Write weights, averaged weights and optimizer state, as safetensors."""
        self.model.save_pretrained(folder / "model")
        self.averaged.save_pretrained(folder / "ema")
        tensors: dict[str, Tensor] = {}
        names = {p: name for name, p in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for p, state in optimizer.state.items():
                for key, value in state.items():
                    tensors[f"{key}/{names[p]}"] = value
        save_file(tensors, folder / "optimizer.safetensors")
        (folder / "engine.json").write_text(json.dumps({"done": self.done, "averaged": int(self.ema.n_averaged)}))

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
        for optimizer in self.optimizers:
            owned = {p for group in optimizer.param_groups for p in group["params"]}
            for name, p in self.model.named_parameters():
                state = {key.split("/")[0]: t for key, t in tensors.items() if key.partition("/")[2] == name}
                if p in owned and state:
                    optimizer.state[p] = state
        self.done = counts["done"]
        self.ema.n_averaged.fill_(counts["averaged"])


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights that a folder holds into a model, in place; all of them, and no others.

    A model without adapters takes a tuned folder's merged into its matrices.
    """
    weights: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        weights |= load_file(shard)
    adapted = any(isinstance(module, AdaptedLinear) for module in model.modules())
    model.load_state_dict(weights if adapted else merged(weights), strict=True)


def split_parameters(model: MMCoreModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices that take one vector to another, which Muon steps, and the rest: norms, the embedding, adapters."""
    learnt = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    apart = {model.embedding.weight, *(p for name, p in learnt if name.endswith((IN, OUT)))}
    chosen = {p for _, p in learnt if p.ndim == 2} - apart
    return [p for _, p in learnt if p in chosen], [p for _, p in learnt if p not in chosen]
