"""Where drawing goes wrong: the error of a model's clean prediction by noise level, of what moves and of all else.

    python -m mmcore.training.details 24 [MODEL]                     # clips

Fresh clips of the world are noised to each level, and the model is shown them behind the words that ask for them. What
it gives back of a clip that is nearly clean says what it can draw at best. None of them is in an evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from mmcore.decoders.visual import unpatchify
from mmcore.document import Video
from mmcore.loading import load
from mmcore.packing import pack
from mmcore.pipeline import Pipeline
from mmcore.sequence import Patches, document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.training.sampling import requests

LEVELS = (0.023, 0.053, 0.091, 0.143, 0.217, 0.333, 0.538, 0.7, 0.9)
"""Those at which eight steps begin, but for pure noise, and two above."""

MOVED = 19
"""Pixels, of 255, that leave the median of their clip by more than this are moving."""


def moving(frames: Tensor) -> Tensor:
    """Frames (T, H, W, 3), of 255 -> bool (T, H, W): which pixels are not as they are most of the time."""
    return (frames - frames.median(0).values).abs().amax(-1) > MOVED


@torch.inference_mode()
def errors(pipeline: Pipeline, count: int, levels: Sequence[float] = LEVELS) -> list[tuple[float, float]]:
    """For each level the error of moving pixels and of the others, of 255: the root of the mean square.

    Frames are compared as people get them, in whole numbers.

    Args:
        pipeline: a model of our own, of pixels.
        count: clips; always the same ones.
        levels: in [0, 1).
    """
    sums = torch.zeros(len(levels), 2, 2, dtype=torch.float64)
    generator, patch, model = torch.Generator().manual_seed(0), pipeline.config.patch, pipeline.model
    for turn in requests("text to video", count):
        pieces, clip = document_pieces(turn.asked + turn.true, pipeline.tokenizer, patch), turn.true.media[-1]
        patches = pieces[-1]
        assert isinstance(patches, Patches) and isinstance(clip, Video)
        true = torch.tensor(clip.frames).float()
        moves = moving(true)
        seq = pack([[document_strip(pieces, last_context=False)]], pipeline.config.patch_width).to(model.device)
        noise = torch.randn(seq.target_patches.shape, generator=generator).to(model.device)
        for at, level in enumerate(levels):
            noisy = seq.noised(noise, torch.full(noise.shape[:2], level, device=model.device))
            clean = model(noisy).patches[seq.is_target_patch]
            made = torch.from_numpy(unpatchify(clean, patches.grid, patch, clip.size)).float()
            error = (made - true).square().mean(-1)
            for kind, chosen in enumerate((moves, ~moves)):
                sums[at, kind] += torch.tensor([error[chosen].sum(), chosen.sum()])
    return [(float(moved), float(other)) for moved, other in (sums[..., 0] / sums[..., 1]).sqrt()]


if __name__ == "__main__":
    for level, (moved, other) in zip(LEVELS, errors(load(*sys.argv[2:3]), int(sys.argv[1])), strict=True):
        print(f"| {level} | {moved:.1f} | {other:.1f} |")
