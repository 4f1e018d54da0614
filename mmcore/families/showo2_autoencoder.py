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
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.errors import MMCoreError
from mmcore.families.shards import opened
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


class CausalAutoencoder(nn.Module):
    """Pixels to latents and back; a latent has seen no later frame.

    Args:
        model: a `diffusers.AutoencoderKLWan`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @torch.inference_mode()
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One clip (3, 1 + 4 n, H, W) in [-1, 1], sides multiples of 8 -> (C, 1 + n, H / 8, W / 8) float32.

        Args:
            pixels: the clip.
            generator: draws from the posterior, as the reference always does; without it, the posterior's mean. As
                there, what is drawn is added after the mean was scaled, and is not scaled itself.
        """
        posterior = self.model.encode(pixels[None].to(self._like)).latent_dist
        shift, scale = self._scale()
        latents = (posterior.mean[0].float() - shift) / scale
        if generator is not None:
            noise = torch.randn(latents.shape, generator=generator, device=generator.device)
            latents = latents + posterior.std[0].float() * noise.to(latents)
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(C, 1 + n, h, w) -> one clip (3, 1 + 4 n, 8 h, 8 w) float32 in [-1, 1]."""
        shift, scale = self._scale()
        return self.model.decode((latents.to(shift) * scale + shift)[None].to(self._like)).sample[0].float()

    @property
    def _like(self) -> Tensor:
        return self.model.decoder.conv_in.weight

    def _scale(self) -> tuple[Tensor, Tensor]:
        """What is taken from latents, and what they are divided by: (C, 1, 1, 1) each."""
        told = torch.tensor((self.model.config.latents_mean, self.model.config.latents_std), device=self._like.device)
        return told[0].reshape(-1, 1, 1, 1), told[1].reshape(-1, 1, 1, 1)


def load_wan(path: Path, device: torch.device | str = "cpu") -> CausalAutoencoder:
    """The autoencoder of a file in the original layout, as safetensors or as `torch.save` wrote it.

    Raises:
        MMCoreError: the file cannot be read or does not fit, or `diffusers` is not installed.
    """
    try:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    except ImportError as error:
        raise MMCoreError(
            "this model's pictures want diffusers, which is not installed: pip install mmcore[families]"
        ) from error
    with opened(path) as file:
        if "encoder.conv1.weight" not in file.keys():  # noqa: SIM118
            raise MMCoreError(f"{path}: not an autoencoder of the original layout: it lacks encoder.conv1.weight")
        width = len(file.get_tensor("encoder.conv1.weight"))
    with torch.device("meta"):
        model = AutoencoderKLWan(base_dim=width, num_res_blocks=BLOCKS)
    fill(model, [path], original_name, device=device)
    return CausalAutoencoder(model.eval())


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
