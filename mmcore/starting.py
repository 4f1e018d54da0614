"""A model to be trained, made of a released text core and a released autoencoder.

    start("Qwen/Qwen3-1.7B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", Path("model"), size=(17, 256, 256), fps=8)

It reads and writes text as the text core does. What is between patches and the core, and the diffusion decoder, begins
fresh: `mmcore train align start=model` teaches it first.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from mmcore.autoencoder import PIXELS, VAE, WEIGHTS, Autoencoder, open_autoencoder
from mmcore.config import MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.loading import from_hub
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.text_core import SHARD, TextCore, fill_core, read_core
from mmcore.tokenizers.released import add_media
from mmcore.translator import Size

DECODER = 6
"""Blocks of the core for each block of the diffusion decoder."""

LATENT_PATCH, PIXEL_PATCH = (1, 2, 2), (4, 16, 16)
"""(frames, rows, columns) of a patch, in cells."""


def start(core: str, vae: str | None, folder: Path, size: Size, fps: float) -> None:
    """Write a model folder, whole or not at all.

    Args:
        core: a folder of a text core, or its id on the hub.
        vae: the same of an autoencoder; None is pixels.
        folder: where the model goes; nothing may be there yet.
        size: (frames, rows, columns) of media that nobody asks another size for.
        fps: frame rate of its clips.
    Raises:
        MMCoreError: a part is missing, broken, of another class or does not fit; or something is in the way.
    """
    if folder.exists():
        raise MMCoreError(f"{folder}: something is there already; choose another folder")
    if min(*size, fps) <= 0:
        raise MMCoreError(f"frames, height, width and fps must be above 0, got {size} at {fps:g}")
    source = read_core(_found(core))
    files = ("config.json", WEIGHTS, f"{VAE}/config.json", f"{VAE}/{WEIGHTS}")
    autoencoder = PIXELS if vae is None else open_autoencoder(_found(vae, files))
    made = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        text = add_media(source.folder, source.shape["vocab_size"], made)
        model = start_model(source, len(text), autoencoder, size, fps)
        nn.Module.to(model, source.config.dtype or torch.float32)
        Pipeline(model, text, autoencoder).save(made, SHARD)
        made.rename(folder)
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{folder}: cannot be written: {str(error).strip().splitlines()[0]}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _found(source: str, files: tuple[str, ...] | None = None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    return from_hub(source) if files is None else from_hub(source, files)


@torch.no_grad()
def start_model(source: TextCore, words: int, autoencoder: Autoencoder, size: Size, fps: float) -> MMCoreModel:
    """The model itself, in float32.

    Patches enter as large as words do: a text core's first blocks add little to a stream, and would be drowned.

    Args:
        source: the text core.
        words: ids of the tokenizer.
        autoencoder: what patches are cut from.
        size: see `start`.
        fps: see `start`.
    """
    latent = autoencoder is not PIXELS
    config = MMCoreConfig(
        **{**source.shape, "vocab_size": max(source.shape["vocab_size"], words)},
        decoder_depth=max(1, source.shape["depth"] // DECODER),
        patch=LATENT_PATCH if latent else PIXEL_PATCH,
        latent_channels=autoencoder.channels if latent else 0,
        latent_cell=autoencoder.cell,
        frames=size[0],
        height=size[1],
        width_px=size[2],
        fps=fps,
    )
    model = MMCoreModel(config)
    fill_core(model, source)
    size_of_words = model.embedding.weight.square().mean().sqrt()
    for matrix in (model.patch_in.up, model.patch_in.grid, model.patch_in.level_out):
        matrix.weight.mul_(size_of_words)
    return model
