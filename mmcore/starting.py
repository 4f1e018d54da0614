"""A model to be trained, made of a released text core, a released autoencoder and, if wanted, a vision tower.

    vae, eye = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "google/siglip2-base-patch16-224"
    start("Qwen/Qwen3-1.7B", vae, Path("model"), size=(17, 256, 256), fps=8, eye=eye)

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
from mmcore.eye import MEANS, Eye, read_eye
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


EYE_FILES = ("config.json", MEANS, "*.safetensors", "*.safetensors.index.json")
"""What is wanted of a vision tower on the hub."""

BESIDE = ("text_model.", "text_projection.", "visual_projection.", "logit_")
"""How weights are called that a tower was released with and that are not its own."""


def start(core: str, vae: str | None, folder: Path, size: Size, fps: float, eye: str | None = None) -> None:
    """Write a model folder, whole or not at all.

    Args:
        core: a folder of a text core, or its id on the hub.
        vae: the same of an autoencoder; None is pixels.
        folder: where the model goes; nothing may be there yet.
        size: (frames, rows, columns) of media that nobody asks another size for.
        fps: frame rate of its clips.
        eye: a folder of a vision tower, or its id on the hub; None is none.
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
    tower = None if eye is None else _found(eye, EYE_FILES)
    made = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        text = add_media(source.folder, source.shape["vocab_size"], made)
        model = start_model(source, len(text), autoencoder, size, fps, tower)
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
def start_model(
    source: TextCore, words: int, autoencoder: Autoencoder, size: Size, fps: float, tower: Path | None = None
) -> MMCoreModel:
    """The model itself, in float32.

    Patches enter as large as words do: a text core's first blocks add little to a stream, and would be drowned.

    Args:
        source: the text core.
        words: ids of the tokenizer.
        autoencoder: what patches are cut from.
        size: see `start`.
        fps: see `start`.
        tower: the folder of a vision tower, if it has an eye.
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
        eye=None if tower is None else read_eye(tower),
    )
    model = MMCoreModel(config)
    fill_core(model, source)
    if tower is not None:
        assert model.eye is not None
        fill_eye(model.eye, tower)
    size_of_words = model.embedding.weight.square().mean().sqrt()
    for matrix in (model.patch_in.up, model.patch_in.grid, model.patch_in.level_out):
        matrix.weight.mul_(size_of_words)
    return model


def fill_eye(eye: Eye, folder: Path) -> None:
    """Put a vision tower's weights into an eye of its shape, in place.

    Args:
        eye: on the CPU.
        folder: of the tower, or of a model that has one beside a text tower. The library's own loading knows the names
            that its weights had in other years.
    Raises:
        MMCoreError: a file cannot be read; tensors are missing, unknown or of another shape, all of which are named; or
            the tower gives no grid of features.
    """
    kind, how = type(eye.tower), {"config": eye.tower.config, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    try:
        tower, told = kind.from_pretrained(
            folder, **how, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{folder}: cannot read the weights: {reason}; only safetensors are read") from error
    faults = [f"{name} is missing" for name in sorted(told["missing_keys"])]
    faults += [f"{name} is {(*had,)}, not {(*wants,)}" for name, had, wants in sorted(told["mismatched_keys"])]
    faults += [f"{name} is unknown" for name in sorted(told["unexpected_keys"]) if not name.startswith(BESIDE)]
    if faults:
        raise MMCoreError(f"{folder}: the weights do not fit the config.json beside them: {'; '.join(faults)}")
    eye.tower.load_state_dict(tower.state_dict())
    side = eye.grid * eye.patch
    eye.features(torch.zeros(1, side, side, 3, dtype=torch.uint8))
