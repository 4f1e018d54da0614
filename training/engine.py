"""What drives a step: precision, gradients, optimizers, the average of weights, and the state that resumes exactly.

    engine = make_engine(model, recipe, ranks)
    text, flow = engine.losses([batch], [generator])
    engine.backward(loss)                      # as often as a step has batches
    norm = engine.step()
    engine.save(folder); engine.load(folder)

The loop in `training/train.py` knows nothing of this but these methods. `Engine` is plain torch in one process,
`Replicated` is DeepSpeed with all of the state on every rank (ZeRO 0), `Sharded` has it split over ranks (ZeRO 1 to 3:
arXiv 1910.02054). The three take the same steps. A run is started by any of

    mmcore train tiny                                                                     # one process
    mmcore train reading engine.kind=deepspeed engine.zero=2 optimizer.muon=0             # by DeepSpeed, state split
    torchrun --nproc-per-node 8 -m mmcore train tiny engine.kind=deepspeed engine.batches=8
    deepspeed --num_gpus 8 --no_local_rank --module mmcore train tiny engine.kind=deepspeed engine.batches=8
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        -m mmcore train tiny engine.kind=deepspeed engine.batches=16                      # on each of two nodes
    deepspeed --hostfile HOSTS --no_ssh --node_rank N --master_addr HOST --no_local_rank \
        --module mmcore train tiny engine.kind=deepspeed engine.batches=16                # on each node
    srun bash -c 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID \
        mmcore train tiny engine.kind=deepspeed engine.batches=16'                        # one task a GPU

where all nodes see the run's folder. HOSTS has a line such as "node1 slots=8" for each; --node_rank counts them from 0.
In Slurm, MASTER_ADDR (the first node) and MASTER_PORT are set before `srun`.

Each loss of a step is the mean over the tokens of all its batches, whichever rank has them: the loop weighs each
batch's mean by its share of them, and gradients are summed over batches and ranks. So the ranks of a run may be more or
fewer without changing what is computed.
"""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.pyramid import PyramidDown, PyramidUp
from mmcore.training.checkpoints import Shards
from mmcore.training.lora import add_adapters
from mmcore.training.optimizers import average
from mmcore.training.plain import Engine
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import Recipe

DATA_DEPENDENT = PyramidDown, PyramidUp
"""Modules whose weights are used as often as a batch asks for; ZeRO 3 gathers the weights of each of them at once."""


class Replicated(Engine):
    """Trains by DeepSpeed, every rank with all weights, gradients and optimizer state."""

    def __init__(self, model: MMCoreModel, recipe: Recipe, ranks: Ranks) -> None:
        super().__init__(model, recipe, ranks)
        self.objective = self.driver = self.drive()

    def drive(self) -> Any:
        """DeepSpeed's own engine for the objective.

        Raises:
            MMCoreError: DeepSpeed is not installed.
        """
        try:
            import deepspeed
            from deepspeed.utils import set_z3_leaf_modules
        except ImportError as error:
            raise MMCoreError("engine.kind=deepspeed needs DeepSpeed: pip install mmcore[train]") from error
        os.environ.setdefault("LOCAL_RANK", "0")
        # Else it compiles an extension for shared memory; gloo does without.
        deepspeed.ops.__compatible_ops__ = {}  # type: ignore[attr-defined]
        deepspeed.utils.logger.setLevel(logging.WARNING)
        set_z3_leaf_modules(self.objective, list(DATA_DEPENDENT), raise_if_not_found=False)
        recipe = self.recipe
        stage: dict[str, object] = {"stage": recipe.engine.zero}
        if recipe.engine.offload:
            stage["offload_optimizer"] = {"device": "cpu"}
        config = {
            "train_micro_batch_size_per_gpu": recipe.layout.rows,
            "gradient_accumulation_steps": recipe.engine.batches // recipe.engine.at_once // self.ranks.world,
            "gradient_clipping": recipe.optimizer.clip if recipe.engine.zero else 0.0,
            "bf16": {"enabled": recipe.engine.zero > 0 and recipe.precision == "bf16"},
            "zero_optimization": stage,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        return deepspeed.initialize(model=self.objective, optimizer=self.optimizer, config=config)[0]

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients; DeepSpeed divides the sum over ranks by their number, which is undone here."""
        self.driver.backward(loss * self.ranks.world, scale_wrt_gas=False)
        if not self.driver.is_gradient_accumulation_boundary():
            self.driver.step()

    def update(self) -> float:
        """Clip the gradients, step, and forget them; returns their norm."""
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip))
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)  # so that the step moves nothing
        self.driver.step()
        return norm


@dataclass(frozen=True)
class Piece:
    """The stretch of a flattened weight that a rank owns, and where it lies in one of the rank's buffers."""

    buffer: Tensor
    offset: int
    start: int
    length: int

    def within(self, buffer: Tensor) -> Tensor:
        """The same stretch of a buffer of this shape, such as one of optimizer state: a view, (length,)."""
        return buffer.detach().narrow(0, self.offset, self.length)


class Sharded(Replicated):
    """Trains by DeepSpeed with ZeRO 1 to 3: each rank steps, averages and saves the float32 stretches that it owns.

    Frozen weights are split likewise, and kept as they were: DeepSpeed rounds its copy where it computes in bfloat16.
    """

    def __init__(self, model: MMCoreModel, recipe: Recipe, ranks: Ranks) -> None:
        frozen = {name: self.share(p.detach(), ranks) for name, p in model.named_parameters() if not p.requires_grad}
        self.frozen = {name: piece for name, piece in frozen.items() if piece.length}
        super().__init__(model, recipe, ranks)
        found = {name: self.piece(p) for name, p in self.model.named_parameters() if p.requires_grad}
        self.pieces = {name: piece for name, piece in found.items() if piece.length}
        self.mean = {name: piece.within(piece.buffer).clone() for name, piece in self.pieces.items()}
        self.averages = 0

    def drive(self) -> Any:
        """DeepSpeed's own engine; the embedding is used by the text head as well, outside of its own module."""
        driver = super().drive()
        if self.recipe.engine.zero == 3:
            from deepspeed import zero

            zero.register_external_parameter(self.objective, self.model.embedding.weight)
        return driver

    @staticmethod
    def share(weight: Tensor, ranks: Ranks) -> Piece:
        """A rank's stretch of a frozen weight, as a copy on the CPU."""
        flat = weight.flatten()
        held = -(-len(flat) // ranks.world)
        start = min(ranks.rank * held, len(flat))
        stretch = flat[start : start + held].to("cpu", torch.float32, copy=True)
        return Piece(stretch, 0, start, len(stretch))

    def piece(self, p: nn.Parameter) -> Piece:
        """Where the float32 values of a weight are; of length 0 where none are on this rank."""
        zero: Any = self.driver.optimizer
        weight: Any = p
        if self.recipe.engine.zero == 3:
            group, offset, held = zero.grad_position[zero.get_param_id(p)]
            start = self.ranks.rank * held
            return Piece(
                zero.fp32_partitioned_groups_flat[group], offset, start, max(0, min(held, weight.ds_numel - start))
            )
        place = weight._hp_mapping
        if place is None:
            return Piece(torch.empty(0), 0, 0, 0)
        here, there = place.hp_fragment_address, place.lp_fragment_address
        buffer = zero.single_partition_of_fp32_groups[place.param_group_index]
        return Piece(buffer, here.start, there.start, here.numel)

    def update(self) -> float:
        """Clip the gradients, step, and forget them; returns their norm. DeepSpeed leaves out what is not finite."""
        self.driver.step()
        return float(self.driver.get_global_grad_norm())

    def begin_average(self) -> None:
        """The average begins once the weights are split."""

    def move_average(self) -> None:
        """Take the weights after a step into the average, each rank its own."""
        current = [piece.within(piece.buffer) for piece in self.pieces.values()]
        average(list(self.mean.values()), current, self.averages, self.recipe.optimizer.ema)
        self.averages += 1

    @property
    @torch.no_grad()
    def averaged(self) -> MMCoreModel:
        """The averaged weights gathered from all ranks into a new model. All ranks ask for it together."""
        model = MMCoreModel(self.model.config)
        if self.recipe.lora:
            add_adapters(model, model.core.blocks, self.recipe.lora)
        model.to(self.device)  # type: ignore[arg-type]
        for name, p in model.named_parameters():
            p.zero_()
            if piece := self.pieces.get(name) or self.frozen.get(name):
                stretch = self.mean.get(name, piece.buffer)
                p.flatten()[piece.start : piece.start + piece.length] = stretch.to(self.device)
            self.ranks.add(p)
        return model

    def held(self) -> dict[str, Tensor]:
        """Views of all that this rank owns, by "KIND/WEIGHT/START"."""
        found: dict[str, Tensor] = {}
        for name, piece in self.pieces.items():
            state = self.optimizer.state[piece.buffer]
            kinds = {key: piece.within(state[key]) for key in ("exp_avg", "exp_avg_sq")}
            kinds |= {"weight": piece.within(piece.buffer), "ema": self.mean[name]}
            found |= {f"{kind}/{name}/{piece.start}": stretch for kind, stretch in kinds.items()}
        return found

    def held_frozen(self) -> dict[str, Tensor]:
        """Its stretches of frozen weights, named likewise."""
        return {f"weight/{name}/{piece.start}": piece.buffer for name, piece in self.frozen.items()}

    def save(self, folder: Path) -> None:
        """Write this rank's stretches of weights, averaged weights and optimizer state, as safetensors."""
        shards = folder / "shards"
        shards.mkdir(exist_ok=True)
        held = {key: stretch.contiguous() for key, stretch in (self.held() | self.held_frozen()).items()}
        save_file(held, shards / f"{self.ranks.rank:05d}-of-{self.ranks.world:05d}.safetensors")
        if self.ranks.rank == 0:
            self.model.config.save_pretrained(shards)
            counts = {"done": self.done, "averaged": self.averages}
            (folder / "engine.json").write_text(json.dumps(counts))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, at any stage from 1 on and with any number of ranks.

        Raises:
            MMCoreError: a file is missing, or of another model, or of a run whose state was not split; or what is
                frozen is not what the run began with.
        """
        zero: Any = self.driver.optimizer
        try:
            counts = json.loads((folder / "engine.json").read_text())
            for piece in self.pieces.values():
                state = self.optimizer.state[piece.buffer]
                state["step"] = torch.tensor(float(counts["averaged"]), device=piece.buffer.device)
                state.setdefault("exp_avg", torch.zeros_like(piece.buffer))
                state.setdefault("exp_avg_sq", torch.zeros_like(piece.buffer))
            if self.recipe.engine.zero == 3:
                zero.checkpoint_event_prologue()
            with Shards(folder / "shards") as shards:
                for key, stretch in self.held().items():
                    stretch.copy_(shards.stretch(key, len(stretch)))
                for key, stretch in self.held_frozen().items():
                    if not torch.equal(stretch, shards.stretch(key, len(stretch))):
                        raise ValueError(f"{key} is frozen, and not what it was; start from the same as before")
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise MMCoreError(f"{folder}: cannot resume: {error}") from error
        if self.recipe.engine.zero == 3:
            for group in range(len(zero.fp32_partitioned_groups_flat)):
                zero._reassign_or_swap_out_partitioned_parameters(group)
            zero.checkpoint_event_epilogue()
        else:
            zero.update_lp_params()
        self.done, self.averages = counts["done"], counts["averaged"]


def make_engine(model: MMCoreModel, recipe: Recipe, ranks: Ranks) -> Engine:
    """The engine that a recipe asks for."""
    if recipe.engine.kind == "torch":
        return Engine(model, recipe, ranks)
    return (Sharded if recipe.engine.zero else Replicated)(model, recipe, ranks)
