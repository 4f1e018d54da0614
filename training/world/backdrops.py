"""Backdrops without solids: which one a frame shows, from how high, under how much light, and what it leaves over.

    empty, left = read_backdrop(frame, "plain")          # (Y, X, 3) uint8; left (Y, X)

Frames are compared here too, in each style by what wear leaves of them. See `readout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from mmcore.training.world.blocks import explained, off
from mmcore.training.world.camera import RAYS, View, background, view
from mmcore.training.world.render import Light, Placed, Sprite, compose
from mmcore.training.world.scene import BACKDROPS, HEIGHTS
from mmcore.training.world.sketch import enclosed, levelled
from mmcore.training.world.studio import OWN
from mmcore.training.world.styles import in_blocks, softer, spread, styled

NEAR = 24
"""Colours no further apart than this, of 255, are taken for the same."""

GRAYS_NEAR, LINES_NEAR = 14, 5
"""The same where there are only grays, and in a pencil sketch, softened."""

LINES_FAR = 12
"""Where one sees no colours, a pixel of the empty scene counts for no more than this, of 255."""

SKETCH, PIXELS, GRAYSCALE = "pencil sketch", "pixel art", "grayscale"

DARK = 1e-4
"""Keeps black from dividing by nothing."""

FAR = 60
"""Errors of a pixel count no more than this, of 255."""


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Rays to pixels: (RAYS Y, RAYS X, ...) -> (Y, X, ...) means."""
    rays = (picture[i::RAYS, j::RAYS] for i in range(RAYS) for j in range(RAYS))
    return reduce(np.add, rays) / np.float32(RAYS**2)


@dataclass(frozen=True)
class Empty:
    """A backdrop without solids: its name, gain, pixels (RAYS Y, RAYS X, 3), who sees it, from how high, its style, and
    how far (of 255) a frame is from it, no pixel counting for more than FAR.
    """

    backdrop: str
    gain: float
    back: np.ndarray
    seen: View
    height: float
    style: str
    error: float

    def draw(self, solids: Sequence[Placed], sprites: Sequence[Sprite | None], light: Light) -> np.ndarray:
        """One frame (Y, X, 3) with solids on it, in the style in which it is compared."""
        return styled(compose(self.seen, self.back, solids, sprites, light)[None], compared_in(self.style))[0]


def read_backdrop(frame: np.ndarray, style: str) -> tuple[Empty, np.ndarray]:
    """The backdrop that explains most of a frame (Y, X, 3), and which pixels it leaves over, (Y, X) bool."""
    size = (frame.shape[0], frame.shape[1])
    lowest, highest = HEIGHTS
    best = min(
        (
            explain(frame, name, view(size, height), height, style)
            for name in BACKDROPS
            for height in np.linspace(lowest, highest, 4).round(2).tolist()
        ),
        key=unexplained,
    )
    for stride in (0.08, 0.04, 0.02):
        name, height = best[0].backdrop, best[0].height
        nearby = (round(height - stride, 2), round(height + stride, 2))
        best = min((best, *(explain(frame, name, view(size, h), h, style) for h in nearby)), key=unexplained)
    return best


def unexplained(found: tuple[Empty, np.ndarray]) -> float:
    """What a backdrop leaves unexplained of a frame."""
    return found[0].error


def explain(frame: np.ndarray, backdrop: str, seen: View, height: float, style: str) -> tuple[Empty, np.ndarray]:
    """A backdrop as it would be seen, and which pixels of a frame it leaves over; the ground may lie in shadow."""
    if style == SKETCH:
        return explain_sketch(frame, backdrop, seen, height)
    if style == PIXELS:
        return explain_blocks(frame, backdrop, seen, height)
    pixels = frame.astype(np.float32) / 255
    back = background(backdrop, seen)
    bare = in_style(shrunk(back), style)
    sky = slice(0, frame.shape[0] // 5)
    gain = float(np.median((pixels[sky] * bare[sky]).sum(-1) / (np.square(bare[sky]).sum(-1) + DARK)))
    expected = gain * bare
    shade = (pixels * expected).sum(-1) / (np.square(expected).sum(-1) + DARK)
    shade = np.where(shrunk(seen.ground.astype(np.float32)) > 0.5, np.clip(shade, 1 - OWN.shadow, 1), 1)
    apart = np.abs(pixels - shade[..., None] * expected) * 255
    if style == GRAYSCALE:
        left, furthest = np.abs(pixels - expected).max(-1) * 255 > GRAYS_NEAR, LINES_FAR
    else:
        left, furthest = apart.max(-1) > NEAR, FAR
    error = float(np.minimum(apart.mean(-1), furthest).mean())
    return Empty(backdrop, gain, back * np.float32(gain), seen, height, style, error), left


def explain_blocks(frame: np.ndarray, backdrop: str, seen: View, height: float) -> tuple[Empty, np.ndarray]:
    """The same of pixel art."""
    back, size = background(backdrop, seen), (frame.shape[0], frame.shape[1])
    ground = in_blocks(shrunk(seen.ground.astype(np.float32))[None, ..., None])[0, ..., 0] > 0
    blocks, bare = in_blocks(np.stack((frame, 255 * shrunk(back))))
    gain, error, left = explained(blocks, bare, ground, np.linspace(1 - OWN.shadow, 1, 7))
    return Empty(backdrop, gain, back * np.float32(gain), seen, height, PIXELS, error), spread(left[None], size)[0]


def explain_sketch(frame: np.ndarray, backdrop: str, seen: View, height: float) -> tuple[Empty, np.ndarray]:
    """The same of a pencil sketch, whose lines are clearer than its surfaces; what they enclose is left over."""
    back = background(backdrop, seen)
    empty = Empty(backdrop, 1.0, back, seen, height, SKETCH, 0.0)
    expected = empty.draw([], [], Light(0, 1))
    soft, bare = softer(np.concatenate((levelled(frame[None], expected), expected[None])), SKETCH).astype(np.float32)
    apart = np.abs(soft - bare).mean(-1)
    return replace(empty, error=float(np.minimum(apart, LINES_FAR).mean())), enclosed(apart > LINES_NEAR)


def in_style(picture: np.ndarray, style: str) -> np.ndarray:
    """A picture (Y, X, 3) in [0, 1] in a style."""
    if style == "plain":
        return picture
    return styled(np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)[None], style)[0].astype(np.float32) / 255


def compared_in(style: str) -> str:
    """The style in which scenes are drawn to be compared with what is in a style."""
    return "plain" if style == PIXELS else style


def comparable(frames: np.ndarray, style: str) -> np.ndarray:
    """What is compared of frames (T, Y, X, 3) in a style: sketches softened, pixel art block by block."""
    return in_blocks(frames) if style == PIXELS else softer(frames, style)


def closeness(frame: np.ndarray, other: np.ndarray, style: str) -> float:
    """Minus the mean distance of what is comparable of a picture or clip and of a render, of 255, no pixel counting for
    more than FAR.
    """
    if style == PIXELS:
        return -float(np.minimum(off(frame, other).mean(-1), FAR).mean())
    far = np.abs(frame.astype(np.int16) - other)
    return -float(np.minimum(far[..., 0] + far[..., 1] + far[..., 2], 3 * FAR).mean()) / 3
