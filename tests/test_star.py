"""The example of tuning: its lessons say what they show, and its scores tell right from wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmcore.document import Image, Text, Video
from mmcore.training import star
from mmcore.training.shards import Sample, Shards, write_shards
from mmcore.training.star import (
    CLOSE,
    KINDS,
    NEVER,
    astray,
    empty,
    film,
    is_star,
    lessons,
    likeness,
    shapes,
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


def soft(clip: np.ndarray) -> np.ndarray:
    """Blurred and noisy, as a model draws."""
    x = clip.astype(float)
    for axis in (1, 2):
        x = (np.roll(x, 1, axis) + 2 * x + np.roll(x, -1, axis)) / 4
    return np.clip(x + np.random.default_rng(0).normal(0, 12, x.shape), 0, 255).astype(np.uint8)


def test_shape_and_way_are_told_apart() -> None:
    """Of true clips, soft ones, and clips with another way, another colour, another shape, or none."""
    for kind in NEVER[:3]:
        colour, side, backdrop = kind
        true = film(kind)
        assert likeness(true, kind)["star"] == 1 and is_star(true, kind) and astray(true, kind) == 0
        assert is_star(soft(true), kind) and astray(soft(true), kind) < 1
        away = film((colour, {"left": "right", "right": "left"}[side], backdrop))
        still = true[:1].repeat(len(true), 0)
        for other in (away, still):
            assert is_star(other, kind) and astray(other, kind) > 2 * CLOSE, "elsewhere"
        for name, pixels in shapes(star_pixels(true, kind)).items():
            drawn = np.where(pixels[..., None], np.array(COLOURS[colour], np.uint8), empty(backdrop))
            for made in (drawn, soft(drawn)):
                found = likeness(made, kind)
                assert max(found, key=lambda shape: found[shape]) == name and is_star(made, kind) == (name == "star")
                assert astray(made, kind) < 1, "on its way"
        other = film(("green" if colour != "green" else "red", side, backdrop))
        assert not is_star(other, kind) and astray(other, kind) > CLOSE
        assert not is_star(empty(backdrop)[None].repeat(len(true), 0), kind)


def test_what_goes_straight_does_not_zigzag(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in NEVER[:2]:
        with monkeypatch.context() as changed:
            changed.setattr(star, "DEPTH", 0)
            straight = film(kind)
        assert is_star(straight, kind) and astray(straight, kind) > 1.5 * CLOSE


def test_a_star_is_told_from_a_backdrop_of_nearly_its_colour() -> None:
    kind = ("pink", "left", "blue sky")
    size = star_pixels(film(kind), kind).sum((1, 2))
    assert size.min() > 290 and size.max() < 340
