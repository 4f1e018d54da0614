"""Wan's autoencoders (arXiv 2503.20314): `diffusers`' `AutoencoderKLWan`. Lance draws with that of Wan 2.2.

    autoencoder = load_clip_autoencoder(Path("Wan2.2-TI2V-5B-Diffusers/vae"))
    latents = autoencoder.encode(pixels, generator)      # (3, 4 n + 1, 16 h, 16 w) in [-1, 1] -> (48, n + 1, h, w)
    pixels = autoencoder.decode(latents)

The first frame is a latent of its own and does not depend on what follows. Wants `pip install mmcore[families]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.autoencoder import diffusers_class
from mmcore.errors import MMCoreError
from mmcore.families.bagel import read_json
from mmcore.families.shards import shards
from mmcore.families.weights import fill


class ClipAutoencoder(nn.Module):
    """Pixels of clips to latents and back; a latent has seen no later frame. `s` pixels go to a latent's side: 8 or 16.

    Args:
        model: a `diffusers.AutoencoderKLWan`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.mean, self.spread = (torch.tensor(model.config[f"latents_{part}"])[:, None, None, None] for part in PARTS)

    @property
    def steps(self) -> tuple[int, int, int]:
        """Frames, rows and columns of one latent."""
        config = self.model.config
        return config.scale_factor_temporal, config.scale_factor_spatial, config.scale_factor_spatial

    @torch.inference_mode()
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One clip (3, T, H, W) in [-1, 1], T = 4 n + 1, sides multiples of s -> (C, n + 1, H / s, W / s) float32.

        Args:
            pixels: the clip.
            generator: draws from the posterior, as the reference always does: its noise is added to latents that are
                already scaled, and not scaled itself. Without it, the posterior's mean.
        """
        posterior = self.model.encode(pixels[None].to(self._like)).latent_dist
        latents = (posterior.mean[0].float().cpu() - self.mean) / self.spread
        if generator is not None:
            latents += posterior.std[0].float().cpu() * torch.randn(latents.shape, generator=generator)
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(C, t, h, w) -> one clip (3, 4 (t - 1) + 1, s h, s w) float32 in [-1, 1]."""
        scaled = latents.float().cpu() * self.spread + self.mean
        return self.model.decode(scaled[None].to(self._like)).sample[0].float()

    @property
    def _like(self) -> Tensor:
        return self.model.post_quant_conv.weight


PARTS = ("mean", "std")
"""What the configuration knows of each channel of latents."""


def load_clip_autoencoder(folder: Path, device: torch.device | str = "cpu") -> ClipAutoencoder:
    """The autoencoder of a folder as `diffusers` lays it out: `config.json` and safetensors.

    Raises:
        MMCoreError: a file is missing or broken, tensors do not fit, or `diffusers` is not installed.
    """
    config = read_json(folder / "config.json")
    try:
        with torch.device("meta"):
            model = diffusers_class("AutoencoderKLWan")(**{k: v for k, v in config.items() if not k.startswith("_")})
    except (TypeError, ValueError) as error:
        raise MMCoreError(f"{folder}: not an autoencoder of Wan: {error}; copy the folder again") from error
    fill(model, shards(folder, ("diffusion_pytorch_model.safetensors",)), lambda ours: ours, device=device)
    return ClipAutoencoder(model.eval())
