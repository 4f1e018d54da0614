"""What a run will take, before it is paid for: memory on each GPU by part, speed, days and cost.

    mmcore plan 480p --gpus 64 --gpu h100
    mmcore plan tiny preset=1b layout.rows=64 engine.kind=deepspeed engine.zero=2 optimizer.muon=0 --gpus 64 --gpu h100

Weights, gradients and optimizer states are counted; what a step keeps for its backward pass is traced, block by block,
through tensors that hold nothing (`FakeTensorMode`), so a model of any size is planned in seconds on any machine. Speed
follows from arithmetic (`flops`), the GPU's peak and the share of it that is reached, which nobody knows beforehand.
Not counted: what libraries take, and the weights that ZeRO 3 gathers for the block at hand. Weights that stay as they
are (`lora`, rates of 0) have no gradients and no optimizer states; what a step keeps, and how long it takes, is planned
as if they learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from mmcore.attention import Mask
from mmcore.chains import make_chains
from mmcore.config import MMCoreConfig
from mmcore.core import Block
from mmcore.decoder import DecoderBlock
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.pyramid import Floors, Planes, PyramidDown, PyramidUp
from mmcore.sequence import START, Strip
from mmcore.training.flops import Load, forward_flops
from mmcore.training.gpus import Gpu
from mmcore.training.optimizers import let_learn, split_parameters
from mmcore.training.recipe import Recipe
from mmcore.training.subjects import shape


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Args:
        parameters: of the model.
        learnt: how many of them learn.
        medium: positions of the largest medium that it is trained on.
        memory: bytes on each GPU, by part.
        flops: of a batch on each GPU, forwards and backwards.
        positions: of a batch on each GPU, all together.
        seconds: of a batch on each of them.
    """

    parameters: int
    learnt: int
    medium: int
    memory: dict[str, int]
    flops: float
    positions: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Positions a second."""
        return self.positions / self.seconds


def make_plan(recipe: Recipe, gpus: int, gpu: Gpu, reached: float) -> Plan:
    """Plan a run.

    Args:
        recipe: what to train; each GPU has as many batches of its layout at a time as go through the model at once.
        gpus: how many.
        gpu: of which kind.
        reached: share of the peak that is reached, in (0, 1]: model FLOPs utilization (arXiv 2204.02311).
    """
    config = shape(recipe)
    load = Load.full(recipe.engine.at_once * recipe.layout.rows, recipe.layout.room)
    with torch.device("meta"):
        model = MMCoreModel(config)
        let_learn(model, recipe)
        matrices, rest = (sum(p.numel() for p in group) for group in split_parameters(model))
        count = sum(p.numel() for p in model.parameters())
    forward = forward_flops(config, load)
    bf16, again = recipe.precision == "bf16", recipe.engine.checkpointing
    memory = state_bytes(count, matrices, rest, bf16, bool(recipe.optimizer.muon), recipe.engine.zero, gpus)
    memory["activations"] = activation_bytes(config, load, bf16, recipe.attention, again)
    seconds = (4 if again else 3) * forward / (gpu.peak * reached)
    positions = gpus * load.rows * sum(load.lengths)
    sizes = config.sizes or ((config.frames, config.height, config.width_px),)
    medium = max(1 + math.prod(config.grid(size)) for size in sizes)
    return Plan(count, matrices + rest, medium, memory, 3.0 * forward * gpus, positions, seconds)


def state_bytes(count: int, matrices: int, rest: int, bf16: bool, muon: bool, zero: int, ranks: int) -> dict[str, int]:
    """What one rank holds of the model's states, by part.

    Args:
        count: the model's parameters.
        matrices: those that learn and lie in matrices that Muon would step.
        rest: the others that learn.
        bf16: whether products are in bfloat16: then there is a copy of the weights in it beside the float32 ones.
        muon: whether matrices have one state (Muon) rather than two (AdamW).
        zero: ZeRO stage: 1 splits optimizer states, float32 weights and their average over ranks, 2 gradients, 3 the
            weights themselves.
        ranks: over how many they are split.
    """
    whole = {
        "optimizer": 4 * matrices * (1 if muon else 2) + 8 * rest,
        "average": 4 * count,
        "gradients": (2 if zero and bf16 else 4) * (matrices + rest),
        "weights": 4 * count,
        "weights in bf16": 2 * count if bf16 else 0,
    }
    split = {"optimizer": 1, "average": 1, "weights": 1 if bf16 else 3, "gradients": 2, "weights in bf16": 3}
    return {name: size // (ranks if zero >= split[name] else 1) for name, size in whole.items() if size}


def saved_bytes(run: Callable[[], object], owned: Iterable[Tensor]) -> int:
    """Bytes that a computation keeps for its backward pass, without tensors that are held anyhow."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    for tensor in owned:
        held.pop(tensor.untyped_storage()._cdata, None)
    return sum(held.values())


def activation_bytes(config: MMCoreConfig, load: Load, bf16: bool, backend: str, checkpointing: bool) -> int:
    """Bytes that a step keeps between its forward and its backward pass.

    Args:
        config: the model's shape.
        load: the batch of one rank.
        bf16: whether products are in bfloat16 (autocast).
        backend: of attention; the fused ones keep no scores.
        checkpointing: keep what enters each block, and one block whole.
    """
    (lt, lc, lx), rows, d = load.lengths, load.rows, config.width
    length, visual = lt + lc + lx, rows * (lc + lx)
    dtype = torch.bfloat16 if bf16 else torch.float32
    linear = sum(map(config.is_linear, range(config.depth)))
    strip = Strip()
    strip.text([START] * length)
    order = make_chains(pack([[strip]] * rows, 1).marks, False)
    with FakeTensorMode() as fake, torch.autocast("cpu", torch.bfloat16, enabled=bf16):

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, requires_grad=True)

        def traced(module: nn.Module, run: Callable[[], object], *inputs: Tensor) -> int:
            return saved_bytes(run, (*module.parameters(), *inputs))

        def surroundings(span: int) -> tuple[Tensor, tuple[Tensor, Tensor], Mask]:
            turn = torch.empty(rows, 1, span, config.head_width)
            mask = torch.empty(rows, 1, span, span, dtype=dtype)
            return torch.empty(rows, span, 3 * d), (turn, turn), Mask(additive=mask, dense=backend == "dense")

        block, decoder = Block(config), DecoderBlock(config)
        level, rope, mask = surroundings(length)
        x = empty(rows, length, d)
        full = traced(block, lambda: block(x, level[:, lt:], lt, rope, mask), level, *rope, _of(mask))
        core = [full] * (config.depth - linear)
        if linear:
            other, chains = Block(config, linear=True), order.mapped(fake.from_tensor)
            core += [traced(other, lambda: other(x, level[:, lt:], lt, chains), level)] * linear
        level, rope, mask = surroundings(lx)
        y, skip = empty(rows, lx, d), empty(rows, lx, d)
        late = traced(decoder, lambda: decoder(y, skip, level, rope, mask), skip, level, *rope, _of(mask))
        ends = _pyramid_bytes(config, load, traced) if config.floors else visual * 4 * (config.patch_width + 2 * d)
    words = load.words * (2 * 4 * config.vocab_size + 4 * d)
    loss = rows * lx * 4 * config.patch_width  # the error of the predicted patches
    if checkpointing:
        entering = 4 * rows * d * (config.depth * length + 2 * config.decoder_depth * lx)
        return entering + max(*core, late) + ends + words + loss
    return sum(core) + config.decoder_depth * late + ends + words + loss


def _of(mask: Mask) -> Tensor:
    assert mask.additive is not None
    return mask.additive


def _pyramid_bytes(config: MMCoreConfig, load: Load, traced: Callable[..., int]) -> int:
    """What the pyramid keeps, on its way down and up."""
    y, x = config.height // config.patch[1], config.width_px // config.patch[2]
    down, up = PyramidDown(config), PyramidUp(config)
    sizes = [2 ** (len(config.floors) - i) for i in range(len(config.floors))]

    def floors(patches: int) -> Floors:
        n = patches // (y * x)
        held = [torch.empty(n, y * s, x * s, c, requires_grad=True) for s, c in zip(sizes, config.floors, strict=True)]
        where = torch.empty(n, y * x, dtype=torch.int64)
        return Floors(Planes((y, x), where), held, torch.empty(n, config.width, requires_grad=True))

    below, above = floors(load.patches), floors(load.targets)
    patches = torch.empty(1, load.patches, config.patch_width)
    state = torch.empty(1, load.patches, config.width, requires_grad=True)
    hidden = torch.empty(1, load.targets, config.width, requires_grad=True)
    planes = below.planes
    entering = traced(down, lambda: down(patches, state, [planes]), planes.where)
    return entering + traced(up, lambda: up(hidden, [above]), above.planes.where, *above.held)


def table(plan: Plan, gpus: int, gpu: Gpu, positions: float | None, price: float | None) -> str:
    """A plan for people.

    Args:
        plan: what was planned.
        gpus: how many.
        gpu: of which kind.
        positions: how many to train on in all; then days are given.
        price: of a GPU for an hour; then cost is given.
    """
    total = sum(plan.memory.values())
    lines = [f"{'parameters':22} {plan.parameters / 1e6:12,.1f} million"]
    if plan.learnt < plan.parameters:
        lines += [f"{'of which learn':22} {plan.learnt / 1e6:12,.3f} million"]
    lines += [f"{'positions of a medium':22} {plan.medium:12,}"]
    lines += [f"{name:22} {size / 1e9:12,.2f} GB" for name, size in plan.memory.items()]
    fits = "fits" if total < 0.9 * gpu.memory else "does not fit"
    lines += [
        f"{'on each GPU':22} {total / 1e9:12,.2f} GB of {gpu.memory / 1e9:.0f}: {fits} (a tenth is left to others)"
    ]
    lines += [f"{'positions a second':22} {plan.per_second:12,.0f}"]
    if positions:
        days = positions / plan.per_second / 86400
        lines += [f"{'days':22} {days:12,.2f}"]
        if price:
            lines += [f"{'cost':22} {days * 24 * gpus * price:12,.0f}"]
    return "\n".join(lines)
