"""What steps the weights: which optimizer takes which, at what rate, and the average that is kept of them.

    optimizer = make_optimizer(model, recipe)
    share = rate(step, steps, warmup, cooldown)
    average(averaged, current, count, decay)

Muon takes the matrices and AdamW the rest; where `optimizer.muon` is 0, AdamW takes everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.model import MMCoreModel, part_of
from mmcore.training.lora import IN, OUT, add_adapters
from mmcore.training.muon import Muon
from mmcore.training.recipe import Recipe

Tensors = list[Tensor] | tuple[Tensor, ...]


def rate(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """Share of the learning rate at a step: up in a line, level, down in a line at the end."""
    return min(1.0, (step + 1) / max(warmup, 1), max(steps - step, 0) / max(cooldown, 1))


@torch.no_grad()
def average(averaged: Tensors, current: Tensors, count: Tensor | int, decay: float) -> None:
    """Move averaged weights towards the current ones, in place.

    Args:
        averaged: the average.
        current: the weights after a step.
        count: how many were averaged before; while they are few the average forgets the early ones sooner.
        decay: share of the average that stays, in the long run.
    """
    n = float(count)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices that take one vector to another, which Muon steps, and the rest: norms, words, adapters."""
    learnt = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    apart = {p for name, p in learnt if name.endswith((IN, OUT)) or name.startswith(("embedding.", "head."))}
    chosen = {p for _, p in learnt if p.ndim == 2} - apart
    return [p for _, p in learnt if p in chosen], [p for _, p in learnt if p not in chosen]


def share_of(rates: Mapping[str, float], name: str) -> float:
    """The share of the learning rate that a weight takes (see `Recipe.rates`)."""
    part = part_of(name)
    return rates.get(part, 0.0 if part == "eye" else 1.0)


def let_learn(model: MMCoreModel, recipe: Recipe) -> None:
    """Let only that learn which a recipe wants to: adapters alone where it has `lora`, no part whose rate is 0.

    Args:
        model: plain; adapters are put into it.
        recipe: says which.
    """
    if recipe.lora:
        add_adapters(model, model.core.blocks, recipe.lora)
    for name, p in model.named_parameters():
        if not share_of(recipe.rates, name):
            p.requires_grad_(False)


class Several(torch.optim.Optimizer):
    """Optimizers of different weights as one: it holds all of their groups and all of their state.

    Args:
        parts: the optimizers; no weight is in two of them.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = tuple(parts)
        for part in parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each."""
        assert closure is None
        for part in self.parts:
            part.step()


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer that a recipe asks for, at its full rates.

    Args:
        model: on the device where it is trained.
        recipe: rates, weight decay, and the precision of Muon's products.
    """
    chosen = recipe.optimizer
    matrices, rest = split_parameters(model)
    share = {p: share_of(recipe.rates, name) for name, p in model.named_parameters()}

    def groups(params: list[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
        shares = dict.fromkeys(share[p] for p in params)
        alike = {s: [p for p in params if share[p] == s] for s in shares}
        return [{"params": some, "lr": rate * s, "weight_decay": decay} for s, some in alike.items()]

    slow = groups(rest, chosen.adam, 0.0)
    if not chosen.muon or not matrices:
        return torch.optim.AdamW(
            [*groups(matrices, chosen.adam, chosen.weight_decay), *slow], betas=(0.9, 0.95), fused=True
        )
    products = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    muon = Muon(groups(matrices, chosen.muon, chosen.weight_decay), dtype=products)
    return Several((muon, *([torch.optim.AdamW(slow, betas=(0.9, 0.95), fused=True)] if slow else [])))
