"""The causal video autoencoder of Wan 2.1, which Show-o2 reads and draws with: `diffusers`' `AutoencoderKLWan`, filled
from the original file.

    autoencoder = load_wan(folder / "Wan2.1_VAE.pth")
    latents = autoencoder.encode(pixels, generator)         # (3, 1 + 4 n, H, W) in [-1, 1] -> (16, 1 + n, H / 8, W / 8)
    pixels = autoencoder.decode(latents)

A picture is a clip of one frame. Wants `pip install mmcore[families]`.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from mmcore.autoencoder import diffusers_class
from mmcore.errors import MMCoreError
from mmcore.families.shards import opened
from mmcore.families.wan import ClipAutoencoder
from mmcore.families.weights import fill

STRETCH, SHRINK = 4, 8
"""Frames, and pixels along one side, of a latent; the first latent is one frame."""

BLOCKS = 2
"""Residual blocks of a level in the encoder; the decoder has one more."""

ORIGINAL = (
    (r"conv_in\.", "conv1."),
    (r"down_blocks\.", "downsamples."),
    (r"mid_block\.resnets\.0\.", "middle.0."),
    (r"mid_block\.attentions\.0\.", "middle.1."),
    (r"mid_block\.resnets\.1\.", "middle.2."),
    (r"norm_out\.", "head.0."),
    (r"conv_out\.", "head.2."),
    (r"(?<=\d\.)norm1\.", "residual.0."),
    (r"(?<=\d\.)conv1\.", "residual.2."),
    (r"(?<=\d\.)norm2\.", "residual.3."),
    (r"(?<=\d\.)conv2\.", "residual.6."),
    (r"conv_shortcut\.", "shortcut."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
)
"""Names in `diffusers`, and in the original file; which also counts the decoder's levels and blocks as one list."""


def load_wan(path: Path, device: torch.device | str = "cpu") -> ClipAutoencoder:
    """The autoencoder of a file in the original layout, as safetensors or as `torch.save` wrote it.

    Raises:
        MMCoreError: the file cannot be read or does not fit, or `diffusers` is not installed.
    """
    with opened(path) as file:
        if "encoder.conv1.weight" not in file.keys():  # noqa: SIM118
            raise MMCoreError(f"{path}: not an autoencoder of the original layout: it lacks encoder.conv1.weight")
        width = len(file.get_tensor("encoder.conv1.weight"))
    with torch.device("meta"):
        model = diffusers_class("AutoencoderKLWan")(base_dim=width, num_res_blocks=BLOCKS)
    fill(model, [path], original_name, device=device)
    return ClipAutoencoder(model.eval())


def original_name(ours: str) -> str:
    """The name of a parameter in the original file."""
    step = BLOCKS + 2
    name = re.sub(
        r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)",
        lambda found: f"decoder.upsamples.{int(found[1]) * step + int(found[2])}",
        ours,
    )
    name = re.sub(
        r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0",
        lambda found: f"decoder.upsamples.{int(found[1]) * step + step - 1}",
        name,
    )
    for pattern, replacement in ORIGINAL:
        name = re.sub(pattern, replacement, name)
    return name
