"""Released weights as sharded safetensors: what `mmcore convert` does.

    convert(Path("show-o2-1.5B"), Path("show-o2-1.5B-safetensors"))

The new folder holds all that the old one does, in files that map tensors straight into memory and can hold nothing
else; `mmcore.load` takes it as it takes the old one. Names and numbers stay.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mmcore.errors import MMCoreError
from mmcore.families.shards import INDEXES, opened, weight_files

SHARD = 5_000_000_000
"""Bytes of tensors in a file; no more than that are in memory at once, but for a tensor that is larger by itself."""

PICKLES = (".bin", ".pth", ".pt")
"""Names of what `torch.save` wrote end so."""

INDEX = ".index.json"
"""Names of what says which file holds which tensor end so."""

FORMAT = {"format": "pt"}
"""What `transformers` wants to read in a safetensors file."""


Change = Callable[[str, Tensor], Tensor]
"""(name, tensor) -> what is written under that name."""


def convert(
    source: Path,
    target: Path,
    shard: int = SHARD,
    files: Sequence[Path] | None = None,
    change: Change = lambda _, tensor: tensor,
) -> list[Path]:
    """Write a folder anew: its model as `model-*.safetensors` with an index, other pickled weights as safetensors of
    the same name, the rest as it is. Nothing is there until all of it is.

    Args:
        source: a folder with `pytorch_model*.bin` or `model*.safetensors`.
        target: is made; must not be there yet.
        shard: bytes of tensors in a file of the model, >= 1.
        files: those of the model in the source, where they are called something else.
        change: what is done to the model's tensors on the way.
    Returns:
        The files of the model.
    Raises:
        MMCoreError: there are no weights, a file cannot be read, or the target is there or cannot be written.
    """
    if target.exists():
        raise MMCoreError(f"{target}: is there already; name a folder that is not")
    files = files or weight_files(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            names = _write_model(files, made, shard, change)
            for path in sorted(source.iterdir()):
                if path in files or path.name.endswith(INDEX) or not path.is_file():
                    continue
                if path.suffix in PICKLES:
                    with opened(path) as file:
                        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                    save_file(tensors, made / f"{path.stem}.safetensors", FORMAT)
                else:
                    shutil.copyfile(path, made / path.name)
            made.rename(target)
    except (OSError, SafetensorError) as error:
        raise MMCoreError(f"{target}: cannot write: {error}") from error
    return [target / name for name in names]


def _write_model(files: Sequence[Path], folder: Path, shard: int, change: Change) -> list[str]:
    """Shards and their index; returns the names of the shards."""
    parts: list[list[str]] = []
    total, held, waiting = 0, 0, dict[str, Tensor]()

    def flush() -> None:
        nonlocal held, waiting
        if waiting:
            save_file(waiting, folder / f"{len(parts)}.part", FORMAT)
            parts.append(list(waiting))
            held, waiting = 0, {}

    for path in files:
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                tensor = change(name, file.get_tensor(name))
                if held + tensor.nbytes > shard:
                    flush()
                waiting[name] = tensor
                held += tensor.nbytes
                total += tensor.nbytes
    flush()
    names = [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    for i, name in enumerate(names):
        (folder / f"{i}.part").rename(folder / name)
    where = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEXES[0]).write_text(json.dumps(index, indent=1) + "\n")
    return names
