"""Low-rank adapters on the core's matrices (LoRA, arXiv 2106.09685): they alone learn, all else stays.

    add_adapters(model, rank=8)          # in place; only the adapters take gradients
    weights = merged(model.state_dict()) # the same function without adapters: what a plain model loads

An adapted matrix is `W + out @ in`; `out` begins at 0, so that tuning begins at the model as it is. There is no scale
beside the learning rate.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore.model import MMCoreModel

IN, OUT = "lora_in", "lora_out"
"""Names of an adapter's two matrices, beside `weight`."""


class AdaptedLinear(nn.Linear):
    """A matrix that stays as it is, with a low-rank one beside it that learns.

    Args:
        linear: its weight is shared, not copied.
        rank: of the adapter, >= 1.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        begin = torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features)
        self.lora_in = nn.Parameter(begin.to(self.weight))
        self.lora_out = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(input, self.weight, self.bias) + F.linear(F.linear(input, self.lora_in), self.lora_out)


def add_adapters(model: MMCoreModel, rank: int) -> None:
    """Put an adapter beside every matrix of the core's blocks, in place, and let nothing else learn.

    Args:
        model: plain.
        rank: of each adapter, >= 1.
    """
    model.requires_grad_(False)
    parents = [m for m in model.core.blocks.modules() if not isinstance(m, nn.Linear)]
    for parent in parents:
        for name, linear in list(parent.named_children()):
            if isinstance(linear, nn.Linear):
                setattr(parent, name, AdaptedLinear(linear, rank))


def merged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with every adapter added to its matrix; as they are where there is none.

    Args:
        weights: names to tensors, as in a model's state.
    """
    plain = {name: w for name, w in weights.items() if name.rpartition(".")[2] not in (IN, OUT)}
    for name in plain:
        stem = name.removesuffix("weight")
        if (out := weights.get(stem + OUT)) is not None:
            plain[name] = plain[name] + out @ weights[stem + IN]
    return plain
