"""One process of the runs that `test_engine.py` starts: python tests/engine_run.py JOBS.json

Each job has a folder, changes to the recipe, perhaps other documents ("bare"), and what is to happen on the way: "die"
names a rank, a step and a place.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from mmcore.document import Document, Image, Text
from mmcore.training import train
from mmcore.training.checkpoints import older
from mmcore.training.plain import Engine
from mmcore.training.recipe import load_recipe

CHANGES = (
    "precision='fp32'",
    "log_every=1",
    "save_every=2",
    "layout.rows=1",
    "layout.room=[40, 24, 24]",
    "layout.waiting=3",
    "optimizer.warmup=2",
    "optimizer.cooldown=2",
    "validation.every=2",
    "validation.documents=5",
)


def documents(index: int) -> Document:
    """Words and a still of two by two patches; how many words goes up and down, so that ranks have unequal tokens."""
    rng = np.random.default_rng(index)
    frames = np.full((1, 32, 32, 3), rng.integers(40, 200, 3), np.uint8)
    words = Text(" ".join(["a red ball"] * (1 + index % 3)), learn=index % 2 == 1)
    still = Image(frames, learn=index % 2 == 0)
    return Document((words, still) if still.learn else (still, words))


def bare(index: int) -> Document:
    """The same, less the stills of every other one: of two batches of a step one has nothing but words."""
    whole = documents(index)
    return whole if index % 2 else Document((Text(whole.text, learn=True),))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange_death(rank: int, step: int, place: str) -> None:
    """Let this process be killed: in the middle of a step, when its part is saved, or between the two renamings."""
    if int(os.environ.get("RANK", "0")) != rank:
        return
    update, rename = train.train_step, Path.rename

    def dying_step(engine: Engine, *given: object) -> object:
        if place == "step" and engine.done + 1 == step:
            die()
        if place == "saving" and engine.done + 1 == step:
            save = engine.save

            def dying_save(folder: Path) -> None:
                save(folder)
                die()

            engine.save = dying_save
        return update(engine, *given)  # type: ignore[arg-type]

    def dying_rename(path: Path, target: Path) -> Path:
        if place == "renaming" and path.suffix == ".part" and older(Path(target)):
            die()
        return rename(path, target)

    train.train_step = dying_step  # type: ignore[assignment]
    Path.rename = dying_rename  # type: ignore[method-assign]


def main(jobs: Path) -> None:
    torch.set_num_threads(1)
    engine = None
    for job in json.loads(jobs.read_text()):
        if job.get("die"):
            arrange_death(*job["die"])
        recipe = load_recipe("debug", [*CHANGES, *job["changes"]])
        source = None if recipe.data else bare if job.get("bare") else documents
        engine = train.train(recipe, Path(job["folder"]), source, workers=0)
        if job.get("average"):
            averaged = engine.averaged
            if engine.ranks.rank == 0:
                averaged.save_pretrained(Path(job["folder"]) / "averaged")
    if engine:
        engine.ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
