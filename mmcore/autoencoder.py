"""What patches are cut from: the pixels of a clip, or the latents of an autoencoder of `diffusers`.

    cells = PIXELS.encode(frames)                         # (T, H, W, 3) uint8 -> (T, H, W, 3) float32 in [-1, 1]
    vae = open_autoencoder(Path("Wan2.1-T2V-1.3B-Diffusers"))
    cells = vae.encode(frames)                            # -> (1 + (T - 1) / 4, H / 8, W / 8, 16), about normal
    frames = vae.decode(cells)

`AutoencoderKLWan` (2.1 and 2.2) and `AutoencoderKL` (FLUX kind, frame by frame). An image is a clip of one frame. A
clip goes through a few frames at a time, the past of every causal convolution kept in between, and a large frame in
tiles that overlap: memory follows neither the length nor, but for the tiles' pasts, the size. Wants
`pip install mmcore[families]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mmcore.config import MMCoreConfig, cells_of
from mmcore.errors import MMCoreError
from mmcore.families.weights import fill
from mmcore.tiles import Coder, Tiles

KINDS = ("AutoencoderKLWan", "AutoencoderKL")
"""Classes of `diffusers` that are known here."""

TILE, OVERLAP = 512, 128
"""Pixels along a tile's side, and those that neighbours share."""

VAE = "vae"
"""Where a model's folder has its autoencoder."""

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Where `diffusers` keeps an autoencoder's weights."""


class Autoencoder(Protocol):
    """Frames to cells and back."""

    @property
    def cell(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of pixels in one cell; the first frame has a cell of its own."""
        ...

    @property
    def channels(self) -> int:
        """`C`, numbers in a cell."""
        ...

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (t, h, w, C) float32; what does not fill its last cells is continued."""
        ...

    def decode(self, cells: np.ndarray) -> np.ndarray:
        """(t, h, w, C) float32 -> (T, H, W, 3) uint8 of whole cells."""
        ...


class Pixels:
    """Every pixel is a cell."""

    cell, channels = (1, 1, 1), 3

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """See `Autoencoder`; in [-1, 1]."""
        return frames.astype(np.float32) / 127.5 - 1

    def decode(self, cells: np.ndarray) -> np.ndarray:
        """See `Autoencoder`; what lies outside [-1, 1] is clipped."""
        return ((cells + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


PIXELS = Pixels()


class Latents(nn.Module):
    """An autoencoder of `diffusers`.

    Args:
        model: an `AutoencoderKLWan` or `AutoencoderKL`, whose configuration says how its latents are scaled.
        tile: pixels along a tile's side, a multiple of the cell's; smaller frames are one tile.
        overlap: pixels that neighbouring tiles share, a multiple of the cell's.
    """

    def __init__(self, model: Any, tile: int = TILE, overlap: int = OVERLAP) -> None:
        super().__init__()
        self.model, self.tile, self.overlap = model.eval().requires_grad_(False), tile, overlap
        c = model.config
        self.video = type(model).__name__ == "AutoencoderKLWan"
        if self.video:
            self.cell = (c.scale_factor_temporal, c.scale_factor_spatial, c.scale_factor_spatial)
            self.channels, shift, scale = int(c.z_dim), torch.tensor(c.latents_mean), 1 / torch.tensor(c.latents_std)
        else:
            side = 2 ** (len(c.block_out_channels) - 1)
            self.cell, self.channels = (1, side, side), int(c.latent_channels)
            shift, scale = torch.tensor([c.shift_factor or 0.0]), torch.tensor([c.scaling_factor])
        self.shift, self.scale = (t.float()[:, None, None, None] for t in (shift, scale))

    def save(self, folder: Path) -> None:
        """Write it as `vae/` in a folder, for `open_autoencoder`."""
        self.model.save_pretrained(folder / VAE)

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> np.ndarray:
        """See `Autoencoder`: the posterior's mean, shifted and scaled as the configuration says."""
        step, y, x = self.cell
        size = cells_of((len(frames), *frames.shape[1:3]), self.cell)
        whole = (1 + (size[0] - 1) * step, size[1] * y, size[2] * x)
        missing = [(0, n - have) for n, have in zip(whole, frames.shape[:3], strict=True)]
        tiles = Tiles(size[1:], (y, x), self.tile, self.overlap, self._encoder, shrink=True)
        made = []
        for begin, end in _chunks(whole[0], step):
            chunk = np.pad(frames[begin:end], [(0, max(0, end - len(frames))), *missing[1:], (0, 0)], mode="edge")
            pixels = torch.from_numpy(PIXELS.encode(chunk)).permute(3, 0, 1, 2)
            made.append((tiles(pixels) - self.shift) * self.scale)
        return torch.cat(made, 1).permute(1, 2, 3, 0).numpy()

    @torch.inference_mode()
    def decode(self, cells: np.ndarray) -> np.ndarray:
        """See `Autoencoder`."""
        latents = torch.from_numpy(cells).permute(3, 0, 1, 2) / self.scale + self.shift
        tiles = Tiles(cells.shape[1:3], self.cell[1:], self.tile, self.overlap, self._decoder, shrink=False)
        chunks = (tiles(latents[:, i : i + 1]) for i in range(len(cells)))
        return np.concatenate([PIXELS.decode(chunk.permute(1, 2, 3, 0).numpy()) for chunk in chunks])

    def _encoder(self) -> Coder:
        model, past = self.model, self._past("encoder")

        def encode(pixels: Tensor) -> Tensor:
            x = pixels[None].to(self._like)
            if not self.video:
                moments = model.encoder(x[:, :, 0])
                moments = (moments if model.quant_conv is None else model.quant_conv(moments))[:, :, None]
            else:
                moments = model.quant_conv(model.encoder(self._folded(x), feat_cache=past, feat_idx=[0]))
            return moments[0].chunk(2)[0].float().cpu()

        return encode

    def _decoder(self) -> Coder:
        model, past = self.model, self._past("decoder")

        def decode(latents: Tensor) -> Tensor:
            z, first = latents[None].to(self._like), all(kept is None for kept in past)
            if not self.video:
                z = z[:, :, 0] if model.post_quant_conv is None else model.post_quant_conv(z[:, :, 0])
                return model.decoder(z)[0, :, None].float().cpu()
            z = model.post_quant_conv(z)
            return self._unfolded(model.decoder(z, feat_cache=past, feat_idx=[0], first_chunk=first))[0].float().cpu()

        return decode

    def _past(self, half: str) -> list[Tensor | None]:
        """A place for what each causal convolution has last seen."""
        return [None] * sum(type(m).__name__ == "WanCausalConv3d" for m in self.model.get_submodule(half).modules())

    def _folded(self, x: Tensor) -> Tensor:
        """Wan 2.2 takes squares of pixels as channels."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        return patchify(x, self.model.config.patch_size or 1)

    def _unfolded(self, x: Tensor) -> Tensor:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        return unpatchify(x, self.model.config.patch_size or 1)

    @property
    def _like(self) -> Tensor:
        return next(self.model.parameters())


def _chunks(frames: int, step: int) -> Iterator[tuple[int, int]]:
    """The first frame, then so many at a time."""
    yield 0, 1
    for begin in range(1, frames, step):
        yield begin, begin + step


def open_autoencoder(folder: Path, device: torch.device | str = "cpu") -> Latents:
    """An autoencoder that `diffusers` has saved.

    Args:
        folder: its own, or that of a model which has it in `vae/`.
        device: where it computes.
    Raises:
        MMCoreError: it is of another class, a file is missing or broken, or does not fit.
    """
    folder = folder / VAE if (folder / VAE).is_dir() else folder
    path = folder / "config.json"
    try:
        table = json.loads(path.read_text())
        named = table.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise MMCoreError(f"{path}: cannot read it: {error}; give the folder of an autoencoder") from error
    if named not in KINDS:
        raise MMCoreError(f"{path}: an autoencoder of {', '.join(KINDS)} is expected, this is {named!r}")
    if not (folder / WEIGHTS).is_file():
        raise MMCoreError(f"{folder}: no {WEIGHTS} here; nothing else is read, convert the weights")
    kind = diffusers_class(named)
    try:
        with torch.device("meta"):
            model = kind.from_config(table)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise MMCoreError(f"{path}: makes no autoencoder: {' '.join(str(error).split())}") from error
    fill(model, [folder / WEIGHTS], lambda name: name, device=device)
    return Latents(model)


def autoencoder_of(config: MMCoreConfig, folder: Path, device: torch.device | str = "cpu") -> Autoencoder:
    """What a model's patches are cut from.

    Args:
        config: of the model.
        folder: of the model, or of a run, where the autoencoder is if it has one.
        device: where it computes.
    Raises:
        MMCoreError: the autoencoder is missing, broken, or another one than the configuration says.
    """
    found = autoencoder_in(folder, device)
    if (found.channels, found.cell) != (config.channels, config.latent_cell):
        raise MMCoreError(
            f"{folder / VAE}: gives {found.channels} channels in cells of {found.cell}, the model takes "
            f"{config.channels} in cells of {config.latent_cell}; copy the folder again"
        )
    return found


def autoencoder_in(folder: Path, device: torch.device | str = "cpu") -> Autoencoder:
    """The autoencoder of a model's or a run's folder: pixels where it has none."""
    return open_autoencoder(folder, device) if (folder / VAE).is_dir() else PIXELS


def diffusers_class(name: str) -> Any:
    """A class of `diffusers`.

    Raises:
        MMCoreError: it is not installed, or too old to have it.
    """
    try:
        import diffusers

        return getattr(diffusers, name)
    except (ImportError, AttributeError) as error:
        raise MMCoreError(
            f"{name} is of diffusers, which is not installed, or too old: pip install --upgrade mmcore[families]"
        ) from error
