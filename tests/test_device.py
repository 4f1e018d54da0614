"""What a device draws, many frames at once, is what the renderer draws one by one: pictures, styles, wear, codec."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mmcore.training.world.codec import through_codec
from mmcore.training.world.device import draw
from mmcore.training.world.scene import BACKDROPS, CAMERAS, STYLES, Scene, Solid
from mmcore.training.world.sheet import COLUMNS, sheet_of
from mmcore.training.world.studio import OWN, Studio, sample_studio
from mmcore.training.world.take import Take
from mmcore.training.world.tasks import sample_lines
from mmcore.training.world.wear import (
    HUE,
    LUMA,
    SEEDS,
    Grade,
    Wear,
    compressed,
    graded,
    grain,
    sample_grade,
    sample_wear,
    worn,
)

EDGES = 0.003
"""So many values may differ by more than one: a ray that just hits, or just misses."""

WORN = Wear(0.4, (1.02, 0.97, 1.0), 4.0, 12345, 0)

ROW = (
    Solid("cube", "red", "small", -1.1, 0.6, "spin"),
    Solid("ball", "blue", "large", -0.4, 0.2, "bounce"),
    Solid("cone", "yellow", "small", 0.4, 0.9, "spin"),
    Solid("cylinder", "green", "small", 1.1, 0.3, "grow"),
)


def on_device(*takes: Take) -> np.ndarray:
    """Frames of takes one after the other, by PyTorch."""
    return draw(torch.from_numpy(np.concatenate([sheet_of(take) for take in takes]))).numpy()


def apart(take: Take) -> np.ndarray:
    """How far each value is from what the renderer draws."""
    drawn, true = on_device(take), take.drawn().frames
    assert drawn.shape == true.shape
    return np.abs(drawn.astype(int) - true)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("backdrop", "camera"), list(zip(BACKDROPS, CAMERAS[1:], strict=True)))
def test_scenes_are_drawn_alike(style: str, backdrop: str, camera: str) -> None:
    """All shapes and turns, backdrops, moving cameras and styles."""
    scene = Scene(ROW, backdrop, light=0.7, gain=1.05, height=1.5, camera=camera, style=style)
    far = apart(Take(scene, True, frames=range(3, 14)))
    assert (far > 1).mean() < EDGES and far.mean() < 0.05


@pytest.mark.parametrize("task", ["text to image", "video edit", "image to video", "continuation", "text to shots"])
def test_documents_are_drawn_alike(task: str) -> None:
    """What tasks take of scenes: one frame, a clip, halves of it, two shots, worn or not, but for the codec."""
    takes = [line for seed in range(2) for line in sample_lines(seed, task)[0] if isinstance(line, Take)]
    for take in takes:
        far = apart(replace(take, wear=take.wear and replace(take.wear, quality=0)))
        assert (far > 1).mean() < EDGES and far.mean() < 0.05, take


def test_wear_is_the_same_to_the_bit() -> None:
    """Softness, tint, and noise: what both do to the same frames."""
    plain = Take(Scene((), "night"), True, frames=range(5))
    far = apart(replace(plain, wear=WORN))
    assert far.max() <= 1 and far.mean() < 0.001
    assert np.abs(worn(plain.drawn().frames, WORN).astype(int) - plain.drawn().frames).mean() > 2


@pytest.mark.parametrize("style", STYLES)
def test_grades_are_the_same(style: str) -> None:
    rng = np.random.default_rng(3)
    for backdrop in BACKDROPS:
        wear = replace(WORN, grade=sample_grade(rng))
        far = apart(Take(Scene(ROW, backdrop, style=style), True, frames=range(4), wear=wear))
        assert (far > 1).mean() < EDGES and far.mean() < 0.05


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_studios_are_the_same(backdrop: str) -> None:
    """Any camera and light; a moving camera turns and zooms from where it stands."""
    rng = np.random.default_rng(7)
    for camera in CAMERAS[:2]:
        take = Take(Scene(ROW, backdrop, light=0.7, camera=camera), True, frames=range(7, 11))
        far = apart(replace(take, studio=sample_studio(rng)))
        assert (far > 1).mean() < EDGES and far.mean() < 0.05


def test_each_number_of_a_studio_is_drawn_alike() -> None:
    """One number changed at a time: both draw another picture than before, and the same."""
    take = Take(Scene(ROW, "gray room", light=0.7), False)
    plain = take.drawn().frames.astype(int)
    for name, value in Studio(0.3, 6.0, 0.4, 2.0, 0.7, 0.4, 0.0, 0.1, 0.2)._asdict().items():
        other = replace(take, studio=OWN._replace(**{name: value}))
        assert np.abs(other.drawn().frames - plain).mean() > 0.05, f"{name} changes nothing"
        assert apart(other).mean() < 0.05, name


def test_where_a_studio_s_camera_stands_and_how_wide_it_sees() -> None:
    """A ball in the middle goes to the left by as much as the camera stands to the right; wider, it is smaller."""
    take = Take(Scene((Solid("ball", "red", "large", 0.0, 0.0),), "night"), False)

    def columns(**numbers: float) -> np.ndarray:
        frame = replace(take, studio=OWN._replace(**numbers)).drawn().frames[0].astype(int)
        return np.flatnonzero((frame[..., 0] - frame[..., 2] > 60).any(0))

    middle, moved, wider = columns(), columns(across=0.4), columns(half=0.54)
    shift = 0.4 / OWN.back / OWN.half * 32
    assert moved.mean() == pytest.approx(middle.mean() - shift, abs=0.6)
    assert len(wider) == pytest.approx(len(middle) / 1.5, abs=1.1)
    assert len(columns(back=7.8)) < len(middle) / 1.4


def test_studios_are_drawn_in_their_bounds() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([sample_studio(rng) for _ in range(500)])
    low, high = drawn.min(0), drawn.max(0)
    assert low[0] < -0.35 and high[0] > 0.35 and 4.2 <= low[1] < 4.4 and 6.6 < high[1] <= 6.8
    room = drawn[:, 1] * drawn[:, 2] / (OWN.back * OWN.half)
    assert room.min() >= 0.95 and room.max() <= 1.2, "the room is seen as large as it was, or up to a fifth smaller"


def test_a_grade_changes_what_it_says() -> None:
    """Each of its numbers alone, on a picture of four solids in colours."""
    frames = Take(Scene(ROW, "blue sky"), False).drawn().frames.astype(np.float32)
    gray = graded(frames, Grade(saturation=0))
    assert np.ptp(gray, -1).max() < 0.1 and np.allclose(gray[..., 0], frames @ LUMA, atol=0.1)
    turned = graded(frames, Grade(hue=HUE)) - frames
    assert np.abs(turned).max() > 10 and np.abs(turned.sum(-1)).mean() < 0.5, "colours turn about gray"
    assert np.std(graded(frames, Grade(contrast=0.75))) == pytest.approx(0.75 * np.std(frames), rel=1e-3)
    assert graded(frames, Grade(brightness=0.8)).mean() == pytest.approx(0.8 * frames.mean(), rel=1e-3)
    darker, lighter = graded(frames, Grade(gamma=1.35)), graded(frames, Grade(gamma=0.75))
    assert darker.mean() < frames.mean() < lighter.mean()
    assert set(np.unique(graded(frames, Grade(bands=32)))) <= {32.0 * i for i in range(9)}
    assert np.allclose(graded(frames, Grade()), frames, atol=0.01)


def test_a_frame_is_drawn_the_same_whatever_is_drawn_beside_it() -> None:
    takes = [Take(Scene(ROW[i : i + 2], BACKDROPS[i]), False, wear=WORN) for i in range(3)]
    assert_array_equal(on_device(*takes), np.concatenate([on_device(take) for take in takes]))
    assert draw(torch.zeros(0, COLUMNS)).shape == (0, 64, 64, 3)


@pytest.mark.parametrize("quality", [60, 75, 94])
def test_the_codec_is_jpeg(quality: int) -> None:
    """Against libjpeg (by Pillow), whose cosines are of whole numbers: nearly all values within two."""
    frames = Take(Scene(ROW, "blue sky"), True, frames=range(0, 4)).drawn().frames
    ours = through_codec(torch.tensor(frames).float(), torch.full((4,), float(quality))).numpy()
    far = np.abs(ours - compressed(frames, quality))
    assert far.mean() < 0.6 and (far > 2).mean() < 0.03
    assert np.abs(ours - frames).mean() > 2 * far.mean(), "the codec loses more than we differ by"


def test_without_a_quality_there_is_no_codec() -> None:
    frames = torch.randint(0, 256, (2, 64, 64, 3)).float()
    both = through_codec(frames, torch.tensor([0.0, 70.0]))
    assert torch.equal(both[0], frames[0]) and not torch.equal(both[1], frames[1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, SEEDS - 1))
def test_noise_is_normal_enough_and_differs_by_seed(seed: int) -> None:
    noise = grain(seed, (2, 64, 64, 3))
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03 and np.abs(noise).max() < 3.5
    assert abs((noise[0] * noise[1]).mean()) < 0.05 and abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.05
    assert not np.array_equal(noise, grain((seed + 1) % SEEDS, (2, 64, 64, 3)))


def test_wear_is_drawn_in_its_bounds() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_wear(rng) for _ in range(2000)]
    there = [wear for wear in drawn if wear]
    assert 0.55 < len(there) / 2000 < 0.65
    assert 0.35 < np.mean([wear.quality > 0 for wear in there]) < 0.45
    assert all(wear.seed == np.float32(wear.seed) < SEEDS for wear in there), "a sheet holds each seed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this wants a GPU")
def test_a_gpu_draws_the_same() -> None:
    takes = [line for seed in range(4) for line in sample_lines(seed, "chat")[0] if isinstance(line, Take)]
    sheet = torch.from_numpy(np.concatenate([sheet_of(take) for take in takes]))
    far = (draw(sheet.cuda()).cpu().int() - draw(sheet).int()).abs()
    assert float((far > 1).float().mean()) < EDGES
