"""A run's averaged weights as a model folder: bf16, in shards small enough for a repository, with a card.

python -m mmcore.training.release runs/tiny mmcore/bundled [documents for each task of the scores]
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mmcore.config import MMCoreConfig
from mmcore.errors import MMCoreError
from mmcore.loading import load
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.engine import load_weights
from mmcore.training.evaluate import evaluate
from mmcore.training.scores import table

CARD = """# The bundled model

{parameters:.1f} million parameters; {documents} documents seen.

- **Data**: the procedural world of `training/world`, drawn by seed; nothing else. Words, stills of 64x64, and clips of
  16 frames at 8 fps. It knows one to four solids on a ground plane and the phrasings of `training/world/commands.py`.
- **Recipe**: {stages}; the weights are the exponential average of the last stage, stored in bfloat16.
- **Licence**: Apache-2.0, as the code.

Scores on documents that it was not trained on (`mmcore eval --count {count}`):

```
{scores}
```

The last stage's recipe, as resolved:

```json
{recipe}
```
"""


@dataclass(frozen=True)
class Stage:
    """A run that is behind a model: its folder's name, optimizer steps and documents."""

    name: str
    steps: int
    documents: int


def stages(run: Path) -> list[Stage]:
    """A run and those that it started from, first one first."""
    checkpoint = run / "checkpoint"
    if not checkpoint.is_dir():
        raise MMCoreError(f"{run}: no checkpoint here: not a run, or it has not come so far yet")
    done = json.loads((checkpoint / "engine.json").read_text())["done"]
    documents = json.loads((checkpoint / "data.json").read_text())["samples"]
    start = json.loads((run / "recipe.json").read_text())["start"]
    before = stages(Path(start)) if start and (Path(start) / "checkpoint").is_dir() else []
    return [*before, Stage(run.name, done, documents)]


def release(run: Path, folder: Path, count: int = 100) -> Pipeline:
    """Write a run's averaged weights, tokenizer and card.

    Args:
        run: a run folder with a checkpoint.
        folder: where the model goes; what is there is replaced.
        count: documents for each task of the scores.
    Raises:
        MMCoreError: there is no checkpoint in the run.
    """
    behind = stages(run)
    shutil.rmtree(folder, ignore_errors=True)
    averaged = run / "checkpoint" / "ema"
    model = MMCoreModel(MMCoreConfig.from_json_file(averaged / "config.json"))
    load_weights(model, averaged)
    Pipeline(model.bfloat16(), TextTokenizer(run / "tokenizer.model")).save(folder)
    pipeline = load(folder)
    text = CARD.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        documents=sum(stage.documents for stage in behind),
        stages=", then ".join(f"`mmcore train {s.name}` ({s.steps} steps, {s.documents} documents)" for s in behind),
        count=count,
        scores=table(evaluate(pipeline, count, workers=os.cpu_count() or 1).scores),
        recipe=(run / "recipe.json").read_text(),
    )
    (folder / "README.md").write_text(text)
    return pipeline


if __name__ == "__main__":
    release(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
