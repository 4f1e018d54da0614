"""A pretrained eye: a vision tower of `transformers` as a second view of the media that a model is given.

    table = read_eye(Path("siglip2-base-patch16-224"))       # MMCoreConfig(eye=table)
    visual = visual + eye(seq.looks, seq.grid, seq.is_seen)  # (B, Lc, D)

The tower is shown one square picture of each plane (the patches of a span that share their frames): the frame in the
middle of the plane's time. Its grid of features is resampled to the plane's own and added to the patches at the same
places, through a projection that begins at 0. So a fresh eye changes nothing, and there are no more positions than
without it: packing, mask, coordinates and cache know nothing of it, and the core works no harder. Positions of their
own (as BAGEL, arXiv 2505.14683) would keep more of the tower's detail, for a span of about twice the length.

Looked at is what the model is given to read. What it writes has no clean frames while it is a target, and is known once
it is written: there is no look at it in training, while a reply is written, or in the next turn, so the three agree and
nothing is decoded to be looked at.

Shapes: `n` looks, `S` their side in pixels, `g` the side of the tower's grid, `E` its width; others as in `sequence`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from mmcore.config import MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.layers import RMSNorm, ZeroLinear
from mmcore.pyramid import find_planes

AT_ONCE = 64
"""Looks that go through the tower together, but in training: memory does not follow the length of a clip."""

MEANS = "preprocessor_config.json"
"""Where a tower's folder says how its pixels are scaled."""


class Eye(nn.Module):
    """A vision tower and the way from its features into the core.

    Args:
        config: of the model; `eye` says which tower.
    """

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__()
        self.scales = config.eye["mean"], config.eye["std"]
        self.tower = AutoModel.from_config(tower_config(config.eye["tower"]), trust_remote_code=False)
        width, self.patch = self.tower.config.hidden_size, self.tower.config.patch_size
        self.grid = config.look // self.patch
        self.norm = RMSNorm(width, eps=config.norm_eps)
        self.project = ZeroLinear(width, config.width)

    def features(self, looks: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, g, g, E), the tower's last hidden states; tokens before the grid are left aside.

        Raises:
            MMCoreError: it has fewer tokens than patches.
        """
        mean, std = (torch.tensor(scale, device=looks.device) for scale in self.scales)
        pixels = (looks.float() / 255 - mean) / std
        at_once = len(pixels) if self.training else AT_ONCE
        found = [self._run(some.permute(0, 3, 1, 2)) for some in pixels.split(at_once)]
        states = torch.cat(found)
        if states.ndim != 3 or states.shape[1] < self.grid**2:
            raise MMCoreError(
                f"{type(self.tower).__name__}: last_hidden_state is {tuple(states.shape)}, a vector for each of "
                f"{self.grid} x {self.grid} patches is expected; choose another vision tower"
            )
        return states[:, -(self.grid**2) :].unflatten(1, (self.grid, self.grid))

    def _run(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) -> (n, tokens, E)."""
        pixels = pixels.to(self.project.weight.dtype)
        if "spatial_shapes" not in inspect.signature(self.tower.forward).parameters:
            return self.tower(pixels).last_hidden_state
        patches = rearrange(pixels, "n c (y p) (x q) -> n (y x) (p q c)", p=self.patch, q=self.patch)
        shapes = torch.full((len(pixels), 2), self.grid, device=pixels.device)
        mask = torch.ones(patches.shape[:2], dtype=torch.int64, device=pixels.device)
        return self.tower(patches, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state

    def forward(self, looks: Tensor, grid: Tensor, is_seen: Tensor) -> Tensor:
        """What is added to context patches: (B, Lc, D), zeros where nothing is seen.

        Each weight is used once, whatever there is to see, so that ranks that share their weights do so together.

        Args:
            looks: (n, S, S, 3) uint8, one for each plane that is seen, in the order of the lane, row by row. In
                training there may be none; then one that is black is looked at, and not used.
            grid: (B, Lc, 3) coordinates in patches.
            is_seen: (B, Lc) bool, the patches of those planes.
        """
        side = self.grid * self.patch
        features = self.features(looks if len(looks) else looks.new_zeros(1, side, side, 3)).float()
        features = rearrange(features, "n y x e -> n e y x")
        out = features.new_zeros(*is_seen.shape, self.project.out_features)
        groups = find_planes(grid, is_seen)
        if not groups:
            return out + 0 * self._said([features])[0].sum()
        sizes = [len(group.where) for group in groups]
        order = torch.cat([group.where[:, 0] for group in groups]).argsort().argsort().split(sizes)
        seen = [
            F.interpolate(features[places], group.size, mode="bilinear", antialias=True)
            for group, places in zip(groups, order, strict=True)
        ]
        for group, said in zip(groups, self._said(seen), strict=True):
            out = group.write(out, said)
        return out

    def _said(self, seen: list[Tensor]) -> list[Tensor]:
        """Features (n, E, Y, X) of several sizes, through norm and projection together: each (n, Y, X, D)."""
        rows = [rearrange(part, "n e y x -> (n y x) e") for part in seen]
        said = self.project(self.norm(torch.cat(rows).to(self.project.weight.dtype))).split([len(r) for r in rows])
        return [s.unflatten(0, (len(part), *part.shape[2:])) for s, part in zip(said, seen, strict=True)]


def tower_config(table: dict[str, Any]) -> Any:
    """A configuration of `transformers`, by its `model_type`; code from elsewhere is never run."""
    return AutoConfig.for_model(**table)


def read_eye(folder: Path) -> dict[str, Any]:
    """What a vision tower is, as `MMCoreConfig.eye` holds it: its configuration, side in pixels, and their scale.

    Args:
        folder: of the tower, or of a model that has one beside a text tower (SigLIP, CLIP).
    Raises:
        MMCoreError: a file is missing or broken, or this is no vision tower with one square grid of patches.
    """
    path = folder / "config.json"
    table = _table(path)
    kind = table.get("model_type")
    try:
        config = tower_config(table)
        config = getattr(config, "vision_config", config)
        patch, width = config.patch_size, config.hidden_size
        side = getattr(config, "image_size", None) or patch * round(config.num_patches**0.5)
        assert isinstance(patch, int) and isinstance(side, int) and isinstance(width, int) and not side % patch
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise MMCoreError(
            f"{path}: a vision tower with square patches (SigLIP 2, CLIP, DINOv2) is expected, this is {kind!r}"
        ) from error
    common = PretrainedConfig().to_dict().keys() - {"model_type"}
    tower = {k: v for k, v in config.to_dict().items() if k not in common}
    scale = _table(folder / MEANS)
    try:
        mean, std = (list(map(float, scale[f"image_{name}"])) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise MMCoreError(f"{folder / MEANS}: image_mean and image_std of three colours are expected") from error
    return {"tower": tower, "side": side, "mean": mean, "std": std}


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text())
        if not isinstance(table, dict):
            raise ValueError("a table is expected")
        return table
    except FileNotFoundError as error:
        raise MMCoreError(f"{path.parent}: no {path.name} here: not a vision tower, or not all was copied") from error
    except (OSError, ValueError) as error:
        raise MMCoreError(f"{path}: cannot read it: {error}") from error
