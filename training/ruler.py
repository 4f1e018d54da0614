"""The ruler's scores while a run goes on: what `mmcore eval` says of the averaged weights, on a few documents a task.

    ruler = Ruler(engine, folder)
    ruler()          # {"right/text to image": 0.25, "psnr/image edit": 17.2, ..., "right/stills": 0.3}

Rank 0 scores, the others wait. Documents and the seeds of replies are always the same, and the training's random state
stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import torch

from mmcore.autoencoder import autoencoder_of
from mmcore.pipeline import Pipeline
from mmcore.tokenizers.words import open_words
from mmcore.training.evaluate import Case, evaluate
from mmcore.training.judge import kinds
from mmcore.training.meter import Report
from mmcore.training.plain import Engine
from mmcore.training.world.mixtures import MIXTURES

WRITTEN = {"Text": "words", "Image": "stills", "Video": "clips"}
"""What replies are for, by their last segment."""


class Ruler:
    """Scores what an engine's averaged model writes, for each task of the recipe's mixture.

    Args:
        engine: what is trained.
        folder: the run's, with its tokenizers.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.words = engine, open_words(folder)
        self.autoencoder = autoencoder_of(engine.model.config, folder, engine.device)

    def __call__(self) -> Report:
        """All rows of a report by "MEASURE/TASK", and right replies by what is written; all ranks ask together.

        Returns:
            The scores on rank 0, nothing on the others.
        """
        engine, found = self.engine, Report()
        with torch.random.fork_rng([engine.device] if engine.device.type == "cuda" else []):
            model = engine.averaged
            if engine.ranks.rank == 0:
                model.backend = "sdpa"  # with which models write
                tasks, count = tuple(MIXTURES[engine.recipe.mixture]), engine.recipe.ruler.documents
                pipeline = Pipeline(model, self.words, self.autoencoder)
                report = evaluate(pipeline, count, tasks, progress=False, held_out=())
                found = {f"{score.measure}/{score.task}": score.value for score in report.scores}
                found |= by_kind(report.cases)
        engine.ranks.wait()
        return found


def by_kind(cases: tuple[Case, ...]) -> Report:
    """The share of replies that are right, by what is to be written."""
    right: dict[str, list[bool]] = {}
    for case in cases:
        right.setdefault(f"right/{WRITTEN[kinds(case.turn.true)[-1]]}", []).append(case.verdict.right)
    return {name: fmean(verdicts) for name, verdicts in right.items()}
