"""The error of clean predictions, of what moves and of all else: measured on models whose errors are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.model import Output
from mmcore.packing import PackedSequence
from mmcore.tokenizers.text import TextTokenizer
from mmcore.training.details import errors, moving
from mmcore.training.sampling import requests

pytestmark = pytest.mark.quick


def shown_to(root, predict) -> SimpleNamespace:
    """A pipeline whose model predicts so: (patches as they came in) -> clean ones."""

    def model(seq: PackedSequence) -> Output:
        return Output(torch.empty(0), predict(seq.target_patches))

    model.device = torch.device("cpu")  # type: ignore[attr-defined]
    tokenizer = TextTokenizer(root / "mmcore" / "bundled" / "tokenizer.model")
    return SimpleNamespace(model=model, tokenizer=tokenizer, config=MMCoreConfig(**PRESETS["tiny"]))


def test_what_moves_is_what_is_not_there_most_of_the_time() -> None:
    frames = torch.full((5, 8, 8, 3), 60.0)
    frames[:, 0, 0] = 240  # stands
    for t in range(5):
        frames[t, 4, t] = 190  # goes
        frames[t, 6, t] = 75  # hardly to be seen
    expected = torch.zeros(5, 8, 8, dtype=torch.bool)
    expected[range(5), 4, range(5)] = True
    assert torch.equal(moving(frames), expected)


@pytest.fixture
def shown() -> tuple[torch.Tensor, torch.Tensor]:
    """The first clip in [-1, 1], and where it moves."""
    (clip,) = requests("text to video", 1)[0].true.media
    frames = torch.tensor(clip.frames).float()
    return frames / 127.5 - 1, moving(frames)


def of_kinds(values: torch.Tensor, moves: torch.Tensor) -> list[float]:
    return [127.5 * float(values[chosen].square().mean().sqrt()) for chosen in (moves, ~moves)]


def test_each_kind_of_pixels_errs_by_itself(root, shown) -> None:
    """A model that predicts white errs by how far from it they are."""
    frames, moves = shown
    (found,) = errors(shown_to(root, torch.ones_like), 1, (0.2,))  # type: ignore[arg-type]
    expected = of_kinds(frames - 1, moves)
    assert found == pytest.approx(expected, rel=1e-3) and moves.any() and abs(found[0] - found[1]) > 1


def test_the_model_is_shown_the_clip_at_each_level(root, shown) -> None:
    """One that gives back half of what it is shown errs by half of a clean clip, and by more where there is noise."""
    frames, moves = shown
    half = shown_to(root, lambda noisy: noisy / 2)
    noisy, less, clean = errors(half, 1, (0.2, 0.8, 1 - 1e-6))  # type: ignore[arg-type]
    assert clean == pytest.approx(of_kinds(frames / 2, moves), rel=0.01)
    assert noisy > less and noisy[1] > less[1] > clean[1]
