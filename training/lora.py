"""Low-rank adapters on the core's matrices (LoRA, arXiv 2106.09685): they alone learn, all else stays.

    add_adapters(model, model.core.blocks, rank=8)   # in place; only the adapters take gradients
    weights = merged(model.state_dict())             # the same function without adapters: what a plain model loads

An adapted matrix is `W + out @ in`; `out` begins at 0, so that tuning begins at the model as it is. There is no scale
beside the learning rate. Adapters are float32, whatever the matrices are: small steps must not be rounded off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        self.lora_in = nn.Parameter(begin.to(self.weight.device))
        self.lora_out = nn.Parameter(torch.zeros(linear.out_features, rank, device=self.weight.device))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        low = F.linear(input, self.lora_in.to(input.dtype))
        return F.linear(input, self.weight, self.bias) + F.linear(low, self.lora_out.to(input.dtype))


def add_adapters(model: nn.Module, blocks: Iterable[nn.Module], rank: int) -> None:
    """Put an adapter beside every matrix of some blocks, in place, and let nothing else learn.

    Args:
        model: plain.
        blocks: of the model.
        rank: of each adapter, >= 1.
    """
    model.requires_grad_(False)
    parents = [m for block in blocks for m in block.modules() if not isinstance(m, nn.Linear)]
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
            plain[name] = (plain[name] + out @ weights[stem + IN]).to(plain[name].dtype)
    return plain
