"""How often the ruler reads true media rightly: fresh scenes of one to three solids, worn, stills and clips, by style.

    python -m mmcore.training.floors 100 plain "pencil sketch"       # scenes of each kind; styles

Without styles it takes all, and a row of scenes as the world draws them, some few of which have a style. Where one sees
no colours, scenes have one or two solids (`styles.stands_out`). A scene counts as right if all that can be said of it
is: every solid with its shape, colour, size and motion, the backdrop, the camera, the style; and in time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import numpy as np

from mmcore.training.evaluate import SOLIDS
from mmcore.training.judge import shows
from mmcore.training.scores import wilson
from mmcore.training.world.heldout import Dice
from mmcore.training.world.scene import STYLES
from mmcore.training.world.shown import Shown, draw
from mmcore.training.world.styles import stands_out

FIRST = 2**41
"""Seeds from here on; training and `mmcore eval` never come so far."""

DRAWN = "as drawn"


def sample(seed: int, style: str, clip: bool) -> tuple[np.ndarray, Shown]:
    """A worn medium (T, Y, X, 3) uint8 and what it shows.

    Args:
        seed: decides everything.
        style: one of `scene.STYLES`, or DRAWN for what the world draws.
        clip: whether it is a clip or a still.
    """
    rng = Dice(FIRST + seed, most=SOLIDS)
    while True:
        shown = draw(rng, clip, styles=style == DRAWN)
        if style != DRAWN:
            shown = replace(shown, scene=replace(shown.scene, style=style))
        if stands_out(shown.scene):
            return shown.given(rng).drawn().frames, shown


def is_read(seed: int, style: str, clip: bool) -> bool:
    """Whether the ruler reads a seed's medium rightly."""
    return shows(*sample(seed, style, clip))


def main(count: int, styles: Sequence[str]) -> None:
    """Print a row for each style, of stills and of clips, with its 95 % interval and the seeds that were misread."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for style in styles:
            for clip in (False, True):
                right = list(pool.map(partial(is_read, style=style, clip=clip), range(count)))
                low, high = wilson(sum(right), count)
                wrong = [seed for seed, read in enumerate(right) if not read]
                kind = "clips" if clip else "stills"
                print(f"{style:13} {kind:6} {sum(right):4} of {count}  [{low:.3f}, {high:.3f}]  {wrong}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] or (DRAWN, *STYLES))
