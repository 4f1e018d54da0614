"""Where drawing goes wrong: the error of a model's clean prediction by noise level, of what moves and of all else.

    python -m mmcore.training.details 24 [MODEL]                     # clips

Fresh clips of the world are noised to each level, and the model is shown them behind the words that ask for them. What
it gives back of a clip that is nearly clean says what it can draw at best. None of them is in an evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from mmcore.flow import interpolate
from mmcore.loading import load
from mmcore.packing import pack
from mmcore.pipeline import Pipeline
from mmcore.sequence import Patches, document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.training.sampling import requests

LEVELS = (0.023, 0.053, 0.091, 0.143, 0.217, 0.333, 0.538, 0.7, 0.9)
"""Those at which eight steps begin, but for pure noise, and two above."""

MOVED = 0.15
"""Pixels, in [-1, 1], that leave the median of their clip by more than this are moving."""


def as_frames(values: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Patches (N, P) of pixels -> frames (T, H, W, 3), in [-1, 1]."""
    (t, y, x), (_, rows, columns) = patch, grid
    return rearrange(values, "(T Y X) (t y x c) -> (T t) (Y y) (X x) c", t=t, y=y, x=x, Y=rows, X=columns)


def moving(frames: Tensor) -> Tensor:
    """Frames (T, H, W, 3) -> bool (T, H, W): which pixels are not as they are most of the time."""
    return (frames - frames.median(0).values).abs().amax(-1) > MOVED


@torch.inference_mode()
def errors(pipeline: Pipeline, count: int, levels: Sequence[float] = LEVELS) -> list[tuple[float, float]]:
    """For each level the error of moving pixels and of the others, of 255: the root of the mean square.

    Args:
        pipeline: a model of our own, of pixels.
        count: clips; always the same ones.
        levels: in [0, 1).
    """
    sums = torch.zeros(len(levels), 2, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for turn in requests("text to video", count):
        pieces = document_pieces(turn.asked + turn.true, pipeline.tokenizer, pipeline.config.patch)
        clip = pieces[-1]
        assert isinstance(clip, Patches)
        true = as_frames(clip.values, clip.grid, pipeline.config.patch)
        moves = moving(true)
        seq = pack([[document_strip(pieces, last_context=False)]], pipeline.config.patch_width).to(
            pipeline.model.device
        )
        data, noise = seq.target_patches, torch.randn(seq.target_patches.shape, generator=generator)
        for at, level in enumerate(levels):
            t = torch.full(data.shape[:2], level, device=data.device)
            noisy = interpolate(data, noise.to(data.device), t[..., None]) * seq.is_target_patch[..., None]
            clean = pipeline.model(seq.with_targets(noisy, t)).patches[seq.is_target_patch].cpu()
            error = (as_frames(clean, clip.grid, pipeline.config.patch) - true).square().mean(-1)
            for kind, chosen in enumerate((moves, ~moves)):
                sums[at, kind] += torch.tensor([error[chosen].sum(), chosen.sum()])
    return [(127.5 * float(m), 127.5 * float(o)) for m, o in (sums[..., 0] / sums[..., 1]).sqrt()]


if __name__ == "__main__":
    for level, (moved, other) in zip(LEVELS, errors(load(*sys.argv[2:3]), int(sys.argv[1])), strict=True):
        print(f"| {level} | {moved:.1f} | {other:.1f} |")
