"""What a run leaves on disk: checkpoints that are whole or not at all, and what is read from them.

    with writing(folder, step): ...                  # a full disk is one clear line
    replace(folder.with_suffix(".part"), folder, keep=2)
    load_averaged(model, Path("runs/tiny/checkpoint"))

Two forms, both safetensors and JSON alone. Where every rank holds all weights: `model/`, `ema/` and
`optimizer.safetensors`. Where they are split over ranks (ZeRO 1 to 3): `shards/`, a file for each rank with the
stretches of flattened float32 tensors that it owns, named "KIND/WEIGHT/START". Any rank can read any stretch, so that a
run goes on with another number of ranks, or at another of these stages.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcore.errors import MMCoreError
from mmcore.quantize import STORED
from mmcore.training.lora import IN, OUT, AdaptedLinear, merged


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """Say in one line what went wrong with a file, and at which step.

    Raises:
        MMCoreError: in place of whatever the writing raised.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = str(getattr(error, "strerror", None) or error).strip().splitlines()[0]
        raise MMCoreError(f"{folder}: cannot write at step {step}: {reason}; make room and start it again") from error


def older(folder: Path) -> list[Path]:
    """The checkpoints that were kept when newer ones took their place, the oldest first."""
    return sorted(folder.parent.glob(f"{folder.name}-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def replace(made: Path, folder: Path, keep: int = 1) -> None:
    """Put a finished checkpoint in the place of the last one; `recover` mends what an end in the midst leaves.

    Args:
        made: whole.
        folder: where the newest checkpoint is; the one that is there moves to a name with its step.
        keep: how many are kept in all, >= 1.
    """
    if folder.exists():
        done = json.loads((folder / "engine.json").read_text())["done"]
        folder.rename(folder.with_name(f"{folder.name}-{done:06d}"))
    made.rename(folder)
    gone = folder.with_suffix(".old")
    for surplus in older(folder)[: 1 - keep or None]:
        shutil.rmtree(gone, ignore_errors=True)
        surplus.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring the last good checkpoint back, if a run ended while a new one was put in its place."""
    if not folder.exists() and (kept := older(folder)):
        kept[-1].rename(folder)


class Shards:
    """Stretches of flattened weights from the files of all ranks: `with Shards(folder) as shards: ...`.

    Args:
        folder: with one safetensors file for each rank that wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, ExitStack()
        self.places: dict[str, list[tuple[int, int, Any, str]]] = {}

    def __enter__(self) -> Shards:
        for path in sorted(self.folder.glob("*.safetensors")):
            file = self.files.enter_context(safe_open(path, "pt"))
            for key in file.keys():  # noqa: SIM118
                name, _, start = key.rpartition("/")
                stop = int(start) + file.get_slice(key).get_shape()[0]
                self.places.setdefault(name, []).append((int(start), stop, file, key))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.files.close()

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """One stretch, (stop - start,), of "KIND/WEIGHT".

        Raises:
            MMCoreError: the files do not hold all of it.
        """
        parts, at = [], start
        for begin, end, file, key in sorted(self.places.get(name, []), key=lambda place: place[0]):
            if begin <= at < end and at < stop:
                parts.append(file.get_slice(key)[at - begin : min(end, stop) - begin])
                at = min(end, stop)
        if at < stop:
            raise MMCoreError(f"{self.folder}: {name} is not all there; copy the checkpoint again, all ranks' files")
        return torch.cat(parts) if parts else torch.empty(0)

    def stretch(self, key: str, length: int) -> Tensor:
        """The stretch that "KIND/WEIGHT/START" begins, of this length; see `read`."""
        name, _, start = key.rpartition("/")
        return self.read(name, int(start), int(start) + length)

    def whole(self, name: str) -> Tensor:
        """All of "KIND/WEIGHT", as far as the files go, flattened."""
        return self.read(name, 0, max(stop for _, stop, _, _ in self.places[name]))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights that a folder holds into a model, in place; all of them, and no others.

    A model without adapters takes a tuned folder's merged into its matrices.
    """
    weights: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        weights |= load_file(shard)
    if any(STORED in name for name in weights):
        raise MMCoreError(f"{folder}: its weights are quantized and cannot learn; start from the full ones")
    adapted = any(isinstance(module, AdaptedLinear) for module in model.modules())
    model.load_state_dict(weights if adapted else merged(weights), strict=True)


@torch.no_grad()
def load_averaged(model: nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's averaged weights into a model, in place, in whichever of the two forms; adapters are merged.

    Raises:
        MMCoreError: not all of them are there.
    """
    if not (checkpoint / "shards").is_dir():
        return load_weights(model, checkpoint / "ema")
    with Shards(checkpoint / "shards") as shards:
        for name, p in model.named_parameters():
            kind = "ema" if f"ema/{name}" in shards.places else "weight"  # frozen weights have no average
            found = {name: shards.read(f"{kind}/{name}", 0, p.numel()).view_as(p)}
            stem = name.removesuffix("weight")
            if f"ema/{stem}{OUT}" in shards.places:
                found[stem + OUT] = shards.whole(f"ema/{stem}{OUT}").view(len(p), -1)
                found[stem + IN] = shards.whole(f"ema/{stem}{IN}").view(-1, p.shape[1])
            p.copy_(merged(found)[name])
