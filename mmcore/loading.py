"""From files to a model that can be asked: the bundled one, a folder's, or the hub's; and what it is.

model = load()
describe(model)["parameters"]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from mmcore.autoencoder import autoencoder_of
from mmcore.backbone import Backbone
from mmcore.errors import MMCoreError
from mmcore.memory import keep_freed_memory
from mmcore.model import MMCoreModel
from mmcore.pipeline import FamilyPipeline, Pipeline
from mmcore.quantize import count_weights
from mmcore.quantize import quantize as quantize_weights
from mmcore.tokenizers.words import open_words
from mmcore.translator import Translator

BUNDLED = Path(__file__).parent / "bundled"

FILES = (
    *("*.json", "*.jinja", "tokenizer.model", "merges.txt"),
    *("*.safetensors", "pytorch_model*.bin", "Wan2.1_VAE.pth"),
)
"""Configurations, weights and tokenizers of a model on the hub."""

BAGEL = ("llm_config.json", "vit_config.json")
"""Files by which a released folder of BAGEL is known."""

LANCE = ("Lance_3B", "Lance_3B_Video")
"""Folders of Lance's models, for pictures and for clips, in what is released."""


def is_lance(folder: Path) -> bool:
    """Whether this is a released folder of Lance: its core's positions have sections, as those of Qwen2.5-VL."""
    path = folder / "llm_config.json"
    try:
        return path.is_file() and "mrope_section" in (json.loads(path.read_text()).get("rope_scaling") or {})
    except (ValueError, AttributeError):
        return False


SHOWO2 = "Showo2Qwen2_5"
"""What the `config.json` of Show-o2 calls itself."""

Opener = Callable[[Path, Any], tuple[Backbone, Translator, nn.Module]]
"""Makes a backbone, a translator and a network of a released folder, on a device or, by a `Spread`, on several."""


def family_opener(folder: Path) -> Opener | None:
    """What opens a released folder of another family; None for any other folder.

    Raises:
        MMCoreError: the models lie in folders of it.
    """
    if all((folder / name).is_file() for name in BAGEL):
        from mmcore.families.bagel_media import open_bagel

        return open_bagel
    if is_lance(folder):
        from mmcore.families.lance_media import open_lance

        return open_lance
    if both := [name for name in LANCE if is_lance(folder / name)]:
        raise MMCoreError(f"{folder}: models lie in folders of it: load one of {', '.join(both)} there")
    if _called(folder) == SHOWO2:
        from mmcore.families.showo2_media import open_showo2

        return open_showo2
    return None


def describe(pipeline: Pipeline) -> dict[str, object]:
    """What a model is, for `mmcore info`."""
    parameters = list(pipeline.weights.parameters())
    return {
        "parameters": count_weights(pipeline.weights),
        "memory": f"{sum(p.nbytes for p in parameters) / 1e6:.1f} MB",
        **pipeline.translator.facts,
        "device": str(parameters[0].device),
    }


def load(
    source: str | Path | None = None,
    device: torch.device | str | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    quantize: str | None = None,
) -> Pipeline:
    """Load a model with its tokenizer; from then on the process keeps freed memory (see `mmcore.memory`).

    Args:
        source: a folder that `Pipeline.save` wrote, or that of a released model which `mmcore.families` knows, or the
            id of either on the hub; None is the bundled model.
        device: where to; CUDA if there is one, else the CPU.
        device_map: where blocks of a model of `mmcore.families` go, if not all of them there: "auto" fills the GPUs,
            then memory, then leaves the rest in its files; or a map (see `mmcore.families.spread`).
        quantize: "int8" or "int4" to hold the weights in so many bits (see `mmcore.quantize`).
    Raises:
        MMCoreError: nothing is there, or a file is missing or broken, or it is quantized already.
    """
    if device_map is not None and quantize is not None:
        raise MMCoreError("device_map and quantize do not go together yet: leave one of them out")
    keep_freed_memory()
    pipeline = _opened(source, device, device_map)
    if quantize is not None:
        quantize_weights(pipeline.weights, quantize)
    return pipeline


def _opened(
    source: str | Path | None, device: torch.device | str | None, device_map: str | Mapping[str, int | str] | None
) -> Pipeline:
    """The pipeline of whatever kind of model is there; see `load`."""
    folder = Path(source) if source is not None else BUNDLED
    if not folder.is_dir():
        folder = from_hub(str(source))
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (opener := family_opener(folder)) is not None:
        if device_map is None:
            return FamilyPipeline(*opener(folder, where))
        from mmcore.families.spread import Spread

        return FamilyPipeline(*opener(folder, Spread(where, device_map)))
    if device_map is not None:
        raise MMCoreError(f"{folder}: device_map is for released models of other families; this one is on one device")
    if not (folder / "config.json").is_file():
        raise MMCoreError(f"{folder}: no config.json here: not a model folder, or not all of it was copied")
    words = open_words(folder)
    try:
        loaded: Any = MMCoreModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, local_files_only=True
        )
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{folder}: cannot read the weights: {reason}; copy the folder again") from error
    model, info = loaded
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise MMCoreError(f"{folder}: {len(lacking)} weights are missing, {lacking[0]} first; copy the folder again")
    return Pipeline(model.to(where), words, autoencoder_of(model.config, folder, where))


def _called(folder: Path) -> str | None:
    """What a folder's `config.json` calls its model, where it says so."""
    try:
        return json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None


def from_hub(name: str, files: Sequence[str] = FILES) -> Path:
    """The local copy of a model on the hub, fetched if need be.

    Args:
        name: its id.
        files: patterns of the files that are wanted.
    Raises:
        MMCoreError: the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MMCoreError(
            f"{name}: no such folder, and the hub does not give a model of that name; check the path or the connection"
        ) from error
