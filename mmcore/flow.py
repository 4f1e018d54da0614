"""The flow path from noise to data, the loss, and the samplers: pure functions with an explicit generator.

    x_t = t * data + (1 - t) * noise,   t = 0 noise, t = 1 data,   velocity = data - noise = (x - x_t) / (1 - t)

The model predicts the clean `x`; loss and samplers work on the velocity that follows from it (JiT, arXiv 2511.13720).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

MIN_REST = 0.05
"""1 - t is not taken smaller than this where it divides."""

Model = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, N, P), t (B,)) -> predicted clean x (B, N, P)."""


def interpolate(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t on the straight path; `t` broadcasts against both."""
    return t * data + (1 - t) * noise


def velocity(x: Tensor, x_t: Tensor, t: Tensor, rest: float = MIN_REST) -> Tensor:
    """The velocity that leads from x_t at time t to a clean x; 1 - t is not taken smaller than `rest`."""
    return (x - x_t) / (1 - t).clamp_min(rest)


def sample_levels(shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Noise levels for training, logit-normal (arXiv 2403.03206): sigmoid(mean + std * n), n standard normal.

    A pixel patch of thousands of numbers shows its colour through a lot of noise: what a picture is of is decided while
    t is a few hundredths, and a mean far below 0 is what makes a model learn to decide it.
    """
    return torch.sigmoid(mean + std * torch.randn(shape, generator=generator, device=generator.device))


def velocity_loss(predicted: Tensor, data: Tensor, t: Tensor, rest: float = MIN_REST) -> Tensor:
    """Squared error of the velocity, for a predicted clean x: (x_hat - x)^2 / (1 - t)^2, averaged over P.

    Args:
        predicted: (..., P) the model's clean x.
        data: (..., P) the true one.
        t: (...) noise levels.
        rest: 1 - t is not taken smaller than this, so that a few nearly clean spans do not outweigh a small batch.
    Returns:
        (...) float32.
    """
    error = (predicted.float() - data.float()).square().mean(-1)
    return error / (1 - t).clamp_min(rest).square()


def schedule(steps: int, shift: float = 1.0) -> Tensor:
    """`steps + 1` times from 0 to 1, so that there are `steps` steps.

    Args:
        steps: at least 1.
        shift: above 1 puts more of the steps near the noise (arXiv 2403.03206, eq. 23).
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return (t / (t + shift * (1 - t))).float()


Sampler = Callable[[Model, Tensor, Tensor, float], Iterator[tuple[Tensor, Tensor]]]
"""(model, noise, times, rest) -> after each step (x_t, the predicted clean x, which is the preview).

`rest` is as in `velocity`; 0 gives the steps of a model that predicts velocities."""


def euler(model: Model, x: Tensor, times: Tensor, rest: float = MIN_REST) -> Iterator[tuple[Tensor, Tensor]]:
    """First order. The last step lands on the model's clean prediction."""
    for t, s in pairwise(times):
        clean = model(x, t.expand(len(x)))
        x = clean if s == 1 else x.lerp(clean, (s - t) / (1 - t).clamp_min(rest))  # x + (s - t) velocity
        yield x, clean


def heun(model: Model, x: Tensor, times: Tensor, rest: float = MIN_REST) -> Iterator[tuple[Tensor, Tensor]]:
    """Second order (arXiv 2206.00364): two calls a step, but for the last."""
    for t, s in pairwise(times):
        clean = model(x, t.expand(len(x)))
        if s == 1:
            x = clean
        else:
            first = velocity(clean, x, t, rest)
            ahead = x + (s - t) * first
            second = velocity(model(ahead, s.expand(len(x))), ahead, s, rest)
            x = x + (s - t) * (first + second) / 2
        yield x, clean


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun}
