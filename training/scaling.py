"""How the loss falls with size and data, fitted to runs of several sizes: L(N, D) = E + A / N^alpha + B / D^beta.

    mmcore scaling runs/a runs/b runs/c runs/d --loss valid_text --out scaling.png

N is a model's parameters, D the tokens it was trained on (positions that hold something, of text and media alike). Form
and fit are the third approach of arXiv 2203.15556: Huber's loss between logarithms, L-BFGS from many starts. Points are
all lines of the logs that were written while the learning rates were constant: there a run is as good as one that ends
just then, before its rates fall (arXiv 2405.18392), so that a few runs are enough.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.training.curves import Curve, Panel, draw, labels
from mmcore.training.log import read_log
from mmcore.training.recipe import Recipe
from mmcore.training.subjects import shape
from mmcore.training.tables import from_table

HUBER = 1e-3
"""Where Huber's loss turns from squares to distances, in the logarithm of the loss."""

EXPONENTS = np.linspace(0.1, 1.5, 15)
"""Of which pairs the fit may begin."""

STARTS = 4
"""It begins from so many of the best of them."""


@dataclass(frozen=True)
class Points:
    """Losses that were measured: three arrays (n,).

    Args:
        sizes: N, parameters.
        tokens: D.
        losses: L, above 0.
    """

    sizes: np.ndarray
    tokens: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Law:
    """L(N, D) = floor + a / N^alpha + b / D^beta."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, sizes: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        """The loss of models of some sizes after some tokens; arrays broadcast."""
        return np.asarray(self.floor + self.a / np.power(sizes, self.alpha) + self.b / np.power(tokens, self.beta))

    def error(self, points: Points) -> float:
        """The root mean square of the relative error."""
        return float(np.sqrt(np.mean((self(points.sizes, points.tokens) / points.losses - 1) ** 2)))

    @property
    def share(self) -> float:
        """With compute C, and C as N times D, the best N grows as C to this power, and D as C to the rest."""
        return self.beta / (self.alpha + self.beta)


def read_points(runs: Sequence[Path], loss: str) -> Points:
    """What runs' logs say of one loss, where the learning rates were constant.

    Args:
        runs: folders.
        loss: the log's key: "valid_text", "valid_flow", "text" or "flow".
    Raises:
        MMCoreError: a folder holds no run, or its log has no such line.
    """
    found: list[tuple[float, float, float]] = []
    for run in runs:
        try:
            recipe = from_table(Recipe, json.loads((run / "recipe.json").read_text()), f"{run}/recipe.json")
        except (OSError, ValueError) as error:
            raise MMCoreError(f"{run}: no run here, or its recipe.json cannot be read: {error}") from error
        with torch.device("meta"):
            size = sum(p.numel() for p in MMCoreModel(shape(recipe)).parameters())
        rates = recipe.optimizer
        lines = [
            (size, line["tokens"], line[loss])
            for line in read_log(run)
            if loss in line and line.get("tokens", 0) and rates.warmup < line["step"] <= recipe.steps - rates.cooldown
        ]
        if not lines:
            raise MMCoreError(
                f"{run}: no line of its log has {loss} and tokens, from step {rates.warmup} to "
                f"{recipe.steps - rates.cooldown}, where rates are constant; see validation.every, optimizer.cooldown"
            )
        found += lines
    return Points(*np.array(found, dtype=float).T)


def fit(points: Points) -> Law:
    """The law that is closest to some points.

    Raises:
        MMCoreError: they are fewer than the law's five numbers, or of less than three sizes, which leave open what of
            the loss is the floor and what is the size's.
    """
    if len(points.losses) < 5 or len(np.unique(points.sizes)) < 3:
        raise MMCoreError(
            f"{len(points.losses)} points of {len(np.unique(points.sizes))} sizes; the law has five numbers: give runs "
            "of at least three sizes, better four, with several lines each"
        )
    middle = [float(np.exp(np.mean(np.log(x)))) for x in (points.sizes, points.tokens)]
    n, d = points.sizes / middle[0], points.tokens / middle[1]
    starts = sorted((_linear(n, d, points.losses, *pair) for pair in product(EXPONENTS, EXPONENTS)), key=lambda s: s[0])
    refined = [_refined(n, d, points.losses, start) for _, start in starts[:STARTS]]
    floor, a, b, alpha, beta = min(refined, key=lambda found: found[0])[1].tolist()
    return Law(floor, a * middle[0] ** alpha, alpha, b * middle[1] ** beta, beta)


def _linear(n: np.ndarray, d: np.ndarray, losses: np.ndarray, alpha: float, beta: float) -> tuple[float, np.ndarray]:
    """For given exponents the other three, none of them negative, by least squares of the relative error.

    Returns:
        The error, and (floor, a, b, alpha, beta).
    """
    columns = np.stack((np.ones_like(n), n**-alpha, d**-beta), 1) / losses[:, None]
    best, chosen = np.inf, np.zeros(3)
    for used in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):
        weights = np.linalg.lstsq(columns[:, used], np.ones_like(n), rcond=None)[0]
        error = float(np.square(columns[:, used] @ weights - 1).sum())
        if (weights >= 0).all() and error < best:
            best, chosen = error, np.zeros(3)
            chosen[used] = weights
    return best, np.array([*chosen, alpha, beta])


def _refined(n: np.ndarray, d: np.ndarray, losses: np.ndarray, start: np.ndarray) -> tuple[float, np.ndarray]:
    """All five numbers, by L-BFGS on the Huber loss between logarithms; returns that loss and them."""
    log_n, log_d, target = (torch.from_numpy(np.log(x)) for x in (n, d, losses))
    free = torch.from_numpy(np.concatenate((np.log(np.maximum(start[:3], 1e-9)), start[3:]))).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free], max_iter=1000, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def error() -> Tensor:
        floor, a, b, alpha, beta = free
        terms = (floor.expand_as(log_n), a - alpha * log_n, b - beta * log_d)
        return F.huber_loss(torch.stack(terms).logsumexp(0) / HUBER, target / HUBER)

    def closure() -> float:
        optimizer.zero_grad()
        value = error()
        value.backward()
        return value.item()

    optimizer.step(closure)
    numbers = free.detach().numpy()
    return error().item(), np.concatenate((np.exp(numbers[:3]), numbers[3:]))


def picture(points: Points, law: Law, loss: str, path: Path) -> None:
    """Draw points and law, the loss over tokens for each size, to a PNG, whole or not at all.

    Raises:
        MMCoreError: it cannot be written.
    """
    curves: list[Curve] = []
    sizes = np.unique(points.sizes)
    for colour, (size, name) in enumerate(zip(sizes, labels(sizes.tolist()), strict=True)):
        own = points.sizes == size
        grid = np.geomspace(points.tokens.min(), points.tokens.max(), 60)
        measured = zip(points.tokens[own].tolist(), points.losses[own].tolist(), strict=True)
        curves.append(Curve(name, list(measured), dots=True, colour=colour))
        curves.append(Curve("", list(zip(grid.tolist(), law(size, grid).tolist(), strict=True)), colour=colour))
    partial = path.with_name(f".{path.name}.part")
    try:
        draw([Panel(f"{loss} over tokens", curves, log_x=True, log_y=True)]).save(partial, "PNG")
        partial.rename(path)
    except OSError as error:
        raise MMCoreError(f"{path}: cannot write the picture: {error.strerror or error}") from error


def table(points: Points, law: Law) -> str:
    """A fit for people."""
    return "\n".join(
        [
            f"{'L(N, D)':12} {law.floor:.4g} + {law.a:.4g} / N^{law.alpha:.3f} + {law.b:.4g} / D^{law.beta:.3f}",
            f"{'points':12} {len(points.losses)} of {len(np.unique(points.sizes))} sizes",
            f"{'error':12} {law.error(points):.2%} (root mean square, of these very points)",
            f"{'best':12} N grows as C^{law.share:.2f}, D as C^{1 - law.share:.2f}, if compute C grows as N times D",
        ]
    )
