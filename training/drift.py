"""Whether a long clip, filmed window by window, stays what was asked for: the ruler's attributes along its length.

    python -m mmcore.training.drift 4 2000         # clips, frames

Each clip is of one solid that stays what it is. The last frame of every few windows is read and compared with what was
asked for; a row is for a fifth of the clips' length. A model that drifts falls from row to row; one that only errs now
and then does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from mmcore.loading import load
from mmcore.pipeline import Pipeline
from mmcore.training.meter import peak_megabytes
from mmcore.training.world.heldout import Dice
from mmcore.training.world.language import caption
from mmcore.training.world.readout import read_scene
from mmcore.training.world.sampling import sample_scene
from mmcore.training.world.scene import Scene

FIRST = 2**42
"""Seeds from here on."""

WINDOW, STEPS = 8, 5
"""Frames of a window, and steps in which it is sampled."""

EACH = 5
"""One window in so many is read."""

ROWS = 5

STAYING = ("still", "spin", "bounce", "left", "right")
"""Motions at whose end a solid is what it was."""

ATTRIBUTES = ("shape", "colour", "size", "backdrop", "all")


def asked(count: int) -> Iterator[Scene]:
    """Scenes of one solid that stays what it is."""
    seed = FIRST
    while count:
        scene, seed = sample_scene(Dice(seed), moving=True, solids=1), seed + 1
        if scene.solids[0].motion in STAYING and scene.camera == "still":
            yield scene
            count -= 1


def agreement(frame: np.ndarray, scene: Scene) -> list[bool]:
    """For each of ATTRIBUTES whether a frame (Y, X, 3) shows it; with no solid or several, only the backdrop can."""
    found, true = read_scene(frame[None]).scene, scene.solids[0]
    same = [found.backdrop == scene.backdrop]
    if len(found.solids) != 1:
        return [False] * 3 + same + [False]
    solid = found.solids[0]
    parts = [solid.shape == true.shape, solid.colour == true.colour, solid.size == true.size, *same]
    return [*parts, all(parts)]


def follow(pipeline: Pipeline, scene: Scene, frames: int, seed: int) -> np.ndarray:
    """What a clip of a scene shows along its length: (N, ATTRIBUTES) bool."""
    windows = pipeline.film(caption(scene, True), frames=frames, window=WINDOW, seed=seed, steps=STEPS)
    return np.array([agreement(w.frames[-1], scene) for k, w in enumerate(windows) if k % EACH == 0])


def main(clips: int, frames: int) -> None:
    """Print a row for each fifth of the length, then the peak of memory after each clip."""
    pipeline, found, peaks = load(), [], []
    for seed, scene in enumerate(asked(clips)):
        found.append(follow(pipeline, scene, frames, seed))
        peaks.append(peak_megabytes())
        print(f"{caption(scene, True)}: {found[-1][:, -1].mean():.2f} of its frames right", flush=True)
    print("| frames | read | " + " | ".join(ATTRIBUTES) + " |")
    for k, part in enumerate(np.array_split(np.stack(found, 1), ROWS)):
        shares = part.reshape(-1, len(ATTRIBUTES)).mean(0)
        row = " | ".join(f"{share:.2f}" for share in shares)
        print(f"| to {frames * (k + 1) // ROWS} | {part.shape[0] * part.shape[1]} | {row} |")
    print("peak memory, MB: " + ", ".join(f"{peak:.0f}" for peak in peaks))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
