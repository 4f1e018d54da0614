"""A network over several devices: blocks on other GPUs, in memory, or left in their files, by `accelerate`.

    model = load_bagel(folder, Spread("cuda:0", "auto"))
    model = load_bagel(folder, Spread("cpu", {"core.layers": "disk"}))

All but the blocks of the core and of a diffusion head lies on the main device. A block on another GPU runs there; one
that lies in memory or in its file is brought to the main device each time it runs. What "auto" fills, in this order:
the main GPU, other GPUs, memory, files. Wants `pip install mmcore[families]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.errors import MMCoreError
from mmcore.families.diffusion_head import HeadBlock
from mmcore.families.experts import ExpertLayer

DISK = "disk"
"""Where a block is that stays in its file."""

SHARE = 0.8
"""Of the memory that is free, what weights may take: the rest is for caches and what is computed."""

STAYS = "past"
"""What a block is given that lies where it runs already, and is written into: it must not be copied."""

DeviceMap = str | Mapping[str, int | str]
"""`"auto"`, or where blocks go by their names or the beginnings of these: a device, or "disk"."""


@dataclass(frozen=True)
class Spread:
    """Where a network goes.

    Args:
        main: the device of all that is no block, and of blocks that the map does not name.
        blocks: where blocks go.
    """

    main: torch.device | str
    blocks: DeviceMap


Where = torch.device | str | Spread
"""One device, or several."""


def main_device(where: Where) -> torch.device | str:
    """The one device that inputs go to."""
    return where.main if isinstance(where, Spread) else where


def blocks_of(network: nn.Module) -> dict[str, ExpertLayer | HeadBlock]:
    """The blocks that may lie apart, by name, in the order in which they run."""
    return {name: part for name, part in network.named_modules() if isinstance(part, ExpertLayer | HeadBlock)}


def places(network: nn.Module, spread: Spread, files: Sequence[Path]) -> dict[str, torch.device | str]:
    """Where each block goes that does not stay on the main device: a device or "disk".

    Args:
        network: on the meta device.
        spread: what is asked for.
        files: of its weights.
    Raises:
        MMCoreError: a name in the map is no block's, a device makes no sense, or `accelerate` is not installed.
    """
    _accelerate()
    blocks, main = blocks_of(network), torch.device(spread.main)
    if not blocks:
        return {}
    if isinstance(spread.blocks, str):
        if spread.blocks != "auto":
            raise MMCoreError(f'device_map must be "auto" or a map of blocks to devices, got {spread.blocks!r}')
        found = _filled(network, blocks, main, files)
    else:
        for key in spread.blocks:
            if not any(_within(name, key) for name in blocks):
                raise MMCoreError(f"device_map: {key!r} names no block; blocks are {', '.join(blocks)}")
        keys = sorted(spread.blocks, key=len)
        found = {name: spread.blocks[key] for key in keys for name in blocks if _within(name, key)}
    chosen = {name: DISK if place == DISK else _device(place) for name, place in found.items()}
    pickled = [path for path in files if path.suffix != ".safetensors"]
    if pickled and DISK in chosen.values():
        raise MMCoreError(f"{pickled[0]}: blocks cannot stay in pickled files: make safetensors with mmcore convert")
    return {name: place for name, place in chosen.items() if place != main}


def _within(name: str, key: str) -> bool:
    return not key or f"{name}.".startswith(f"{key}.")


def _device(place: int | str | torch.device) -> torch.device:
    try:
        return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
    except (RuntimeError, TypeError) as error:
        raise MMCoreError(f'device_map: {place!r} is no device, nor "disk"') from error


def _filled(
    network: nn.Module, blocks: Mapping[str, nn.Module], main: torch.device, files: Sequence[Path]
) -> dict[str, int | str]:
    """The first places with room, in order."""
    from accelerate.utils import get_max_memory

    def numbers(part: nn.Module) -> int:
        return sum(tensor.numel() for tensor in part.state_dict().values())

    bytes_each = sum(path.stat().st_size for path in files) / numbers(network)
    room = {str(_device(place)): SHARE * free for place, free in get_max_memory().items()}
    where = str(torch.device("cuda", main.index or 0) if main.type == "cuda" else main)
    others = sorted(place for place in room if place not in (where, "cpu"))
    order = list(dict.fromkeys((where, *others, "cpu", DISK)))
    room[where] -= bytes_each * (numbers(network) - sum(map(numbers, blocks.values())))
    found: dict[str, int | str] = {}
    for name, block in blocks.items():
        need = bytes_each * numbers(block)
        while order[0] != DISK and room[order[0]] < need:
            order.pop(0)
        found[name] = order[0]
        room[order[0]] = room.get(order[0], 0) - need
    return {name: place for name, place in found.items() if place != where}


def attach(
    network: nn.Module,
    spread: Spread,
    chosen: Mapping[str, torch.device | str],
    kept: Mapping[str, tuple[Path, str]],
) -> None:
    """Make blocks run that do not lie on the main device, in place.

    Args:
        network: loaded; blocks that stay in files on the meta device.
        spread: what is asked for.
        chosen: from `places`.
        kept: for each parameter of these, its file and its name there.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module
    from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset

    main, blocks = torch.device(spread.main), blocks_of(network)
    index = {ours: {"safetensors_file": str(path), "weight_name": name} for ours, (path, name) in kept.items()}
    for name, place in chosen.items():
        if place == DISK:
            read = PrefixedDataset(OffloadedWeightsLoader(index=index), f"{name}.")
            hook = AlignDevicesHook(main, True, weights_map=read, place_submodules=True, skip_keys=STAYS)
        elif place == torch.device("cpu"):
            hook = AlignDevicesHook(main, True, place_submodules=True, skip_keys=STAYS)
        else:
            hook = AlignDevicesHook(place, place_submodules=True, skip_keys=STAYS)
            blocks[name].home = torch.device(place)
        add_hook_to_module(blocks[name], hook)


def at(place: torch.device | str, tensor: Tensor) -> Tensor:
    """A tensor where it is to lie; of one that stays in its file, no more than shape and dtype."""
    return tensor.to("meta" if place == DISK else place)


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError as error:
        raise MMCoreError("device_map needs accelerate: pip install mmcore[families]") from error
    return accelerate
