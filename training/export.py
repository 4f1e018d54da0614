"""A run's averaged weights as a model folder, whichever engine wrote them: plain safetensors, config and tokenizer.

    mmcore export runs/tiny folder                 # then mmcore.load("folder")
    mmcore export runs/align folder --to hf        # the text part alone, then AutoModelForCausalLM's from_pretrained
    mmcore export mmcore/bundled small --to int4   # a small file: matrices in 4 bits, everything else in bfloat16

It needs no DeepSpeed, no ranks and no GPU, but one machine's memory for all weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from mmcore.autoencoder import autoencoder_of
from mmcore.config import MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.loading import family_opener, load
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.quantize import KINDS, quantize
from mmcore.text_core import write_core
from mmcore.tokenizers.released import ReleasedText
from mmcore.tokenizers.words import open_words
from mmcore.training.checkpoints import load_averaged
from mmcore.training.family import export_family

SHARD = "2GB"
"""The largest size of an exported weights file."""


def averaged_pipeline(run: Path, dtype: torch.dtype = torch.float32) -> Pipeline:
    """The model with a run's averaged weights, and its tokenizer, on the CPU.

    Args:
        run: a run folder with a checkpoint.
        dtype: of the weights.
    Raises:
        MMCoreError: there is no checkpoint, or it is broken.
    """
    checkpoint = run / "checkpoint"
    config = next((path for name in ("shards", "ema") if (path := checkpoint / name).is_dir()), None)
    if config is None:
        raise MMCoreError(f"{run}: no checkpoint here: not a run, or it has not come so far yet")
    try:
        model = MMCoreModel(MMCoreConfig.from_pretrained(config))
        load_averaged(model, checkpoint)
        tokenizer, autoencoder = open_words(run), autoencoder_of(model.config, run)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise MMCoreError(f"{checkpoint}: cannot be read: {str(error).strip().splitlines()[0]}") from error
    return Pipeline(model.to(dtype), tokenizer, autoencoder)  # type: ignore[arg-type]


def save_text(pipeline: Pipeline, folder: Path) -> None:
    """Write the text part of a model, and its tokenizer, as `transformers` loads them.

    Raises:
        MMCoreError: the model did not begin as a text core.
    """
    write_core(pipeline.model, folder)
    if isinstance(pipeline.tokenizer, ReleasedText):
        pipeline.tokenizer.save_released(folder)


def family_start(run: Path) -> Path | None:
    """The released folder of another family that a run began with; None for other runs, and what is no run."""
    try:
        recipe = json.loads((run / "recipe.json").read_text())
        start = Path(recipe["start"]) if recipe["preset"] == "start" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return start if start and family_opener(start) else None


def export(source: Path, folder: Path, to: str = "mmcore") -> None:
    """Write a run's averaged weights as a folder of another kind, whole or not at all; a tuned release of another
    family as a folder of its own kind and dtype.

    Args:
        source: a run folder with a checkpoint; or a model's folder, where `to` is another kind than "mmcore".
        folder: where the result goes; nothing may be there yet.
        to: "mmcore", a model folder in float32; "int8" or "int4", a small one (see `mmcore.quantize`); or "hf", the
            text part for `transformers`.
    Raises:
        MMCoreError: there is no checkpoint, or something is in the way, or it cannot be written.
    """
    if folder.exists():
        raise MMCoreError(f"{folder}: something is there already; choose another folder")
    if (start := family_start(source)) is not None:
        if to != "mmcore":
            raise MMCoreError(
                f"{source}: a run of a released family is exported as that family's folder: leave --to out"
            )
        export_family(source / "checkpoint", start, folder)
        return
    is_model = to != "mmcore" and (source / "config.json").is_file()
    pipeline = load(source, "cpu") if is_model else averaged_pipeline(source)
    made = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        if to == "hf":
            save_text(pipeline, made)
        else:
            if to in KINDS:
                quantize(pipeline.weights, to)
                pipeline.weights.bfloat16()
            pipeline.save(made, SHARD)
        made.rename(folder)
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{folder}: cannot be written: {str(error).strip().splitlines()[0]}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
