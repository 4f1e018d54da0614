"""From files to a model that can be asked: the bundled one, a folder's, or the hub's; and what it is.

model = load()
describe(model)["parameters"]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.pipeline import FamilyPipeline, Pipeline
from mmcore.tokenizers.text import TextTokenizer

BUNDLED = Path(__file__).parent / "bundled"

BAGEL = ("llm_config.json", "vit_config.json")
"""Files by which a released folder of BAGEL is known."""

SHOWO2 = "Showo2Qwen2_5"
"""What the `config.json` of Show-o2 calls itself."""


def describe(pipeline: Pipeline) -> dict[str, object]:
    """What a model is, for `mmcore info`."""
    parameters = list(pipeline.weights.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        **pipeline.translator.facts,
        "device": str(parameters[0].device),
    }


def load(source: str | Path | None = None, device: torch.device | str | None = None) -> Pipeline:
    """Load a model with its tokenizer.

    Args:
        source: a folder that `Pipeline.save` wrote, or that of a released model which `mmcore.families` knows, or the
            id of either on the hub; None is the bundled model.
        device: where to; CUDA if there is one, else the CPU.
    Raises:
        MMCoreError: nothing is there, or a file is missing or broken.
    """
    folder = Path(source) if source is not None else BUNDLED
    if not folder.is_dir():
        folder = _from_hub(str(source))
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if all((folder / name).is_file() for name in BAGEL):
        from mmcore.families.bagel_media import open_bagel

        return FamilyPipeline(*open_bagel(folder, where))
    if _called(folder) == SHOWO2:
        from mmcore.families.showo2_media import open_showo2

        return FamilyPipeline(*open_showo2(folder, where))
    for needed in ("config.json", "tokenizer.model"):
        if not (folder / needed).is_file():
            raise MMCoreError(f"{folder}: no {needed} here: not a model folder, or not all of it was copied")
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
    return Pipeline(model.to(where), TextTokenizer(folder / "tokenizer.model"))


def _called(folder: Path) -> str | None:
    """What a folder's `config.json` calls its model, where it says so."""
    try:
        return json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None


def _from_hub(name: str) -> Path:
    """The local copy of a model on the hub, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        files = ["*.json", "*.safetensors", "pytorch_model*.bin", "Wan2.1_VAE.pth", "tokenizer.model", "merges.txt"]
        return Path(snapshot_download(name, allow_patterns=files))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MMCoreError(
            f"{name}: no such folder, and the hub does not give a model of that name; check the path or the connection"
        ) from error
