"""Lance (arXiv 2605.18678): BAGEL's two experts, for clips as well as pictures.

    model = load_lance(folder)
    hidden = model(lay_out([strand], model.embed_tokens.weight))

What the tower of Qwen2.5-VL sees goes into the core as it is; latents are those of Wan 2.2's autoencoder, one a token,
and positions are Qwen2.5-VL's (t, h, w). Shapes: `D` width, `N` latent tokens, `P` numbers in each, `T Y X` their grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcore.errors import MMCoreError
from mmcore.families.bagel import read_json
from mmcore.families.experts import Shape
from mmcore.families.pair import RELEASED, Pair, renamed
from mmcore.families.qwen_tower import ClipTower
from mmcore.families.shards import shards, tensor_names
from mmcore.families.spread import Where, main_device
from mmcore.families.weights import fill
from mmcore.sequence import Grid, patch_coords

TOWER = "Qwen2.5-VL-ViT"
"""The folder of the vision tower, inside the model's or beside it."""


@dataclass(frozen=True)
class LanceConfig:
    """What the released configuration says, and what the reference is told on its command line.

    Args:
        shape: sizes of the core.
        vocabulary: number of token ids.
        theta: base of the rotary frequencies.
        sections: how many of them turn with t, h and w.
        context: most positions that a document may take.
        vision: fields of the tower's configuration.
        stride: rotary positions from one time step of a medium to the next.
        channels: of a latent.
        largest: the most rows or columns of latents.
        longest: the most frames of a clip.
    """

    shape: Shape
    vocabulary: int
    theta: float
    sections: tuple[int, int, int]
    context: int
    vision: dict[str, Any]
    stride: int = 2
    channels: int = 48
    largest: int = 64
    longest: int = 121

    @classmethod
    def read(cls, folder: Path) -> LanceConfig:
        """Read `llm_config.json`, and the tower's `config.json` where there is one.

        Raises:
            MMCoreError: a file is missing or broken, or lacks a field.
        """
        text = read_json(folder / "llm_config.json")
        tower = companion(folder, TOWER) / "config.json"
        try:
            vision = read_json(tower) if tower.is_file() else text["vision_config"]
            time, rows, columns = text["rope_scaling"]["mrope_section"]
            return cls(
                Shape.read(text),
                text["vocab_size"],
                text["rope_theta"],
                (time, rows, columns),
                text["max_position_embeddings"],
                vision.get("vision_config", vision),
                text.get("vision_config", {}).get("tokens_per_second", cls.stride),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MMCoreError(f"{folder}: its configuration is incomplete: {error!r}; copy the folder again") from error


def companion(folder: Path, name: str) -> Path:
    """A part that several models share: inside a model's folder, or beside it."""
    return folder / name if (folder / name).exists() else folder.parent / name


@lru_cache(maxsize=4)
def waves(grid: Grid, width: int) -> Tensor:
    """Sines and cosines of the places of a grid: (T * Y * X, width) float32.

    A third of the width (the even number below it) tells the frame, as much the row, the rest the column.
    """
    third = width // 3 // 2 * 2
    parts = []
    for place, n in zip(patch_coords(grid).T, (third, third, width - 2 * third), strict=True):
        angle = place[:, None] * 10000.0 ** -(np.arange(n // 2) / (n / 2))
        parts += [np.sin(angle), np.cos(angle)]
    return torch.from_numpy(np.concatenate(parts, 1)).float()


def block_places(position: int, grid: Grid, stride: int) -> np.ndarray:
    """Rotary positions (N + 2, 3) of a medium: what opens it, its tokens, what closes it; text goes on behind the last.

    Args:
        position: of what opens it.
        grid: (T, Y, X) of its tokens.
        stride: positions from one time step to the next.
    """
    inside = patch_coords(grid) * (stride, 1, 1) + position + 1
    return np.concatenate((np.full((1, 3), position), inside, np.full((1, 3), inside.max() + 1)))


class Lance(Pair):
    """The network.

    Args:
        config: its shape.
    """

    def __init__(self, config: LanceConfig) -> None:
        super().__init__(config.shape, config.vocabulary, config.theta, config.sections, config.channels)
        self.config = config
        self.tower = ClipTower(config.vision)

    def look(self, clip: Tensor) -> Tensor:
        """A clip (3, T, H, W) as the tower takes it -> what the core sees of it, (n, D)."""
        return self.tower(clip)

    def latents(self, x: Tensor, level: Tensor, grid: Grid) -> Tensor:
        """Latent tokens (..., N, P) by frame, row and column, with a noise level each (..., N) -> (..., N, D)."""
        dtype = self.latent_in.weight.dtype
        places = waves(grid, self.shape.width).to(x.device, dtype)
        return self.latent_in(x.to(dtype)) + self.level(level) + places


NAMES = (*RELEASED, (r"^tower\.layers\.", "vit_model."))
"""Our names of parameters, and the released ones."""

WEIGHTS = ("model.safetensors", "ema.safetensors")
"""The file of weights; the first that is there, itself or its index, is taken."""


def load_lance(folder: Path, device: Where = "cpu") -> Lance:
    """The network of a released folder, in the dtype it was saved in.

    The tower's weights lie among the others as `vit_model.*`, or in `vit.safetensors` in the folder of the tower. A
    table of places among the weights is not read: it is computed for any size.

    Raises:
        MMCoreError: a file is missing or broken, or tensors do not fit.
    """
    with torch.device("meta"):
        model = Lance(LanceConfig.read(folder))
    files = shards(folder, WEIGHTS)
    whole = any(name.startswith("vit_model.") for path in files for name in tensor_names(path))
    tower = model.tower
    if not whole:
        del model.tower
    fill(model, files, lambda ours: renamed(ours, NAMES), device=device, needless=("latent_pos_embed.",))
    if not whole:
        fill(tower.layers, shards(companion(folder, TOWER), ("vit.safetensors",)), lambda ours: ours, device=device)
        model.tower = tower
    tower.settle(main_device(device))
    return model.eval()
