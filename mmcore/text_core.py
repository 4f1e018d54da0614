"""Text cores of `transformers` (Qwen2, Qwen3, Llama) as ours, and back.

    source = read_core(Path("Qwen3-1.7B"))
    model = MMCoreModel(MMCoreConfig(**source.shape, decoder_depth=4))
    fill_core(model, source)                  # on text alone it now computes what the text core does
    write_core(model, Path("text"))           # for AutoModelForCausalLM.from_pretrained

Attention, norms, embedding, head and the text feed-forward are theirs; the visual feed-forward begins as a copy of the
text one (as LMFusion, arXiv 2412.15188). Rows that the table of words has beyond theirs are drawn like theirs: with the
same mean and deviation in every column (J. Hewitt, "Initializing new word embeddings for pretrained language models").
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel

KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaRotaryEmbedding),
    "qwen2": (Qwen2Config, Qwen2RotaryEmbedding),
    "qwen3": (Qwen3Config, Qwen3RotaryEmbedding),
}
"""Configuration and rotary positions of each `model_type`."""

MATRICES = ("query", "key", "value", "out")
"""Of attention, in the order of `biases`."""

FIXED_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary positions whose frequencies do not follow the length of what is read."""

NAMES = (
    (r"^embedding\.", "model.embed_tokens."),
    (r"^head\.", "lm_head."),
    (r"^text_norm\.", "model.norm."),
    (r"^core\.blocks\.(\d+)\.", r"model.layers.\1."),
    (r"\.(text|visual)\.norm\.", ".post_attention_layernorm."),
    (r"\.(text|visual)\.(gate|up|down)\.", r".mlp.\2_proj."),
    (r"\.attention\.norm\.", ".input_layernorm."),
    (r"\.attention\.(query|key)_norm\.", lambda m: f".self_attn.{m[1][0]}_norm."),
    (r"\.attention\.(query|key|value|out)\.", lambda m: f".self_attn.{m[1][0]}_proj."),
)
"""Our names, and theirs."""

NO_PART = re.compile(r"^(patch_in|decoder|eye)\.|\.level$")
"""Our weights that a text core lacks."""

SHARD = "5GB"
"""The largest size of a weights file."""


@dataclass(frozen=True)
class TextCore:
    """A text core that lies in a folder.

    Args:
        folder: with `config.json` and safetensors files.
        config: of `transformers`.
        shape: the same as fields of `MMCoreConfig`.
    """

    folder: Path
    config: Any
    shape: dict[str, Any]


def released_name(ours: str) -> str | None:
    """The name of one of our weights in a text core; None where it has no such."""
    if NO_PART.search(ours):
        return None
    for pattern, theirs in NAMES:
        ours = re.sub(pattern, theirs, ours)
    return ours


def read_core(folder: Path) -> TextCore:
    """Read what a text core is.

    Raises:
        MMCoreError: there is no configuration, it is of another class, or of a variant that our core does not compute.
    """
    path = folder / "config.json"
    try:
        table = json.loads(path.read_text())
        kind = table.get("model_type")
        if kind not in KINDS:
            raise MMCoreError(f"{path}: a text core of {', '.join(KINDS)} is expected, this is {kind!r}")
        config = KINDS[kind][0](**table)
    except FileNotFoundError as error:
        raise MMCoreError(f"{folder}: no config.json here: not a text core, or not all of it was copied") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MMCoreError(f"{path}: cannot read it: {str(error).strip().splitlines()[0]}") from error
    if unlike := _unlike(config):
        raise MMCoreError(f"{path}: {unlike}, which our core does not compute; choose another text core")
    rotary = KINDS[kind][1](config)
    heads = config.num_attention_heads
    always = MATRICES[:3] if kind == "qwen2" else ()
    biases = MATRICES if getattr(config, "attention_bias", False) else always
    shape = {
        "vocab_size": config.vocab_size,
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": heads,
        "kv_heads": config.num_key_value_heads,
        "head_width": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "ff_width": config.intermediate_size,
        "embedding_scale": 1.0,
        "rope_rates": tuple(rotary.inv_freq.tolist()),
        "rope_scale": float(rotary.attention_scaling),
        "qk_norm": kind == "qwen3",
        "biases": biases,
        "norm_eps": config.rms_norm_eps,
        "tied_head": config.tie_word_embeddings,
        "context_length": config.max_position_embeddings,
        "origin": {**config.to_dict(), "transformers_version": None},
    }
    return TextCore(folder, config, shape)


def _unlike(config: Any) -> str | None:
    """What a text core has that ours has not."""
    rope = config.rope_parameters
    if rope["rope_type"] not in FIXED_ROPE:
        return f"its rotary positions are of type {rope['rope_type']!r}"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        return f"only {rope['partial_rotary_factor']} of each head turns"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act!r}"
    if getattr(config, "mlp_bias", False):
        return "its feed-forward has biases"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "some of its layers see a sliding window"
    return None


@torch.no_grad()
def fill_core(model: MMCoreModel, source: TextCore) -> None:
    """Put a text core's weights into a model of its shape, in place.

    Args:
        model: on the CPU; its table of words may be longer than the text core's.
        source: what `read_core` gave.
    Raises:
        MMCoreError: a file cannot be read, or tensors are missing, unknown or of another shape; all of them are named.
    """
    paths = sorted(source.folder.glob("*.safetensors"))
    if not paths:
        raise MMCoreError(f"{source.folder}: no .safetensors file here; nothing else is read, convert the weights")
    wanted = {ours: theirs for ours, _ in model.named_parameters() if (theirs := released_name(ours))}
    faults: list[str] = []
    with ExitStack() as files:
        try:
            opened = [files.enter_context(safe_open(path, "pt")) for path in paths]
            places = {name: file for file in opened for name in file.keys()}  # noqa: SIM118
            for ours, theirs in wanted.items():
                if theirs not in places:
                    faults.append(f"{theirs} is missing")
                    continue
                into, tensor = model.get_parameter(ours), places[theirs].get_tensor(theirs)
                of_words = ours in ("embedding.weight", "head.weight")
                expected = (source.shape["vocab_size"], *into.shape[1:]) if of_words else tuple(into.shape)
                if tuple(tensor.shape) != expected:
                    faults.append(f"{theirs} is {tuple(tensor.shape)}, {expected} is expected")
                    continue
                into[: len(tensor)] = tensor
                if of_words and len(into) > len(tensor):
                    _draw_alike(into[len(tensor) :], tensor)
        except (OSError, SafetensorError) as error:
            raise MMCoreError(f"{source.folder}: cannot read the weights: {error}; copy the folder again") from error
    known = {*wanted.values(), *(["lm_head.weight"] if model.head is None else [])}
    faults += [f"{name} is unknown" for name in sorted(places.keys() - known) if not name.endswith("inv_freq")]
    if faults:
        raise MMCoreError(f"{source.folder}: the weights do not fit the config.json beside them: {'; '.join(faults)}")


def _draw_alike(new: Tensor, old: Tensor) -> None:
    """New rows with the mean and deviation that the old ones have, in every column; the same each time."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(new.shape, generator=generator)
    new.copy_(old.float().mean(0) + old.float().std(0) * noise)


def write_core(model: MMCoreModel, folder: Path) -> None:
    """Write the text part of a model as the text core that it began as.

    Args:
        model: whose `config.origin` says what that was. Words that were added to its table stay in it.
        folder: is there.
    Raises:
        MMCoreError: the model did not begin as a text core.
    """
    origin = model.config.origin
    if not origin:
        raise MMCoreError("this model's core is our own: there is no class of transformers to write its text part for")
    names = {ours: theirs for ours, _ in model.named_parameters() if (theirs := released_name(ours))}
    tensors = {
        names[ours]: p.detach() for ours, p in model.named_parameters() if ours in names and ".visual." not in ours
    }
    config = KINDS[origin["model_type"]][0](**{**origin, "vocab_size": model.config.vocab_size})
    config.dtype = model.dtype
    config.save_pretrained(folder)
    save_torch_state_dict(tensors, folder, max_shard_size=SHARD)
