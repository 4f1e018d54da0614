"""A run's averaged weights as a model folder, whichever engine wrote them: plain safetensors, config and tokenizer.

    mmcore export runs/tiny folder        # then mmcore.load("folder")

It needs no DeepSpeed, no ranks and no GPU, but one machine's memory for all weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from mmcore.config import MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.checkpoints import load_averaged

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
        tokenizer = TextTokenizer(run / "tokenizer.model")
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise MMCoreError(f"{checkpoint}: cannot be read: {str(error).strip().splitlines()[0]}") from error
    return Pipeline(model.to(dtype), tokenizer)


def export(run: Path, folder: Path) -> None:
    """Write a run's averaged weights as a model folder, float32, whole or not at all.

    Args:
        run: a run folder with a checkpoint.
        folder: where the model goes; nothing may be there yet.
    Raises:
        MMCoreError: there is no checkpoint, or something is in the way, or it cannot be written.
    """
    if folder.exists():
        raise MMCoreError(f"{folder}: something is there already; choose another folder")
    pipeline, made = averaged_pipeline(run), folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(made, ignore_errors=True)
        pipeline.save(made, SHARD)
        made.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(made, ignore_errors=True)
        raise MMCoreError(f"{folder}: cannot be written: {str(error).strip().splitlines()[0]}") from error
