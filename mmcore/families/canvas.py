"""Pictures at the sizes that released models take, as tensors and back.

    size = canvas((1080, 1920), largest=1024, smallest=512, multiple=16)      # (576, 1024)
    pixels = to_pixels(resized(image, size))                                  # (3, 576, 1024) in [-1, 1]

A picture keeps its shape, but for what rounding to multiples takes.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from mmcore.document import Image


def canvas(size: tuple[int, int], largest: int, smallest: int, multiple: int) -> tuple[int, int]:
    """Rows and columns at which a picture of some size is taken.

    Args:
        size: (rows, columns) of the picture.
        largest: the longer side is at most this; a multiple of `multiple`.
        smallest: the shorter side is at least this, as far as `largest` lets it.
        multiple: both sides are multiples of it.
    """

    def scaled(sides: tuple[int, int], scale: float) -> tuple[int, int]:
        rows, columns = (max(multiple, round(round(n * scale) / multiple) * multiple) for n in sides)
        return rows, columns

    fitted = scaled(size, max(min(largest / max(size), 1.0), smallest / min(size)))
    return scaled(fitted, largest / max(fitted)) if max(fitted) > largest else fitted


def resized(image: Image, size: tuple[int, int]) -> Image:
    """A picture at (rows, columns), by bicubic interpolation."""
    if image.frames.shape[1:3] == size:
        return image
    picture = PILImage.fromarray(image.frames[0]).resize((size[1], size[0]), PILImage.Resampling.BICUBIC)
    return Image(np.asarray(picture)[None], image.fps, image.learn)


def to_pixels(image: Image) -> Tensor:
    """A picture as (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(image.frames[0].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


def from_pixels(pixels: Tensor) -> Image:
    """(3, H, W) about [-1, 1] -> a picture that the model has written; what lies outside is clipped."""
    levels = ((pixels.float() * 0.5 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0)
    return Image(levels.cpu().numpy()[None], learn=True)
