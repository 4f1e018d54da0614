"""BAGEL (arXiv 2505.14683): one core with two experts, a SigLIP tower to see by, latents of an autoencoder to draw by.

    model = load_bagel(folder)
    hidden = model(lay_out([strand], model.embed_tokens.weight))

Text, what the tower sees and the markers around every picture go to the first expert, latents to the second. A
picture's tokens, markers included, share one rotary position. Shapes: `D` width, `N` latent tokens, `P` numbers in
each, `h w` their rows and columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore.errors import MMCoreError
from mmcore.families.embedding import Places
from mmcore.families.experts import Shape
from mmcore.families.pair import RELEASED, Pair, renamed
from mmcore.families.shards import shards
from mmcore.families.siglip import Tower
from mmcore.families.spread import Where
from mmcore.families.weights import fill


@dataclass(frozen=True)
class BagelConfig:
    """What the released configuration files say.

    Args:
        shape: sizes of the core.
        vocabulary: number of token ids.
        theta: base of the rotary frequencies.
        context: most positions that a document may take.
        vision: fields of the tower's `SiglipVisionConfig`.
        patch: rows and columns of latents in one latent token.
        channels: of a latent.
        downsample: pixels along one side of a latent.
        places: rows and columns of the latent tokens' position table.
        tower_places: rows and columns of the tower's position table.
    """

    shape: Shape
    vocabulary: int
    theta: float
    context: int
    vision: dict[str, Any]
    patch: int = 2
    channels: int = 16
    downsample: int = 8
    places: int = 64
    tower_places: int = 70

    @classmethod
    def read(cls, folder: Path) -> BagelConfig:
        """Read `llm_config.json` and `vit_config.json`, and `config.json` for what departs from the 7B model.

        Raises:
            MMCoreError: a file is missing or broken, or lacks a field.
        """
        text, vision = (read_json(folder / name) for name in ("llm_config.json", "vit_config.json"))
        rest = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
        vae = rest.get("vae_config", {})
        try:
            return cls(
                Shape.read(text),
                text["vocab_size"],
                text["rope_theta"],
                text["max_position_embeddings"],
                vision,
                rest.get("latent_patch_size", cls.patch),
                vae.get("z_channels", cls.channels),
                vae.get("downsample", cls.downsample),
                rest.get("max_latent_size", cls.places),
                rest.get("vit_max_num_patch_per_side", cls.tower_places),
            )
        except KeyError as error:
            raise MMCoreError(f"{folder}: its configuration lacks {error}; copy the folder again") from error

    @property
    def patch_width(self) -> int:
        """`P`."""
        return self.patch**2 * self.channels


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        MMCoreError: it is missing or broken.
    """
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MMCoreError(f"{path}: cannot read: {error}; copy the folder again") from error
    if not isinstance(read, dict):
        raise MMCoreError(f"{path}: an object is expected; copy the folder again")
    return read


class Connector(nn.Module):
    """From the tower's width to the core's."""

    def __init__(self, seen: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(seen, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, seen) -> (n, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Bagel(Pair):
    """The network.

    Args:
        config: its shape.
    """

    def __init__(self, config: BagelConfig) -> None:
        half, width = config.shape.head_width // 2, config.shape.width
        super().__init__(config.shape, config.vocabulary, config.theta, (half, 0, 0), config.patch_width)
        self.config = config
        self.tower = Tower(config.vision, config.tower_places, config.vision["num_hidden_layers"] - 1)
        self.connector = Connector(config.vision["hidden_size"], width)
        self.tower_places = Places(config.tower_places, width)
        self.latent_places = Places(config.places, width)

    def look(self, pixels: Tensor) -> Tensor:
        """A picture (3, H, W) in [-1, 1], sides multiples of 14 -> what the core sees of it, (n, D)."""
        return self.connector(self.tower(pixels)) + self.tower_places(self.tower.grid(pixels))

    def latents(self, x: Tensor, level: Tensor, grid: tuple[int, int]) -> Tensor:
        """Latent tokens (..., N, P), row by row, at the noise levels (...) -> (..., N, D). Clean ones have level 0."""
        noise = self.level(level)[..., None, :]
        return self.latent_in(x.to(self.latent_in.weight.dtype)) + noise + self.latent_places(grid)


NAMES = (
    *RELEASED,
    (r"^tower\.(patch_embedding|position_embedding)", r"vit_model.vision_model.embeddings.\1"),
    (r"^tower\.", "vit_model.vision_model."),
    (r"^tower_places", "vit_pos_embed"),
    (r"^latent_places", "latent_pos_embed"),
)
"""Our names of parameters, and the released ones."""

WEIGHTS = ("ema.safetensors", "model.safetensors")
"""The file of weights; the first that is there, itself or its index, is taken."""


def load_bagel(folder: Path, device: Where = "cpu") -> Bagel:
    """The network of a released folder (`ema.safetensors`, or what `mmcore export` wrote, and JSON files), in the dtype
    it was saved in.

    Raises:
        MMCoreError: a file is missing or broken, or tensors do not fit.
    """
    with torch.device("meta"):
        model = Bagel(BagelConfig.read(folder))
    fill(model, shards(folder, WEIGHTS), lambda ours: renamed(ours, NAMES), device=device)
    return model.eval()
