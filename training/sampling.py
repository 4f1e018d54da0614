"""How a trained model is best sampled: what it makes for fresh requests is read, by steps, guidance and sampler.

    python -m mmcore.training.sampling 40 [MODEL]                    # requests for each kind of medium

Each way answers the same requests with the same seeds, so that ways are compared in pairs. The requests are those of no
evaluation.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from mmcore.backbone import Guidance
from mmcore.generate import Settings
from mmcore.loading import load
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.evaluate import BATCH, SOLIDS
from mmcore.training.floors import FIRST
from mmcore.training.judge import Judges, Turn, turns
from mmcore.training.world.tasks import sample_example

TASKS = ("text to image", "text to video", "image edit", "video edit")

EULER = Settings()
HEUN = replace(EULER, sampler="heun")

WAYS: dict[str, Settings] = {
    **{f"{steps} steps, guidance 3": replace(EULER, steps=steps) for steps in (2, 4, 8, 12, 20, 40)},
    **{f"{steps} steps, no guidance": replace(EULER, steps=steps, guidance=Guidance(1.0)) for steps in (4, 8, 20)},
    "8 steps, guidance 2": replace(EULER, steps=8, guidance=Guidance(2.0)),
    "8 steps, guidance 3, of media 1.5": replace(EULER, steps=8, guidance=Guidance(3.0, 1.5)),
    "8 steps, guidance 3, of media 2": replace(EULER, steps=8, guidance=Guidance(3.0, 2.0)),
    "8 steps, guidance 3 from the beginning": replace(EULER, steps=8, guidance=Guidance(since=0.0)),
    "8 steps, guidance 3, shift 3": replace(EULER, steps=8, shift=3.0),
    "8 steps, guidance 3, shift 12": replace(EULER, steps=8, shift=12.0),
    "4 steps of Heun, guidance 3": replace(HEUN, steps=4),
    "10 steps of Heun, guidance 3": replace(HEUN, steps=10),
}
"""Heun's steps take two predictions each, but for the last."""


def requests(task: str, count: int) -> list[Turn]:
    """The first turns of fresh documents of a task."""
    return [turns(sample_example(FIRST + i, task, most=SOLIDS))[0] for i in range(count)]


def compare(pipeline: Pipeline, count: int, ways: Mapping[str, Settings], workers: int = 0) -> dict[str, list[float]]:
    """For each way the shares of TASKS that are right, and the seconds that all of it took this process.

    Args:
        pipeline: the model.
        count: requests for each task.
        ways: settings by name.
        workers: processes that judge; 0 for this one.
    """
    found: dict[str, list[float]] = {}
    asked = {task: requests(task, count) for task in TASKS}
    with Judges(workers) as judges:
        for name, settings in ways.items():
            shares, spent = [], 0.0
            for some in asked.values():
                begin, made = time.process_time(), []
                for at in range(0, count, BATCH):
                    wanted = [Request(turn.asked, seed=at + i) for i, turn in enumerate(some[at : at + BATCH])]
                    made += [reply.document for reply in pipeline.reply(wanted, settings, progress=False)]
                spent += time.process_time() - begin
                shares.append(sum(verdict.right for verdict in judges.of(some, made)) / count)
            found[name] = [*shares, spent]
            print(f"| {name} | {' | '.join(f'{share:.2f}' for share in shares)} | {spent:.0f} s |", flush=True)
    return found


if __name__ == "__main__":
    compare(load(*sys.argv[2:3]), int(sys.argv[1]), WAYS, workers=os.cpu_count() or 1)
