"""Weights of released checkpoints into our modules: built empty, filled one file at a time, checked by name.

    with torch.device("meta"):
        model = Bagel(config)
    fill(model, shards(folder, ["ema.safetensors"]), released_name)

Only safetensors are read here; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmcore.errors import MMCoreError


def fill(
    module: nn.Module,
    files: Sequence[Path],
    name: Callable[[str], str],
    convert: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor,
    device: torch.device | str = "cpu",
    needless: tuple[str, ...] = (),
) -> None:
    """Give every parameter of a module its tensor from the files, in the dtype that the files have.

    Args:
        module: on the meta device, or anywhere: its parameters are replaced.
        files: safetensors files, which together hold each tensor once.
        name: our name of a parameter -> the released one.
        convert: (our name, released tensor) -> the tensor as we hold it.
        device: where the parameters go.
        needless: beginnings of released names that are not read.
    Raises:
        MMCoreError: a file cannot be read, or tensors are missing, extra or of another shape; all of them are named.
    """
    wanted = {name(ours): ours for ours in module.state_dict()}
    expected = {ours: tuple(tensor.shape) for ours, tensor in module.state_dict().items()}
    missing, extra, wrong = set(wanted), [], []
    for path in files:
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                for released in file.keys():  # noqa: SIM118
                    if released not in wanted:
                        extra += [] if released.startswith(needless) else [released]
                        continue
                    missing.discard(released)
                    ours = wanted[released]
                    tensor = convert(ours, file.get_tensor(released))
                    if tuple(tensor.shape) != expected[ours]:
                        wrong.append(f"{released} is {tuple(tensor.shape)}, not {expected[ours]}")
                        continue
                    _put(module, ours, tensor)
        except (OSError, SafetensorError) as error:
            raise MMCoreError(f"{path}: cannot read the weights: {error}; copy the file again") from error
    faults = [("missing", sorted(missing)), ("unknown", sorted(extra)), ("of another shape", sorted(wrong))]
    told = [f"{len(names)} {what}: {', '.join(names)}" for what, names in faults if names]
    if told:
        raise MMCoreError(f"{files[0]}: the tensors do not fit the configuration beside it; {'; '.join(told)}")


def shards(folder: Path, names: Sequence[str]) -> list[Path]:
    """The safetensors files of a model: those that an index lists, or the one file.

    Args:
        folder: where they lie.
        names: of the one file; the first that is there, itself or its index (`NAME.index.json`), is taken.
    Raises:
        MMCoreError: there is none, or the index is broken or leads out of the folder.
    """
    for name in names:
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                listed = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise MMCoreError(f"{index}: not an index of weights: {error!r}; copy the folder again") from error
            if any(not isinstance(part, str) or Path(part).name != part for part in listed):
                raise MMCoreError(f"{index}: it names files outside its folder; copy the folder again")
            return [folder / part for part in listed]
        if (folder / name).is_file():
            return [folder / name]
    raise MMCoreError(f"{folder}: no {' or '.join(names)} here: not a model folder, or not all of it was copied")


def tensor_names(path: Path) -> list[str]:
    """Names of a file's tensors.

    Raises:
        MMCoreError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{path}: cannot read the weights: {error}; copy the file again") from error


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
