"""From pixels back to a scene, by analysis and synthesis with the renderer. Nothing here is learnt.

    found = read_scene(frames)               # (T, Y, X, 3) uint8
    found.scene, found.error

1. The backdrop is the one that explains most pixels; what it leaves over is sorted by colour.
2. Silhouettes of solids at many places (`peel.bank`) are laid over what is left: the best is moved about until it fits,
   and taken out, until nothing is left. So the first frame says where things are.
3. What each does is the motion whose frames, drawn by the renderer, come closest to the clip's. What only the last
   frame shows has appeared, or grown from what was too small to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmcore.training.world.backdrops import (
    NEAR,
    PIXELS,
    SKETCH,
    Empty,
    closeness,
    comparable,
    compared_in,
    explain,
    read_backdrop,
    unexplained,
)
from mmcore.training.world.blocks import WORN, restored
from mmcore.training.world.camera import aim, view
from mmcore.training.world.paths import agree, moments, paths
from mmcore.training.world.peel import peel
from mmcore.training.world.render import Light, Placed, placed, render, render_moments, sprite
from mmcore.training.world.scene import ALONE, CAMERAS, COLOURLESS, GROWN, SHAPES, SIZES, SLIDES, Scene, Solid
from mmcore.training.world.sketch import levelled
from mmcore.training.world.styles import likely_styles

PACES = (0.75, 1.05)
"""Paces that are tried first."""

PACES_OF_HITS = tuple(np.linspace(0.6, 1.2, 9).tolist())
"""The same for what hits another ball: when it does decides where both end."""

LIKE = 20.0
"""A reading whose error is below this is in the right style: it was 17 at most in that, 33 at least in the other."""

TIMED, CLEARLY = 12, 0.05
"""Clips of so many frames are timed; how much closer (of 255) one in time must be, to be so."""


@dataclass(frozen=True)
class Found:
    """What a clip shows.

    Args:
        scene: the scene that explains it best.
        error: mean distance between the clip and that scene's render, over the pixels of solids in either, of 255.
        late: whether the clip is one frame behind that scene.
    """

    scene: Scene
    error: float
    late: bool = False


def read_light(frame: np.ndarray, empty: Empty, solids: Sequence[Placed]) -> float:
    """The azimuth under which a frame's solids look most as they do."""

    ready = comparable(frame[None], empty.style)

    def score(azimuth: float) -> float:
        light = Light(azimuth, empty.gain)
        sprites = [sprite(s, light, empty.seen) for s in solids]
        return closeness(ready, comparable(empty.draw(solids, sprites, light)[None], empty.style), empty.style)

    return max(np.linspace(-0.9, 0.9, 13).tolist(), key=score)


def nearest_size(radius: float) -> str:
    """The size whose radius is nearest, by ratio."""
    return min(SIZES, key=lambda name: abs(np.log(SIZES[name] / radius)))


def guesses(solid: Placed) -> Iterator[Solid]:
    """What a solid of a first frame may be: each motion, with the size that it then has."""
    for motion in ALONE:
        if motion == "appear":
            continue
        scale = {"grow": 0.45, "shrink": 1.2}.get(motion, 1.0)
        size = nearest_size(solid.radius / scale)
        if abs(np.log(SIZES[size] * scale / solid.radius)) < 0.25:
            for pace in PACES if motion in SLIDES else (1.0,):
                yield Solid(solid.shape, solid.colour, size, solid.x, solid.z, motion, pace)


def together(scene: Scene) -> Iterator[Scene]:
    """What two solids may do with each other."""
    a, b = scene.at_rest.solids
    for one, other in ((a, b), (b, a)):
        ways = [(replace(one, motion="orbit"), other)]
        ways += [(replace(one, motion="hit", pace=pace), replace(other, motion="be hit")) for pace in PACES_OF_HITS]
        for way in ways:
            tried = replace(scene, solids=way if one is a else way[::-1])
            if agree(tried):
                yield tried


def paced(scene: Scene, i: int, score: Callable[[Scene], float]) -> Scene:
    """The scene with the pace at which solid i comes closest."""
    if scene.solids[i].motion not in (*SLIDES, "hit"):
        return scene
    for stride in (0.1, 0.05):
        solid = scene.solids[i]
        tried = [scene.swap(i, replace(solid, pace=solid.pace + step)) for step in (-stride, 0.0, stride)]
        scene = max(tried, key=score)
    return scene


def shaped(scene: Scene, i: int, score: Callable[[Scene], float]) -> Scene:
    """The scene with the shape of solid i that comes closest in all frames; in the first alone it may be unclear."""
    tried = [scene.swap(i, replace(scene.solids[i], shape=shape)) for shape in SHAPES]
    return max([scene, *(other for other in tried if agree(other))], key=score)


def at_rest(solid: Placed, motion: str) -> Solid:
    """A solid of about this size."""
    return Solid(solid.shape, solid.colour, nearest_size(solid.radius), solid.x, solid.z, motion)


def read_scene(frames: np.ndarray) -> Found:
    """Read a still or a clip, of one shot or of two.

    Args:
        frames: (T, Y, X, 3) uint8; one frame is a still.
    """
    styles = likely_styles(frames)
    if styles == COLOURLESS:
        styles = sorted(styles, key=lambda style: unexplained(read_backdrop(frames[0], style)))
    else:
        styles = (PIXELS if restored(frames[:1])[1] < WORN else "plain",)
    found = read_in(frames, styles[0])
    others = styles[1:] if found.error >= LIKE else ()
    return min((found, *(read_in(frames, style) for style in others)), key=lambda found: found.error)


def read_in(frames: np.ndarray, style: str) -> Found:
    """Read a still or a clip that is drawn in a style."""
    if style == PIXELS:
        frames, _ = restored(frames)
    half = len(frames) // 2
    cut = half > 1 and len({read_backdrop(frames[f], style)[0].backdrop for f in (half - 1, half)}) == 2
    scenes = [read_shot(shot, style) for shot in ((frames[:half], frames[half:]) if cut else (frames,))]
    scene = replace(scenes[0], then=scenes[1]) if cut else scenes[0]
    late = len(frames) >= TIMED and not cut and is_late(frames, scene)
    return Found(scene, distance(frames, scene), late)


def read_shot(frames: np.ndarray, style: str) -> Scene:
    """The scene of a still, or of a clip of one shot, that is drawn in a style."""
    empty, left = read_backdrop(frames[0], style)
    if style == SKETCH:
        frames = levelled(frames, empty.draw([], [], Light(0.0, 1.0)))
    begin, end = frames[0], frames[-1]
    first = peel(begin, empty, left)
    azimuth = read_light(begin, empty, first) if first else 0.0
    camera = read_camera(end, empty)
    solids = tuple(at_rest(s, "still") for s in first)
    scene = Scene(solids, empty.backdrop, azimuth, empty.gain, empty.height, camera, style)
    if len(frames) > 1:
        scene = read_motions(frames, scene, first, empty)
    return scene.in_order


def is_late(frames: np.ndarray, scene: Scene) -> bool:
    """Whether a clip of one shot is one frame behind its scene."""
    size, count = (frames.shape[1], frames.shape[2]), len(frames)
    quicker = scene.hurried((count - 1) / (count - 2))
    s, behind = moments(count), np.maximum(np.arange(count) - 1, 0) / (count - 1)
    clip = comparable(frames, scene.style)
    in_time = max(likeness(clip, way, s, size) for way in (scene, quicker))
    late = max(likeness(clip, way, behind, size) for way in (scene, quicker))
    return late > in_time + CLEARLY


def likeness(clip: np.ndarray, scene: Scene, s: np.ndarray, size: tuple[int, int]) -> float:
    """How close a scene at moments s (T,) comes to what is comparable of a clip, of a size, in its style."""
    drawn = render_moments(replace(scene, style=compared_in(scene.style)), s, size)
    return closeness(clip, comparable(drawn, scene.style), scene.style)


def read_camera(last: np.ndarray, empty: Empty) -> str:
    """What the camera has done by the last frame, from the backdrop that it then sees."""
    return min(CAMERAS, key=lambda camera: unexplained(seen_through(camera, last, empty)))


def seen_through(camera: str, last: np.ndarray, empty: Empty) -> tuple[Empty, np.ndarray]:
    """The backdrop as a camera sees it in the last frame, and which pixels that leaves over."""
    seen = view((last.shape[0], last.shape[1]), empty.height, *aim(camera, 1.0))
    return explain(last, empty.backdrop, seen, empty.height, empty.style)


def read_motions(frames: np.ndarray, scene: Scene, first: Sequence[Placed], empty: Empty) -> Scene:
    """What each solid of a clip's first frame does, and what has come by its last frame."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))
    s, size = moments(len(frames))[chosen], (frames.shape[1], frames.shape[2])

    clip = comparable(frames[chosen], scene.style)

    def score(tried: Scene) -> float:
        return likeness(clip, tried, s, size)

    for _round in range(2 if len(first) > 1 else 1):
        for i, solid in enumerate(first):
            tried = [scene.swap(i, guess) for guess in guesses(solid)] or [scene]
            scene = shaped(paced(max(tried, key=score), i, score), i, score)
    if len(first) == 2:
        scene = max((scene, *together(scene)), key=score)
        for i in range(2):
            scene = shaped(paced(scene, i, score), i, score)
    last = frames[-1]
    empty, left = seen_through(scene.camera, last, empty)
    there = [replace(p, radius=p.radius + 0.05) for p in last_places(scene)]
    for solid in peel(last, empty, left, there):
        grown_up = replace(solid, radius=solid.radius / GROWN)
        ways = (at_rest(solid, "appear"), at_rest(grown_up, "grow"))
        scene = max((replace(scene, solids=(*scene.solids, way)) for way in ways), key=score)
    return scene


def last_places(scene: Scene) -> list[Placed]:
    """Where a scene's solids are in a clip's last frame."""
    ways = paths(scene, np.ones(1))
    return [placed(solid, way, 0) for solid, way in zip(scene.solids, ways, strict=True)]


def distance(frames: np.ndarray, scene: Scene) -> float:
    """Mean distance between a clip and a scene's render over the pixels of solids in either."""
    size = (frames.shape[1], frames.shape[2])
    drawn = render(scene, len(frames), size)
    empty = render(scene.emptied, len(frames), size)
    either = (np.abs(drawn.astype(int) - empty).max(-1) > NEAR) | (np.abs(frames.astype(int) - empty).max(-1) > NEAR)
    far = np.abs(drawn.astype(np.float32) - frames.astype(np.float32)).mean(-1)
    return float(far[either].mean()) if either.any() else 0.0
