"""Weights of released checkpoints into our modules: built empty, filled one file at a time, checked by name.

    with torch.device("meta"):
        model = Bagel(config)
    fill(model, shards(folder, ["ema.safetensors"]), released_name)

Files of either kind that `mmcore.families.shards` opens will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from mmcore.errors import MMCoreError
from mmcore.families.shards import opened
from mmcore.families.spread import Spread, Where, at, attach, main_device, places


def fill(
    module: nn.Module,
    files: Sequence[Path],
    name: Callable[[str], str],
    convert: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor,
    device: Where = "cpu",
    needless: tuple[str, ...] = (),
) -> None:
    """Give every parameter of a module its tensor from the files, in the dtype that the files have.

    Args:
        module: on the meta device, or anywhere: its parameters are replaced.
        files: of tensors, which together hold each once.
        name: our name of a parameter -> the released one.
        convert: (our name, released tensor) -> the tensor as we hold it.
        device: where the parameters go; over several devices, blocks that lie apart are made to run, too.
        needless: beginnings of released names that are not read.
    Raises:
        MMCoreError: a file cannot be read, or tensors are missing, extra or of another shape; all of them are named.
    """
    wanted = {name(ours): ours for ours in module.state_dict()}
    expected = {ours: tuple(tensor.shape) for ours, tensor in module.state_dict().items()}
    missing, extra, wrong = set(wanted), [], []
    spread = device if isinstance(device, Spread) else None
    apart = places(module, spread, files) if spread else {}
    block_of = {ours: block for block in apart for ours in expected if ours.startswith(f"{block}.")}
    kept: dict[str, tuple[Path, str]] = {}
    for path in files:
        with opened(path, "cpu" if apart else main_device(device)) as file:
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
                if apart:
                    tensor = at(apart[block_of[ours]] if ours in block_of else main_device(device), tensor)
                kept[ours] = path, released
                _put(module, ours, tensor)
    faults = [("missing", sorted(missing)), ("unknown", sorted(extra)), ("of another shape", sorted(wrong))]
    told = [f"{len(names)} {what}: {', '.join(names)}" for what, names in faults if names]
    if told:
        raise MMCoreError(f"{files[0]}: the tensors do not fit the configuration beside it; {'; '.join(told)}")
    if spread:
        attach(module, spread, apart, kept)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
