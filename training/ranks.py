"""The processes of a run: which of them this is, and the few things they do together.

    ranks = join(recipe.engine)
    total, = ranks.sum(n)
    ranks.wait()
    ranks.leave()

A launcher says who is who in the environment (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), as
torchrun, the deepspeed launcher and Slurm scripts do; without one there is a single rank, 0.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from mmcore.errors import MMCoreError
from mmcore.training.recipe import Driver

PATIENCE = timedelta(minutes=30)
"""So long ranks wait for each other: for one that scores while the others do nothing, say."""


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run.

    Args:
        rank: its number, from 0; rank 0 writes the log.
        world: how many there are.
        device: where it computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device | str = "cpu"

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        if self.world > 1:
            dist.barrier()

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sum of each number over all ranks."""
        if self.world == 1:
            return values
        return tuple(self.add(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist())

    def leave(self) -> None:
        """End the connection, all together; a process that exits without it may abort."""
        if dist.is_initialized():
            self.wait()
            dist.destroy_process_group()


def join(driver: Driver) -> Ranks:
    """Find this process's place in the run, and connect to the others.

    Args:
        driver: the recipe's table `engine`.
    Raises:
        MMCoreError: plain torch in more than one process, or batches that cannot be dealt out evenly.
    """
    rank, world, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    cuda = torch.cuda.is_available()
    if driver.kind == "torch" and world > 1:
        raise MMCoreError(f'engine.kind="torch" is one process, and {world} were started; set engine.kind=deepspeed')
    if driver.batches % (world * driver.at_once):
        raise MMCoreError(
            f"engine.batches={driver.batches} cannot be dealt out to {world} ranks; set a multiple of "
            f"{world * driver.at_once}"
        )
    if driver.kind == "deepspeed" and not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=PATIENCE)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    return Ranks(rank, world, torch.device("cuda", local) if cuda else "cpu")
