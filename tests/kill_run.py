"""Runs that are killed at random moments, again and again, until they end: python tests/kill_run.py FOLDER KILLS SEED

First one run goes unbroken; then others are killed (SIGKILL) up to four steps after they were last, at a moment drawn
within the next step or two, and started again, until so many have been. Each that ends, the last with no more kills,
must have logged the very same losses. What happened is printed as JSON. Runs are forked from this process, which has
imported all and done nothing, so that starting again costs little.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import sys
import time
from pathlib import Path

import torch

from mmcore.training.log import read_log
from mmcore.training.recipe import load_recipe
from mmcore.training.train import train
from tests.engine_run import CHANGES, documents

STEPS = 16


def run(folder: Path) -> None:
    """One life of a run: from where its checkpoint is, to the end if nobody kills it."""
    torch.set_num_threads(1)
    changes = [*CHANGES, f"steps={STEPS}", "keep=2", "optimizer.cooldown=6"]
    train(load_recipe("debug", changes), folder, documents, workers=0)


def last_step(folder: Path) -> int:
    """The last step that a run has logged."""
    return int(max((line["step"] for line in read_log(folder)), default=0))


def live(folder: Path, step: int | None = None, seconds: float = 0.0) -> bool:
    """Start a run, and kill it some time after it has logged a step, if it has not ended by then; whether it was."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder,))
    process.start()
    while step is not None and process.exitcode is None and last_step(folder) < step:
        process.join(0.005)
    process.join(None if step is None else seconds)
    killed = process.exitcode is None
    if killed:
        process.kill()
        process.join()
    if not killed and process.exitcode:
        raise SystemExit(f"{folder}: the run stopped by itself with exit code {process.exitcode}")
    return killed


def losses(folder: Path) -> list[dict[str, float]]:
    """What a log says of each step, times and speeds aside."""
    kept = ("step", "text", "flow", "norm", "samples", "tokens", "valid_text", "valid_flow")
    return [{key: line[key] for key in kept if key in line} for line in read_log(folder)]


def main(where: Path, kills: int, seed: int) -> dict[str, object]:
    """Kill runs so many times; what came of it."""
    drawn, tokenizer = random.Random(seed), Path(__file__).parent.parent / "mmcore" / "bundled" / "tokenizer.model"

    def begin(name: str) -> Path:
        (where / name).mkdir(parents=True)
        shutil.copy(tokenizer, where / name)
        return where / name

    began = time.perf_counter()
    whole = begin("whole")
    live(whole)
    took = time.perf_counter() - began
    expected, left, ended, reached = losses(whole), kills, 0, list[int]()
    assert [line["step"] for line in expected if "text" in line] == list(range(1, STEPS + 1))
    while left or not ended:
        folder = begin(f"killed-{ended}")
        while left and live(folder, last_step(folder) + drawn.randint(0, 4), drawn.uniform(0, 2 * took / STEPS)):
            left -= 1
            reached.append(last_step(folder))
        if not left:
            live(folder)
        if losses(folder) != expected:
            raise SystemExit(f"{folder}: other losses than the unbroken run of {whole}")
        ended += 1
    return {"kills": len(reached), "runs": ended, "steps reached when killed": reached, "seconds": round(took, 1)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:4]))))
