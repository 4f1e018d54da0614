"""How far a run has come, on disk: the engine's state and the place in the data, together.

    save_checkpoint(engine, states, meter.samples, meter.tokens, run / "checkpoint")
    states, samples, tokens = load_position(run / "checkpoint", states, count)

`checkpoint/` is the newest. With `keep` above 1 in the recipe, those before it stay, named by their
step (`checkpoint-000400/`); a run whose `checkpoint/` is taken away goes on from the last of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcore.errors import MMCoreError
from mmcore.training.checkpoints import replace, writing
from mmcore.training.data import DataState
from mmcore.training.plain import Stepper


def position_file(checkpoint: Path, stream: int) -> Path:
    """Where a checkpoint says how far a stream of documents has come."""
    return checkpoint / (f"data-{stream}.json" if stream else "data.json")


def load_position(
    checkpoint: Path, streams: Mapping[int, DataState], count: int
) -> tuple[dict[int, DataState], int, int]:
    """How far streams have come, and how many documents and tokens were seen in all.

    Raises:
        MMCoreError: the checkpoint was written with another number of streams.
    """
    whole = json.loads(position_file(checkpoint, 0).read_text())
    if (before := whole.get("streams", 1)) != count:
        raise MMCoreError(f"{checkpoint}: written with engine.batches={before}; go on with the same, not {count}")
    read = {stream: json.loads(position_file(checkpoint, stream).read_text()) for stream in streams}
    states = {s: DataState(at["next"], tuple(at["waiting"]), at.get("broken", 0)) for s, at in read.items()}
    return states, whole["samples"], whole.get("tokens", 0)


def save_checkpoint(
    engine: Stepper[Any, Any], states: Mapping[int, DataState], samples: int, tokens: int, folder: Path
) -> None:
    """Write a checkpoint beside the old one, each rank its part, then put it in its place.

    Raises:
        MMCoreError: it cannot be written; the old one stays.
    """
    made, ranks, recipe = folder.with_suffix(".part"), engine.ranks, engine.recipe
    try:
        with writing(folder, engine.done):
            if ranks.rank == 0:
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
            ranks.wait()
            engine.save(made)
            for stream, state in states.items():
                position = {"next": state.next, "waiting": state.waiting, "broken": state.broken}
                position |= {"samples": samples, "tokens": tokens, "streams": recipe.engine.batches}
                position_file(made, stream).write_text(json.dumps(position))
            ranks.wait()
            if ranks.rank == 0:
                replace(made, folder, recipe.keep)
            ranks.wait()
    except MMCoreError:
        shutil.rmtree(made, ignore_errors=True)
        raise
