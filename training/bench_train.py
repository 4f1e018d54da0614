"""How the tiny recipe trains here: speed, waiting for data, padding. A part of `mmcore bench`, in a process of its own.

python -m mmcore.training.bench_train
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import mmcore
from mmcore.training.log import read_log
from mmcore.training.meter import Report
from mmcore.training.recipe import load_recipe
from mmcore.training.train import train

STEPS, COUNTED = 30, 20
"""Of so many steps the last ones count: the first compile, and wait for the process that makes batches to start."""


def main() -> Report:
    """The last line of the log of a run from the bundled model."""
    bundled = Path(mmcore.__file__).parent / "bundled"
    changes = [f"start={bundled}", f"steps={STEPS}", f"save_every={STEPS}", "sample_every=0", "validation.every=0"]
    with TemporaryDirectory() as folder:
        recipe = load_recipe("tiny", [*changes, f"log_every={STEPS - COUNTED}"])
        train(recipe, Path(folder))
        before, *counted = read_log(Path(folder))
        assert before["step"] == STEPS - COUNTED and counted
        return {key: sum(line[key] for line in counted) / len(counted) for key in counted[0]}


if __name__ == "__main__":
    print(json.dumps(main()))
