"""Beside a live peer, `transfusion-pytorch`, at equal size and on equal work, in one run.

    pip install mmcore[peer]; mmcore bench --peer

Both have width 256 and six blocks in all, take 3072-number pixel patches, predict clean patches, train with AdamW (our
blocks compiled, as in our recipes), and make 25 guided Euler steps (so 25 evaluations with and 25 without the
condition) with their caches, not compiled. All is done in float32 and in bf16, and each is given the faster of the two,
which depends on the processor: both train in autocast; to sample, ours is cast, and the peer, which cannot be, runs in
autocast. Our attention is the dense one, the fastest for rows so short. Each runs in a process of its own, in turns,
and the best of two turns counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.backbone import Guidance, Native
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.generate import Order, Settings, write
from mmcore.memory import keep_freed_memory
from mmcore.model import MMCoreModel, flow_losses
from mmcore.packing import pack
from mmcore.sequence import IMAGE, VIDEO, Patches, Tokens, document_strip
from mmcore.training.bench import Row, best, fresh
from mmcore.training.meter import peak_megabytes

STILL, CLIP = (1, 4, 4), (4, 4, 4)
WORDS, STEPS, PATCH_WIDTH, TEXT_TOKENS = 12, 25, 3072, 256
BATCH = {STILL: 48, CLIP: 16}

Grid = tuple[int, int, int]


def documents(grid: Grid, count: int) -> Iterator[tuple[list[int], Tensor]]:
    """Random words with random patches (N, P)."""
    generator = torch.Generator().manual_seed(0)
    n = grid[0] * grid[1] * grid[2]
    for _ in range(count):
        ids = torch.randint(16, TEXT_TOKENS, (WORDS,), generator=generator).tolist()
        yield ids, torch.randn(n, PATCH_WIDTH, generator=generator).clamp(-1, 1)


def samples_per_second(model: nn.Module, loss: Callable[[], Tensor], batch: int) -> float:
    """Training steps on one batch, over and over, in the precision that is faster."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return batch / min(best(partial(step, bf16), 4) for bf16 in (True, False))


def ours() -> dict[str, float]:
    """Measure mmcore, in a process that keeps freed memory, as `mmcore.load` and `mmcore train` see to."""
    keep_freed_memory()
    torch.manual_seed(0)
    model = MMCoreModel(MMCoreConfig(vocab_size=TEXT_TOKENS, **PRESETS["peer"]))
    model.backend = "dense"
    for block in (*model.core.blocks, *model.decoder.blocks):
        block.compile()
    found: dict[str, float] = {}
    for grid, name in ((STILL, "stills"), (CLIP, "clips")):
        opener = IMAGE if grid is STILL else VIDEO
        strips = [
            document_strip([Tokens(ids, False), Patches(values, grid, opener, True)], last_context=False)
            for ids, values in documents(grid, BATCH[grid])
        ]
        rows = 24 if grid is STILL else BATCH[grid]
        seq = pack([strips[r::rows] for r in range(rows)], PATCH_WIDTH)
        noise = torch.Generator().manual_seed(0)

        def loss(seq=seq, noise=noise) -> Tensor:
            losses = flow_losses(model, seq, noise)
            return losses.text + losses.flow

        found[f"training {name}"] = samples_per_second(model, loss, BATCH[grid])
    found["training memory"] = peak_megabytes()
    # No words before the clip and guidance at every step, as the peer does it.
    settings = Settings(STEPS, Guidance(3.0, since=0.0), tokens=0)
    for count, name in ((1, "one clip"), (8, "eight clips")):
        orders = [Order([Tokens(ids, False)], {VIDEO: CLIP}, VIDEO, seed=0) for ids, _ in documents(CLIP, count)]
        seconds: list[float] = []
        for dtype in (torch.float32, torch.bfloat16):
            writer = MMCoreModel(model.config).eval().to(dtype)  # type: ignore[arg-type]
            writer.backend = "dense"
            backbone = Native(writer)
            seconds.append(best(lambda b=backbone, o=orders: list(write(b, o, settings)), 2))
        found[name] = min(seconds)
    return found


def theirs() -> dict[str, float]:
    """Measure transfusion-pytorch."""
    from loguru import logger  # type: ignore[import-not-found]
    from transfusion_pytorch import Transfusion  # type: ignore[import-not-found]

    logger.remove()
    torch.manual_seed(0)
    model = Transfusion(
        num_text_tokens=TEXT_TOKENS,
        dim_latent=PATCH_WIDTH,
        modality_default_shape=CLIP,
        modality_num_dim=3,
        add_pos_emb=True,
        model_output_clean=True,
        odeint_kwargs={"method": "euler"},
        transformer={"dim": 256, "depth": 6, "dim_head": 64, "heads": 4},
    )
    found: dict[str, float] = {}
    for grid, name in ((STILL, "stills"), (CLIP, "clips")):
        batch = [[torch.tensor(ids), (0, values.view(*grid, -1))] for ids, values in documents(grid, BATCH[grid])]
        found[f"training {name}"] = samples_per_second(model, lambda batch=batch: model(batch), BATCH[grid])
    found["training memory"] = peak_megabytes()
    model.eval()

    def sample(prompts: list[Tensor], bf16: bool) -> None:
        # A cached prompt ends with the token that opens the clip; 26 times bound 25 steps.
        opened: list[Any] = [[torch.cat((ids, torch.tensor([model.som_ids[0]])))] for ids in prompts]
        options = {"max_length": 1, "modality_steps": STEPS + 1, "cfg_scale": 3.0, "fixed_modality_shape": CLIP}
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if len(opened) == 1:
                model.sample_one(opened[0], cache_kv=True, **options)
            else:
                model.sample_many(opened, **options)

    for count, name in ((1, "one clip"), (8, "eight clips")):
        prompts = [torch.tensor(ids) for ids, _ in documents(CLIP, count)]
        found[name] = min(best(partial(sample, prompts, bf16), 2) for bf16 in (False, True))
    return found


def bench_peer(_: str | None = None) -> list[Row]:
    """Measure both, in turns.

    Raises:
        MMCoreError: the peer is not installed.
    """
    if find_spec("transfusion_pytorch") is None:
        raise MMCoreError("transfusion-pytorch is not installed; install it with: pip install mmcore[peer]")
    turns = {who: [] for who in ("ours", "theirs")}
    for _turn in range(2):
        for who, found in turns.items():
            found.append(fresh("mmcore.training.bench_peer", who))
    rows: list[Row] = []
    for name in turns["ours"][0]:
        pick = max if name in ("training stills", "training clips") else min
        a, b = (pick(found[name] for found in turns[who]) for who in ("ours", "theirs"))
        unit = "MB" if "memory" in name else "/s" if pick is max else "s"
        ratio = a / b if pick is max else b / a
        rows.append(Row(name, f"{a:9.2f} {unit:3} peer {b:9.2f} {unit:3} {ratio:6.2f} x", ratio))
    return rows


if __name__ == "__main__":
    print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[1]]()))
