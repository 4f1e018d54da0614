"""Weights in 8 or 4 bits, for small devices: whole numbers and their scales, made a matrix again at each use.

    quantize(model, "int8")                  # in place; everything else stays as it is
    model.core.blocks[0].text.up.weight      # what its numbers stand for, in the dtype of their scales

It is a parametrization of `weight` (`torch.nn.utils.parametrize`), so that whatever reads the weight of a linear layer,
convolutions of the pyramid and other families among them, works as before. Computing stays in floating point: memory
and files shrink, time does not. Embeddings and text heads stay as they are.

Shapes: `O` rows (out), `I` columns (in), `S` columns of one scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmcore.errors import MMCoreError

GROUP = 32
"""Columns that share a scale in 4 bits."""

HEADS = ("head", "lm_head")
"""Names of text heads, as long as the vocabulary."""

STORED = ".parametrizations."
"""Part of the names of numbers and scales in a model's state."""


class Int8(nn.Module):
    """-127 to 127, a scale for each row."""

    columns = 1
    """Row lengths that it takes are multiples of it."""

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(O, I) -> numbers (O, I) int8 and scales (O, 1)."""
        scale = scale_of(weight, 127)
        return (weight / scale).round().to(torch.int8), scale

    def forward(self, numbers: Tensor, scale: Tensor) -> Tensor:
        """Numbers and scales -> (O, I) in the dtype of the scales."""
        return numbers.to(scale.dtype).mul_(scale)


class Int4(nn.Module):
    """-7 to 7, a scale for each group of columns; two numbers to a byte, those of a group's halves."""

    columns = GROUP

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(O, I) -> bytes (O, I / GROUP, GROUP / 2) uint8 and scales (O, I / GROUP, 1)."""
        groups = weight.unflatten(1, (-1, GROUP))
        scale = scale_of(groups, 7)
        low, high = ((groups / scale).round() + 8).to(torch.uint8).chunk(2, -1)
        return low | high << 4, scale

    def forward(self, numbers: Tensor, scale: Tensor) -> Tensor:
        """Bytes and scales -> (O, I) in the dtype of the scales."""
        halves = torch.cat((numbers & 15, numbers >> 4), -1).to(scale.dtype)
        return halves.sub_(8).mul_(scale).flatten(1)


KINDS: dict[str, type[Int8] | type[Int4]] = {"int8": Int8, "int4": Int4}


def scale_of(weight: Tensor, most: int) -> Tensor:
    """The step between two numbers so that the largest weight of each row (..., S) is `most` steps: (..., 1).

    It is rounded to bfloat16, so that files keep it exactly; 1 where all weights are 0.
    """
    step = weight.abs().amax(-1, keepdim=True) / most
    return torch.where(step == 0, 1, step).bfloat16().to(weight.dtype)


@torch.no_grad()
def quantize(model: nn.Module, kind: str) -> None:
    """Store the matrices of a model's linear layers in few bits, in place; they take no gradients any more.

    Args:
        model: any. Text heads stay as they are, and matrices whose rows are no whole number of groups.
        kind: one of `KINDS`.
    Raises:
        MMCoreError: another kind, or the model is quantized already.
    """
    if kind not in KINDS:
        raise MMCoreError(f"quantize must be one of {', '.join(KINDS)}, got {kind!r}")
    if there := kind_of(model):
        raise MMCoreError(f"the model is quantized already, to {there}; load the full weights to have {kind}")
    made = KINDS[kind]
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and not layer.in_features % made.columns and name.split(".")[-1] not in HEADS:
            layer.weight.requires_grad_(False)
            parametrize.register_parametrization(layer, "weight", made(), unsafe=True)


def kind_of(model: nn.Module) -> str:
    """How a model is quantized, one of `KINDS`; "" if it is not."""
    found = (kind for layer in model.modules() for kind, made in KINDS.items() if isinstance(layer, made))
    return next(found, "")


def count_weights(model: nn.Module) -> int:
    """How many weights a model has, however they are stored."""
    matrices = [m for m in model.modules() if isinstance(m, nn.Linear) and parametrize.is_parametrized(m, "weight")]
    others = (p.numel() for name, p in model.named_parameters() if STORED not in name)
    return sum(others) + sum(m.in_features * m.out_features for m in matrices)
