"""Losses on held-out documents while a run goes on: the same batches with the same noise each time, on any ranks.

    validation = Validation(held_out_batches(stream, range(VALIDATION, VALIDATION + 64)), engine)
    validation()                                     # {"valid_text": ..., "valid_flow": ...}, all ranks together

They are the losses of the weights as they are, not of their average.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from mmcore.autoencoder import autoencoder_in
from mmcore.errors import MMCoreError
from mmcore.packing import PackedSequence
from mmcore.sequence import Strip
from mmcore.tokenizers.words import open_words
from mmcore.training.data import VALIDATION, PackedBatches, fill_rows, step_generator
from mmcore.training.meter import Report
from mmcore.training.plain import Stepper

logger = logging.getLogger(__name__)


def held_out_batches(stream: PackedBatches, indexes: Iterable[int]) -> list[PackedSequence]:
    """Documents in as many batches as they take, the last rows perhaps empty.

    Args:
        stream: what they are drawn from, cut and laid out by; nothing is drawn from the stream itself.
        indexes: of the documents; broken ones and those without room are left out.
    Raises:
        MMCoreError: none is left.
    """
    folder, layout = stream.tokenizer.parent, stream.layout
    text, autoencoder = open_words(folder), autoencoder_in(folder)
    strips: dict[int, Strip] = {}
    for i in indexes:
        try:
            strip = stream.strip(i, text, autoencoder)
        except MMCoreError as error:
            logger.warning("left out of validation: %s", error)
            continue
        if all(n <= room for n, room in zip(strip.lengths, layout.room, strict=True)):
            strips[i] = strip
    if not strips:
        raise MMCoreError(f"no held-out document can be used within layout.room={list(layout.room)}")
    batches: list[PackedSequence] = []
    while strips:
        chosen = fill_rows({i: strip.lengths for i, strip in strips.items()}, layout.rows, layout.room)
        batches.append(stream.batch([[strips.pop(i) for i in row] for row in chosen], autoencoder).to("cpu"))
    return batches


class Validation:
    """The losses of an engine's model on some batches, dealt out to ranks.

    Args:
        batches: the same on all ranks.
        engine: what is trained.
    """

    def __init__(self, batches: Sequence[Any], engine: Stepper[Any, Any]) -> None:
        self.batches, self.engine = batches, engine

    @torch.no_grad()
    def __call__(self) -> Report:
        """The text and the flow loss, each the mean over its tokens in all batches; all ranks ask together.

        Ranks take turns at the batches; one that has none left repeats the last, which counts nothing, since ranks
        whose weights are split must go through the model together.
        """
        engine, ranks, sums = self.engine, self.engine.ranks, np.zeros(4)
        for turn in range(0, len(self.batches), ranks.world):
            place = turn + ranks.rank
            batch = self.batches[min(place, len(self.batches) - 1)]
            generator = step_generator(engine.recipe.seed, VALIDATION + place, engine.device)
            text, flow = engine.losses([batch], [generator])
            if place < len(self.batches):
                words, targets = engine.learnt(batch)
                sums += text.item() * words, words, flow.item() * targets, targets
        text_sum, all_words, flow_sum, all_targets = ranks.sum(*sums.tolist())
        return {"valid_text": text_sum / max(all_words, 1), "valid_flow": flow_sum / max(all_targets, 1)}
