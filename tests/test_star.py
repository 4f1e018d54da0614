"""The example of tuning: its lessons say what they show, and its scores tell right from wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmcore.document import Image, Text, Video
from mmcore.training import star
from mmcore.training.shards import Sample, Shards, write_shards
from mmcore.training.star import (
    ALIKE,
    CLOSE,
    KINDS,
    NEVER,
    SIZE,
    astray,
    film,
    lessons,
    likeness,
    star_pixels,
    words,
)
from mmcore.training.world.scene import COLOURS

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


def test_shape_and_way_are_told_apart() -> None:
    """Of true clips, worn ones, and clips with another way, another colour, another shape, or none."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for kind in NEVER[:3]:
        colour, side, backdrop = kind
        true = film(kind)
        assert likeness(true, kind) == 1 and astray(true, kind) == 0
        noisy = np.clip(true + np.random.default_rng(0).normal(0, 12, true.shape), 0, 255).astype(np.uint8)
        assert likeness(noisy, kind) > 0.95 and astray(noisy, kind) < 0.5
        away = film((colour, {"left": "right", "right": "left"}[side], backdrop))
        still = true[:1].repeat(len(true), 0)
        for other in (away, still):
            assert likeness(other, kind) > ALIKE + 0.05 and astray(other, kind) > 2 * CLOSE, "elsewhere"
        discs = true.copy()
        for frame, pixels in zip(discs, star_pixels(true, kind), strict=True):
            y, x = np.argwhere(pixels).mean(0)
            frame[pixels] = true[0, 0, 0]
            frame[(rows - y) ** 2 + (columns - x) ** 2 <= pixels.sum() / np.pi] = COLOURS[colour]
        assert likeness(discs, kind) < ALIKE - 0.1 and astray(discs, kind) < 1, "something round on its way"
        other = "green" if colour != "green" else "red"
        assert (
            likeness(film((other, side, backdrop)), kind) < 0.1 and astray(film((other, side, backdrop)), kind) > CLOSE
        )


def test_what_goes_straight_does_not_zigzag(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in NEVER[:2]:
        with monkeypatch.context() as changed:
            changed.setattr(star, "DEPTH", 0)
            straight = film(kind)
        assert likeness(straight, kind) > 0.9 and astray(straight, kind) > 1.5 * CLOSE


def test_a_star_is_told_from_a_backdrop_of_nearly_its_colour() -> None:
    kind = ("pink", "left", "blue sky")
    size = star_pixels(film(kind), kind).sum((1, 2))
    assert size.min() > 130 and size.max() < 180
