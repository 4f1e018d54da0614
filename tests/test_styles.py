"""What is read of scenes in other styles than the plain one, worn as they come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmcore.training.judge import shows
from mmcore.training.world.backdrops import GRAYSCALE, PIXELS, SKETCH
from mmcore.training.world.blocks import WORN, off, restored
from mmcore.training.world.heldout import Dice
from mmcore.training.world.render import render
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import BACKDROPS, Scene, Solid
from mmcore.training.world.shown import Shown
from mmcore.training.world.sketch import enclosed
from mmcore.training.world.styles import in_blocks, stands_out, styled

HARD = (
    (SKETCH, 0, "a cone behind a cylinder's edge"),
    (SKETCH, 2, "a cone at night, the horizon hardly to be seen"),
    (SKETCH, 15, "the shadow of one ball"),
    (SKETCH, 16, "lines that go round two cylinders at once"),
    (PIXELS, 6, "a purple cone on gray ground"),
    (PIXELS, 18, "two cylinders in tinted light"),
    (PIXELS, 46, "a pink cube as pale as the sand"),
    (GRAYSCALE, 1, "a ball as dark as a shadow"),
)
"""Styles and seeds of scenes that were once misread."""


@pytest.mark.parametrize(("style", "seed", "shown"), HARD)
def test_a_hard_scene_is_read_right(style: str, seed: int, shown: str) -> None:
    rng = Dice(10**7 + seed)
    scene = replace(sample_scene(rng, moving=False, solids=int(rng.choice((1, 2, 3)))), style=style)
    while not stands_out(scene):
        scene = replace(sample_scene(rng, moving=False, solids=int(rng.choice((1, 2, 3)))), style=style)
    wanted = Shown(scene, clip=False)
    assert shows(wanted.given(rng).drawn().frames, wanted), shown


SCENE = Scene((Solid("ball", "purple", "large", -0.6, 0.2), Solid("cone", "pink", "small", 0.7, 0.0)), "gray room")


@pytest.mark.quick
@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_pixel_art_is_restored(backdrop: str) -> None:
    """Blur (a fifth of each block's colour comes from those beside it), tints and rounding are all undone."""
    true = render(replace(SCENE, backdrop=backdrop, style=PIXELS), 2)
    x = np.pad(true, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge").astype(float)
    around = (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) / 4
    soft = np.clip((0.6 * x[:, 1:-1, 1:-1] + 0.4 * around) * (0.97, 1.02, 1.03) + 0.5, 0, 255).astype(np.uint8)
    found, error = restored(soft)
    assert (found == true).all() and (soft != true).any() and error < 1
    assert (restored(true)[0] == true).all() and restored(true)[1] == 0
    assert restored(render(replace(SCENE, backdrop=backdrop), 1))[1] > WORN


@pytest.mark.quick
def test_blocks_stand_for_all_that_is_drawn_as_them() -> None:
    """No picture is off its own pixel art; a shade is half a shade off another; sizes may be odd."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 7, 9, 3), dtype=np.uint8)
    drawn = styled(picture, PIXELS)
    assert (
        drawn.shape == picture.shape and (drawn[:, 6] == drawn[:, 5]).all() and (drawn[:, :, 8] == drawn[:, :, 7]).all()
    )
    assert off(in_blocks(drawn), in_blocks(picture)).max() == 0
    assert off(np.array([102.0]), np.array([102 + 51.0])).tolist() == [25.5]


@pytest.mark.quick
def test_lines_enclose_what_they_go_round_and_not_themselves() -> None:
    lines = np.zeros((40, 40), bool)
    lines[5:25, 5:25] = True
    lines[9:21, 9:21] = False
    lines[30:33] = True
    found = enclosed(lines)
    assert found[9:21, 9:21].all() and not found[:5].any() and not found[27:].any()
    lines[5:25, 14:18] = False
    assert not enclosed(lines)[10:20, 12:20].all(), "a wide gap lets the outside in"
