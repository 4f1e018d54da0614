"""The weights of a folder, in whatever files they were released: safetensors, or `torch.save`'s, one or many.

    for path in weight_files(folder):
        with opened(path) as file:
            for name in file.keys():
                tensor = file.get_tensor(name)

Nothing is unpickled but tensors (`weights_only`). Files are mapped, not read: a tensor takes memory when it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmcore.errors import MMCoreError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Which file holds which tensor."""

PATTERNS = ("model*.safetensors", "pytorch_model*.bin")
"""Files of a folder that has no index; the first kind that is there is taken."""


class Tensors(Protocol):
    """A file of named tensors, as `safetensors.safe_open` gives it."""

    def keys(self) -> list[str]:
        """The names."""
        ...

    def get_tensor(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""
        ...


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: those that the folder's index names, else those named as weights are.

    Raises:
        MMCoreError: there are none, an index is broken, or a file that it names is missing.
    """
    for name in INDEXES:
        if (folder / name).is_file():
            return _indexed(folder / name)
    for pattern in PATTERNS:
        if found := sorted(folder.glob(pattern)):
            return found
    raise MMCoreError(f"{folder}: no weights here ({' or '.join(PATTERNS)}); copy the folder again")


def shards(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of a model whose weights are called something else: those that an index lists, or the one file.

    Args:
        folder: where they lie.
        names: of the one file; the first that is there, itself or its index (`NAME.index.json`), is taken.
    Raises:
        MMCoreError: there is none, or the index is broken or leads out of the folder.
    """
    for name in names:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
        if (folder / name).is_file():
            return [folder / name]
    raise MMCoreError(f"{folder}: no {' or '.join(names)} here: not a model folder, or not all of it was copied")


def tensor_names(path: Path) -> list[str]:
    """Names of a file's tensors.

    Raises:
        MMCoreError: it cannot be read.
    """
    with opened(path) as file:
        return list(file.keys())


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MMCoreError(f"{index}: cannot read: {error}; copy the file again") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not Path(name).suffix:
            raise MMCoreError(f"{index}: {name!r} is not the name of a file beside it; copy the folder again")
        if not (index.parent / name).is_file():
            raise MMCoreError(f"{index.parent / name}: missing, though the index beside it names it; copy it again")
    return [index.parent / name for name in names]


class _Saved:
    """What `torch.save` wrote."""

    def __init__(self, tensors: dict[str, Tensor], device: str) -> None:
        self.tensors, self.device = tensors, device

    def keys(self) -> list[str]:
        """See `Tensors`."""
        return list(self.tensors)

    def get_tensor(self, name: str) -> Tensor:
        """See `Tensors`."""
        return self.tensors[name].to(self.device, copy=True, memory_format=torch.contiguous_format)


@contextmanager
def opened(path: Path, device: torch.device | str = "cpu") -> Iterator[Tensors]:
    """The tensors of a file.

    Args:
        path: a safetensors file, or one that `torch.save` wrote from a dictionary of tensors.
        device: where tensors go.
    Raises:
        MMCoreError: it cannot be read, or holds something else than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt", device=str(device)) as file:
                yield file
            return
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{path}: cannot read the weights: {error}; copy the file again") from error
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnpicklingError, ValueError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{path}: cannot read the weights: {reason}; copy the file again") from error
    if not isinstance(saved, dict) or not all(isinstance(tensor, Tensor) for tensor in saved.values()):
        raise MMCoreError(f"{path}: tensors by name are expected, and nothing else")
    yield _Saved(saved, str(device))
