"""The example of tuning: its lessons say what they show, and its scores tell right from wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmcore.document import Image, Text, Video
from mmcore.training.shards import Sample, Shards, write_shards
from mmcore.training.star import KINDS, NEVER, film, lessons, overlap, words

pytestmark = pytest.mark.quick


def test_lessons_are_of_three_sorts_and_hold_some_kinds_back(tmp_path: Path) -> None:
    drawn = list(lessons(0, 60))
    assert list(lessons(7, 3)) == drawn[7:10], "by index"
    said = " | ".join(document.text for document in drawn)
    assert not any(words(kind) in said for kind in NEVER) and len(NEVER) > 10
    assert sum(words(kind) in said for kind in KINDS) > 20
    sorts = [tuple(type(s) for s in document if s.learn) for document in drawn]
    assert {(Video,): 1, (Image,): 1, (Text,): 1}.keys() == set(sorts) and sorts.count((Video,)) > 25
    write_shards(map(Sample.of, drawn[:5]), tmp_path / "data")
    assert [Shards(tmp_path / "data").document(i) for i in range(5)] == drawn[:5]


def test_overlap_is_of_shape_place_and_colour() -> None:
    for kind in NEVER[:4]:
        colour, side, backdrop = kind
        true, away = film(kind), {"left": "right", "right": "left"}[side]
        assert overlap(true, kind) == 1
        noisy = np.clip(true + np.random.default_rng(0).normal(0, 12, true.shape), 0, 255).astype(np.uint8)
        assert overlap(noisy, kind) > 0.85
        assert overlap(film((colour, away, backdrop)), kind) < 0.4, "another way"
        assert overlap(true[:1].repeat(len(true), 0), kind) < 0.4, "it stands still"
        other = "green" if colour != "green" else "red"
        assert overlap(film((other, side, backdrop)), kind) < 0.1, "another colour"
