"""Muon: momentum whose matrix is made orthogonal before each step, for all matrices but embeddings.

K. Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024). `torch.optim.Muon` goes through one matrix
at a time; here all matrices of one shape are stacked, which makes a step of many small ones several times cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz step that Muon's author found: fast, and near enough to orthogonal."""


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32, steps: int = 5) -> Tensor:
    """The nearest orthogonal matrices, roughly: all singular values come to lie in about [0.7, 1.2].

    Args:
        matrices: (S, R, C) a stack.
        dtype: of the products; bfloat16 is enough.
        steps: Newton-Schulz steps, X <- p(X X^T) X with p(G) = a + b G + c G^2.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over matrices, equal shapes together.

    Args:
        params: matrices (R, C), or groups of them.
        lr: step length; an update has a spectral norm of about lr * sqrt(max(1, R / C)).
        momentum: of the Nesterov average of gradients.
        weight_decay: decoupled, times lr.
        dtype: in which matrices are made orthogonal.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                moments = [self._moment(p) for p in params]
                grads = [p.grad for p in params if p.grad is not None]
                torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
                nesterov = torch._foreach_lerp(grads, moments, group["momentum"])
                update = orthogonalize(torch.stack(tuple(nesterov)), self.dtype)
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                scale = max(1, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(params, list(update.unbind()), alpha=-group["lr"] * scale)

    def _moment(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["moment"] = torch.zeros_like(p)
        return state["moment"]
