"""What the ruler's floors and a long clip's drift are measured on, and what counts as right there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmcore.document import Video
from mmcore.pipeline import Pipeline
from mmcore.training import drift, floors
from mmcore.training.world.language import caption
from mmcore.training.world.render import render
from mmcore.training.world.scene import COLOURLESS, STYLES

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("style", [*STYLES, floors.DRAWN])
def test_fresh_scenes_are_of_the_style_and_of_one_to_three_solids(style: str) -> None:
    made = [floors.sample(seed, style, clip=False) for seed in range(12)]
    counts = [len(shown.scene.solids) for _, shown in made]
    assert set(counts) == ({1, 2} if style in COLOURLESS else {1, 2, 3})
    assert {shown.scene.style for _, shown in made} <= ({style} if style in STYLES else set(STYLES))
    frames, shown = made[0]
    assert frames.shape == (1, 64, 64, 3) and len({f.tobytes() for f, _ in made}) == 12
    again, same = floors.sample(0, style, clip=False)
    assert np.array_equal(frames, again) and shown == same
    assert any(not np.array_equal(f, s.written().frames) for f, s in made), "worn"


def test_what_is_read_otherwise_is_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert floors.is_read(0, "plain", clip=False)
    frames, shown = floors.sample(0, "plain", clip=False)
    first = shown.scene.solids[0]
    other = replace(
        shown, scene=shown.scene.swap(0, replace(first, size="small" if first.size == "large" else "large"))
    )
    monkeypatch.setattr(floors, "sample", lambda *_: (frames, other))
    assert not floors.is_read(0, "plain", clip=False)


def test_attributes_of_a_frame_agree_one_by_one() -> None:
    scene = next(drift.asked(1))
    solid = scene.solids[0]
    other = {
        "shape": replace(scene, solids=(replace(solid, shape="ball" if solid.shape != "ball" else "cone"),)),
        "colour": replace(scene, solids=(replace(solid, colour="red" if solid.colour != "red" else "green"),)),
        "backdrop": replace(scene, backdrop="night" if scene.backdrop != "night" else "gray room"),
    }
    assert drift.agreement(render(scene, 1)[0], scene) == [True] * 5
    for name, shown in other.items():
        expected = [attribute not in (name, "all") for attribute in drift.ATTRIBUTES]
        assert drift.agreement(render(shown, 1)[0], scene) == expected, name
    empty = render(scene.emptied, 1)[0]
    assert drift.agreement(empty, scene) == [False, False, False, True, False]


def test_one_window_in_so_many_is_read_from_beginning_to_end(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip whose later windows show another colour falls from the window on in which it does."""
    scene = next(drift.asked(1))
    solid = scene.solids[0]
    other = scene.swap(0, replace(solid, colour="red" if solid.colour != "red" else "green"))
    right, wrong = (Video(render(shown, 1).repeat(drift.WINDOW, 0)) for shown in (scene, other))
    asked: list[str] = []

    def film(_: Pipeline, words: str, **settings: int) -> list[Video]:
        asked.append(words)
        assert settings["frames"] == 160
        return [right] * 12 + [wrong] * 8

    monkeypatch.setattr(Pipeline, "film", film)
    found = drift.follow(pipeline, scene, frames=160, seed=0)
    assert asked == [caption(scene, True)] and found[:, -1].tolist() == [True, True, True, False]
    assert found[:, 1].tolist() == found[:, -1].tolist() and found[:, 0].all()
