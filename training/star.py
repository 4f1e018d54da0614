"""An example of tuning: a shape and a motion that the world does not have, a star that zigzags, from 500 documents.

    python -m mmcore.training.star runs/star                               # all weights
    python -m mmcore.training.star runs/star lora=8 optimizer.adam=2e-3    # adapters alone

It writes shards, scores the bundled model, tunes it by the recipe `finetune`, one document in five being the world's
so that less is forgotten, and scores it again: on stars in colours and places that were held out, and on what it could
do before. What follows RUN changes the recipe. To tune a model on documents of your own, only `lessons` would be
another function.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

import mmcore
from mmcore.document import Document, Image, Text, Video
from mmcore.loading import load
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.evaluate import evaluate
from mmcore.training.export import averaged_pipeline
from mmcore.training.recipe import load_recipe
from mmcore.training.shards import Sample, write_shards
from mmcore.training.train import train
from mmcore.training.world.render import render
from mmcore.training.world.scene import COLOURS, Scene

DOCUMENTS, HELD_OUT = 500, 24
FRAMES, FPS, SIZE = 16, 8.0, 64

PLACES = {
    "gray room": "in a gray room",
    "blue sky": "under a blue sky",
    "night": "at night",
    "green field": "on a green field",
}
SIDES = {"left": -1, "right": 1}

ASKED = ("film {}", "show how {}", "a clip, please: {}", "{}")
QUESTIONS = ("what is this?", "what happens here?", "describe this")

RADIUS, TEETH, DEPTH = 0.24, 3, 0.14
"""The star's, in widths of a picture; how many times a clip's zigzag turns, and how far it goes up and down."""

NEAR = 60
"""A pixel whose colour is no farther than this from the star's, of 255, is taken to be the star's."""

CLOSE = 2.5
"""A star goes its way if it is no farther from it than so many pixels; what goes straight is 4.5 away."""

LIKE = 0.5
"""Less than this overlap with a star is no shape at all."""

KNOWN = ("text to image", "text to video", "image to text", "video to text", "video edit")
"""Tasks of the world by which is seen what was forgotten."""

EACH = 12
"""Documents of each of them."""

ROOM = [120, 84, 330]
"""Positions of a row: lessons are short, and mostly to be drawn. Long chats of the world are left out."""

Kind = tuple[str, str, str]
"""A star's colour, the side that it goes to, and the backdrop."""

KINDS = list(product(COLOURS, SIDES, PLACES))
NEVER = KINDS[2::5]
"""Kinds that no lesson shows: the scores are on them."""


def words(kind: Kind) -> str:
    """What is to be seen."""
    colour, side, backdrop = kind
    return f"a {colour} star zigzags to the {side} {PLACES[backdrop]}"


@cache
def empty(backdrop: str) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8."""
    return render(Scene((), backdrop), 1, (SIZE, SIZE))[0]


def film(kind: Kind) -> np.ndarray:
    """A star that goes from one side to the other, up and down on its way: (FRAMES, SIZE, SIZE, 3) uint8."""
    colour, side, backdrop = kind
    fine = 4  # drawn so many times as large, for smooth edges
    clip = []
    for s in np.linspace(0, 1, FRAMES):
        x = 0.5 + SIDES[side] * 0.5 * (s - 0.5)
        y = 0.5 + DEPTH * (2 * abs(2 * (TEETH / 2 * s % 1) - 1) - 1)
        corners = [
            ((x + r * math.sin(a)) * SIZE * fine, (y - r * math.cos(a)) * SIZE * fine)
            for i in range(10)
            for a, r in [(i * math.pi / 5, RADIUS if i % 2 == 0 else RADIUS * 0.45)]
        ]
        large = Picture.fromarray(empty(backdrop)).resize((SIZE * fine, SIZE * fine))
        ImageDraw.Draw(large).polygon(corners, COLOURS[colour])
        clip.append(np.asarray(large.resize((SIZE, SIZE), Picture.Resampling.BOX)))
    return np.stack(clip)


def lessons(first: int, count: int) -> Iterator[Document]:
    """Documents, by index: clips to film (eleven of twenty), their stills to draw (seven), clips to describe (two)."""
    kinds = [kind for kind in KINDS if kind not in NEVER]
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        kind, part = kinds[rng.integers(len(kinds))], rng.random()
        said, clip = words(kind), film(kind)
        if part < 0.55:
            yield Document((Text(str(rng.choice(ASKED)).format(said)), Video(clip, FPS, True)))
        elif part < 0.9:
            still = clip[rng.integers(FRAMES)][None]
            yield Document((Text(f"draw a {kind[0]} star {PLACES[kind[2]]}"), Image(still, learn=True)))
        else:
            yield Document((Video(clip, FPS), Text(str(rng.choice(QUESTIONS))), Text(said, True)))


def star_pixels(clip: np.ndarray, kind: Kind) -> np.ndarray:
    """Where a clip (FRAMES, SIZE, SIZE, 3) has the star's colour, not the backdrop's: (FRAMES, SIZE, SIZE) bool."""
    star, ground = (np.abs(clip.astype(int) - colour).max(-1) for colour in (COLOURS[kind[0]], empty(kind[2])))
    return (star <= NEAR) & (star < ground)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two clips' pixels (FRAMES, SIZE, SIZE) bool, mean over frames, in [0, 1]."""
    both, either = (found & true).sum((1, 2)), (found | true).sum((1, 2))
    return float(np.mean(both / np.maximum(either, 1)))


def centres(pixels: np.ndarray) -> np.ndarray:
    """The middle of each frame's pixels, (row, column): (FRAMES, 2); infinitely far away where there are none."""
    places = [np.argwhere(frame) for frame in pixels]
    return np.stack([place.mean(0) if len(place) else np.full(2, np.inf) for place in places])


def shapes(true: np.ndarray) -> dict[str, np.ndarray]:
    """A star's pixels (FRAMES, SIZE, SIZE) bool, and other shapes of its size in its places."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    found: dict[str, list[np.ndarray]] = {"disc": [], "square": [], "triangle": []}
    for frame, (y, x) in zip(true, centres(true), strict=True):
        area, down, across = frame.sum(), rows - y, columns - x
        height = math.sqrt(2 * area)
        found["disc"].append(down**2 + across**2 <= area / math.pi)
        found["square"].append(np.maximum(abs(down), abs(across)) <= math.sqrt(area) / 2)
        found["triangle"].append((down <= height / 3) & (2 * abs(across) <= down + height * 2 / 3))
    return {"star": true} | {name: np.stack(frames) for name, frames in found.items()}


def likeness(clip: np.ndarray, kind: Kind) -> dict[str, float]:
    """How well a clip's shapes fit a star, and other shapes of its size, wherever they are, each in [0, 1].

    It is the overlap after each frame's shape has been moved onto the true one; a disc's with the star is 0.66.
    """
    found, true = star_pixels(clip, kind), star_pixels(film(kind), kind)
    way = np.nan_to_num(centres(true) - centres(found), posinf=0, neginf=0).round().astype(int)
    moved = np.stack([np.roll(frame, by, (0, 1)) for frame, by in zip(found, way, strict=True)])
    return {name: overlap(moved, shape) for name, shape in shapes(true).items()}


def is_star(clip: np.ndarray, kind: Kind) -> bool:
    """Whether a clip's shapes are more like a star than like a disc, a square or a triangle of its size."""
    found = likeness(clip, kind)
    return found["star"] >= LIKE and max(found, key=lambda name: found[name]) == "star"


def astray(clip: np.ndarray, kind: Kind) -> float:
    """How far a clip's star is from where the true one is, in pixels, mean over frames; infinite if it is ever gone."""
    found, true = (centres(star_pixels(c, kind)) for c in (clip, film(kind)))
    return float(np.hypot(*(found - true).T).mean())


def stars(pipeline: Pipeline) -> dict[str, float]:
    """Shares of kinds that no lesson shows: filmed as a star, on its zigzag way; told in the right words."""
    asked = [Request(Document((Text(ASKED[0].format(words(kind))),)), "video", (FRAMES, SIZE, SIZE)) for kind in NEVER]
    shown = [Request(Document((Video(film(kind), FPS), Text(QUESTIONS[0]))), "text") for kind in NEVER]
    filmed, told = pipeline.reply(asked), pipeline.reply(shown)
    clips = [(reply.media[0].frames, kind) for reply, kind in zip(filmed, NEVER, strict=True)]
    return {
        "a star's clip, overlap": fmean(likeness(*clip)["star"] for clip in clips),
        "a star's clip, shape": fmean(is_star(*clip) for clip in clips),
        "a star's clip, zigzag": fmean(astray(*clip) <= CLOSE for clip in clips),
        "a star's clip in words": fmean(
            reply.text.strip() == words(kind) for reply, kind in zip(told, NEVER, strict=True)
        ),
    }


def scores(pipeline: Pipeline) -> dict[str, float]:
    """What a model can do: the new, and what it could before."""
    known = evaluate(pipeline, EACH, KNOWN, held_out=(), workers=os.cpu_count() or 1).scores
    return stars(pipeline) | {f"{s.task}, {s.measure}": s.value for s in known if s.measure == "right"}


def main(run: Path, changes: list[str]) -> None:
    """Teach the bundled model, and print its scores before and after."""
    bundled = Path(mmcore.__file__).parent / "bundled"
    for name, first, count in (("lessons", 0, DOCUMENTS), ("held-out", DOCUMENTS, HELD_OUT)):
        if not (run / name).exists():
            write_shards(map(Sample.of, lessons(first, count)), run / name)
    named = [f"start={bundled}", f"data={{{json.dumps(str(run / 'lessons'))}=4, world=1}}", "mixture=whole", "solids=3"]
    named += [f"validation.data={run / 'held-out'}", f"layout.room={ROOM}"]
    recipe = load_recipe("finetune", [*named, "validation.every=50", *changes])
    before = scores(load(bundled))
    train(recipe, run)
    after = scores(averaged_pipeline(run))
    for name, value in before.items():
        print(f"{name:36} {value:6.2f} -> {after[name]:6.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
