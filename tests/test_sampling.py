"""Ways to sample are compared on the same requests, by what is read from what is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmcore.document import Document
from mmcore.generate import Settings
from mmcore.pipeline import Pipeline
from mmcore.replies import Reply, Request
from mmcore.training import sampling
from mmcore.training.judge import Turn


class Painter(Pipeline):
    """Gives the true reply where it is let to take four steps, and nothing where it is not."""

    def __init__(self, known: list[Turn]) -> None:
        self.known, self.seeds = known, []

    def reply(  # type: ignore[override]
        self, requests: list[Request], settings: Settings | None = None, progress: bool = True
    ) -> list[Reply]:
        assert settings is not None
        self.seeds.append([request.seed for request in requests])
        true = [next(turn.true for turn in self.known if turn.asked == r.document) for r in requests]
        return [Reply(reply if settings.steps >= 4 else Document(())) for reply in true]


def test_each_way_answers_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BATCH", 2)
    painter = Painter([turn for task in sampling.TASKS for turn in sampling.requests(task, 3)])
    ways = {"few": replace(Settings(), steps=2), "many": replace(Settings(), steps=4)}
    found = sampling.compare(painter, 3, ways)
    assert found["few"][:4] == [0.0] * 4 and found["many"][:4] == [1.0] * 4
    assert painter.seeds == [[0, 1], [2]] * 8


def test_the_default_is_one_of_the_ways() -> None:
    assert Settings() in sampling.WAYS.values()
