"""The autoencoder of FLUX, which BAGEL draws with: `diffusers`' `AutoencoderKL`, filled from the original file.

    autoencoder = load_autoencoder(folder / "ae.safetensors")
    latents = autoencoder.encode(pixels, generator)         # (3, H, W) in [-1, 1] -> (16, H / 8, W / 8)
    pixels = autoencoder.decode(latents)

Wants `pip install mmcore[families]`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmcore.autoencoder import diffusers_class
from mmcore.errors import MMCoreError
from mmcore.families.weights import fill

SCALE, SHIFT = 0.3611, 0.1159
"""What latents are multiplied by, after this was taken from them, so that they are about standard normal."""

ORIGINAL = (
    (r"\.(\w+)_blocks\.(\d+)\.resnets\.(\d+)", r".\1.\2.block.\3"),
    (r"\.(\w+)_blocks\.(\d+)\.(down|up)samplers\.0", r".\1.\2.\3sample"),
    (r"\.mid_block\.resnets\.0", ".mid.block_1"),
    (r"\.mid_block\.resnets\.1", ".mid.block_2"),
    (r"\.mid_block\.attentions\.0\.group_norm", ".mid.attn_1.norm"),
    (r"\.mid_block\.attentions\.0\.to_([qkv])", r".mid.attn_1.\1"),
    (r"\.mid_block\.attentions\.0\.to_out\.0", ".mid.attn_1.proj_out"),
    (r"\.conv_shortcut", ".nin_shortcut"),
    (r"\.conv_norm_out", ".norm_out"),
)
"""Names in `diffusers`, and in the original file; which numbers the decoder's levels from the pixels on."""


class Autoencoder(nn.Module):
    """Pixels to latents and back.

    Args:
        model: a `diffusers.AutoencoderKL`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @torch.inference_mode()
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One picture (3, H, W) in [-1, 1], sides multiples of 8 -> (C, H / 8, W / 8) float32.

        Args:
            pixels: the picture.
            generator: draws from the posterior, as the reference always does; without it, the posterior's mean.
        """
        mean, log_variance = self.model.encoder(pixels[None].to(self._like)).float()[0].chunk(2)
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device)
            mean = mean + (log_variance / 2).exp() * noise.to(mean.device)
        return SCALE * (mean - SHIFT)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(C, h, w) -> one picture (3, 8 h, 8 w) float32, about [-1, 1]."""
        return self.model.decoder((latents[None] / SCALE + SHIFT).to(self._like))[0].float()

    @property
    def _like(self) -> Tensor:
        return self.model.decoder.conv_in.weight


def load_autoencoder(path: Path, device: torch.device | str = "cpu") -> Autoencoder:
    """The autoencoder of a file in the original layout; its sizes are those of its tensors.

    Raises:
        MMCoreError: the file cannot be read or does not fit, or `diffusers` is not installed.
    """
    kind = diffusers_class("AutoencoderKL")
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{path}: cannot read the weights: {error}; copy the file again") from error
    try:
        sizes = _sizes(shapes)
    except KeyError as error:
        raise MMCoreError(f"{path}: not an autoencoder of the original layout: it lacks {error}") from error
    levels = len(sizes["block_out_channels"])
    with torch.device("meta"):
        model = kind(**sizes)
    fill(model, [path], lambda name: _original(name, levels), _as_matrix, device)
    return Autoencoder(model.eval())


def _sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    levels = 1 + max((int(m[1]) for name in shapes if (m := re.match(r"encoder\.down\.(\d+)", name))), default=0)
    blocks = sum(bool(re.match(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", name)) for name in shapes)
    return {
        "block_out_channels": tuple(shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)),
        "layers_per_block": blocks,
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def _original(name: str, levels: int) -> str:
    for pattern, replacement in ORIGINAL:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    """The original attention multiplies by convolutions of one pixel."""
    return tensor.flatten(1) if re.search(r"\.to_(q|k|v|out\.0)\.weight$", name) else tensor
