"""The error of clean predictions, of what moves and of all else: measured on models whose errors are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Video
from mmcore.model import Output
from mmcore.packing import PackedSequence
from mmcore.tokenizers.text import TextTokenizer
from mmcore.tokenizers.visual import patchify
from mmcore.training.details import as_frames, errors, moving
from mmcore.training.sampling import requests

pytestmark = pytest.mark.quick


def shown_to(root, predict) -> SimpleNamespace:
    """A pipeline whose model predicts so: (patches as they came in) -> clean ones."""

    def model(seq: PackedSequence) -> Output:
        return Output(torch.empty(0), predict(seq.target_patches))

    model.device = torch.device("cpu")  # type: ignore[attr-defined]
    tokenizer = TextTokenizer(root / "mmcore" / "bundled" / "tokenizer.model")
    return SimpleNamespace(model=model, tokenizer=tokenizer, config=MMCoreConfig(**PRESETS["tiny"]))


def test_patches_are_laid_out_as_the_frames_they_were_cut_from() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)
    values, grid = patchify(frames, (4, 16, 16))
    torch.testing.assert_close((as_frames(values, grid, (4, 16, 16)) + 1) * 127.5, torch.from_numpy(frames).float())


def test_what_moves_is_what_is_not_there_most_of_the_time() -> None:
    frames = torch.full((5, 8, 8, 3), -0.5)
    frames[:, 0, 0] = 0.9  # stands
    for t in range(5):
        frames[t, 4, t] = 0.5  # goes
        frames[t, 6, t] = -0.4  # hardly to be seen
    expected = torch.zeros(5, 8, 8, dtype=torch.bool)
    expected[range(5), 4, range(5)] = True
    assert torch.equal(moving(frames), expected)


def test_a_model_that_gives_back_what_it_is_shown_errs_by_the_noise(root) -> None:
    """x_t - x is (1 - t) times the same, so the errors at two levels are as 1 - t."""
    half, quarter = errors(shown_to(root, lambda noisy: noisy), 2, (0.5, 0.75))  # type: ignore[arg-type]
    assert half == pytest.approx([2 * e for e in quarter], rel=1e-4)
    assert min(half) > 0.5 * 127.5 and max(half) < 127.5


def test_the_two_kinds_of_pixels_are_apart(root) -> None:
    """A model that predicts white errs by how far from it they are."""
    ((moved, other),) = errors(shown_to(root, torch.ones_like), 1, (0.2,))  # type: ignore[arg-type]
    (clip,) = requests("text to video", 1)[0].true.media
    assert isinstance(clip, Video)
    frames = torch.tensor(clip.frames).float() / 127.5 - 1
    moves = moving(frames)
    expected = [127.5 * float((frames[chosen] - 1).square().mean().sqrt()) for chosen in (moves, ~moves)]
    assert [moved, other] == pytest.approx(expected, rel=1e-3) and moves.any() and abs(moved - other) > 1
