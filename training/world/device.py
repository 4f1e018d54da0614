"""The renderer by PyTorch, for many frames at once on any device: what `render`, `styles` and `wear` do frame by frame.

It draws the same but for rounding.

    frames = draw(sheet)                 # (F, COLUMNS) of `sheet` -> (F, 64, 64, 3) uint8

Every solid is hit as each of the four shapes, and one of the four is taken; that is quick where one kernel does it all,
so blocks of BLOCK frames are compiled for a GPU. Shapes: `F` frames, `Y X` rows and columns of rays; a vector is three
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mmcore.training.world import sheet as columns
from mmcore.training.world.camera import AIM_HEIGHT, GROUND_SKY, HILLS, RAYS
from mmcore.training.world.codec import through_codec
from mmcore.training.world.looks import styled, worn
from mmcore.training.world.render import PROPORTIONS, YAW
from mmcore.training.world.scene import BACKDROPS, COLOURS, SHAPES
from mmcore.training.world.studio import Studio
from mmcore.training.world.take import SIZE

Vector = tuple[Tensor, Tensor, Tensor]

Filmed = dict[str, Tensor]
"""Numbers of `studio.Studio`, each (F, 1, 1)."""

BLOCK = 512
"""Frames that are drawn at once."""


def draw(sheet: Tensor) -> Tensor:
    """Draw frames.

    Args:
        sheet: (F, COLUMNS) float32, rows of `sheet.sheet_of`.
    Returns:
        (F, 64, 64, 3) uint8 on the same device.
    """
    stages: tuple[Callable[..., Any], ...] = (_empty, _solid, _finish)
    empty, solid, finish = map(_compiled, stages) if sheet.is_cuda else stages
    frames = [torch.zeros(0, *SIZE, 3, dtype=torch.uint8, device=sheet.device)]
    for block in sheet.split(BLOCK):
        if sheet.is_cuda:  # compiled for one shape alone
            block = torch.nn.functional.pad(block, (0, 0, 0, BLOCK - len(block)))
        picture, rays = empty(block)
        for numbers in block[:, columns.SOLIDS :].split(len(columns.SOLID), 1):
            picture = solid(picture, rays, numbers, block)
        frames.append(finish(picture, block))
    return torch.cat(frames)[: len(sheet)]


@cache
def _compiled(stage: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(stage, dynamic=False)


def _empty(sheet: Tensor) -> tuple[Vector, Vector]:
    """The backdrop with the solids' shadows, each colour (F, Y, X) in [0, 1], and the rays."""
    f = sheet[:, :, None, None]
    height, gain, studio = f[:, 0], f[:, columns.LIGHT + 1], _studio(f)
    light = _light(f[:, columns.LIGHT], studio)
    rays = _rays(height, f[:, 1], f[:, 2], studio, sheet.device)
    picture, ground, x, z = _background(rays, height, studio, f[:, columns.BACKDROP], sheet)
    shade = gain
    for numbers in f[:, columns.SOLIDS :].split(len(columns.SOLID), 1):
        shade = shade * _shadow(numbers, light, studio, ground, x, z)
    red, green, blue = (colour * shade for colour in picture)
    return (red, green, blue), rays


def _solid(picture: Vector, rays: Vector, numbers: Tensor, sheet: Tensor) -> Vector:
    """A picture with one more solid before it, whose columns are `numbers`."""
    f = sheet[:, :, None, None]
    mask, painted = _sprite(numbers[:, :, None, None], rays, f, sheet)
    red, green, blue = (torch.where(mask, new, old) for new, old in zip(painted, picture, strict=True))
    return red, green, blue


def _finish(picture: Vector, sheet: Tensor) -> Tensor:
    """Frames (F, 64, 64, 3) uint8 in their style, worn."""
    image = torch.stack(picture, -1)
    f, rows, across, _ = image.shape
    mean = image.view(f, rows // RAYS, RAYS, across // RAYS, RAYS, 3).mean((2, 4))
    frames = styled(torch.floor((mean * 255 + 0.5).clamp(0, 255)), sheet[:, columns.STYLE])
    return through_codec(worn(frames, sheet), sheet[:, columns.QUALITY]).to(torch.uint8)


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _table(sheet: Tensor, rows: list[tuple[float, ...]], index: Tensor) -> list[Tensor]:
    """What stands in an index's row of a table, each column by itself."""
    found = torch.tensor(rows, device=sheet.device, dtype=torch.float32)[index.long()]
    return list(found.unbind(-1))


def _studio(f: Tensor) -> Filmed:
    """Where each frame (F, COLUMNS, 1, 1) is filmed."""
    return dict(zip(Studio._fields, f[:, columns.STUDIO : columns.SOLIDS].unbind(1), strict=True))


def _rays(height: Tensor, turn: Tensor, zoom: Tensor, studio: Filmed, device: torch.device) -> Vector:
    """Directions of length 1, each (F, Y, X); see `camera.view`."""
    rows, across = SIZE[0] * RAYS, SIZE[1] * RAYS
    half = studio["half"] * zoom
    v = (1 - (2 * torch.arange(rows, device=device) + 1) / rows)[None, :, None] * half * (SIZE[0] / max(SIZE))
    u = ((2 * torch.arange(across, device=device) + 1) / across - 1)[None, None] * half * (SIZE[1] / max(SIZE))
    c, s = torch.cos(turn), torch.sin(turn)
    forward = studio["back"] * s, AIM_HEIGHT - height, studio["back"] * c
    length = torch.sqrt(_dot(forward, forward))
    fx, fy, fz = (part / length for part in forward)
    up = -fy * s, fz * c + fx * s, -fy * c
    x, y, z = fx + v * up[0] + u * c, fy + v * up[1], fz + v * up[2] - u * s
    length = torch.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _light(azimuth: Tensor, studio: Filmed) -> Vector:
    """Towards the light."""
    length = (1 + studio["slope"] ** 2) ** 0.5
    return torch.sin(azimuth) / length, studio["slope"] / length, -torch.cos(azimuth) / length


def _background(
    rays: Vector, height: Tensor, studio: Filmed, backdrop: Tensor, sheet: Tensor
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The empty backdrop, which rays meet the ground, and where; see `camera.background`."""
    x, y, z = rays
    ground = -y > 1e-3
    distance = height / torch.where(ground, -y, 1)
    fade = torch.where(ground, 1 - torch.exp(-((distance / 14) ** 2)), (y / 0.22).clamp(0, 1))
    grounds = [tuple(v / 255 for v in (*GROUND_SKY[b][0], *GROUND_SKY[b][1], *GROUND_SKY[b][2])) for b in BACKDROPS]
    hills = [(*(v / 255 for v in HILLS[b][0]), *HILLS[b][1:]) for b in BACKDROPS]
    low = _table(sheet, grounds, backdrop)
    *colour, phase, count = _table(sheet, hills, backdrop)
    azimuth = torch.atan2(x, z)
    profile = 0.03 + 0.016 * torch.sin(count * azimuth + phase) + 0.01 * torch.sin(2.7 * count * azimuth - phase)
    hill = ((profile - y) * 120).clamp(0, 1)
    picture = []
    for i in range(3):
        floor, horizon, sky = low[i], low[3 + i], low[6 + i]
        behind = horizon + (sky - horizon) * fade
        behind = behind + (colour[i] - behind) * hill
        picture.append(torch.where(ground, floor + (horizon - floor) * fade, behind))
    return picture, ground, x * distance + studio["across"], z * distance - studio["back"]


def _shadow(solid: Tensor, light: Vector, studio: Filmed, ground: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """What a solid leaves of the ground's brightness; see `render.shade_ground`."""
    size = solid[:, 5]
    lift = (solid[:, 3] + 0.5 * size) / light[1]
    far = torch.hypot(x - (solid[:, 2] - light[0] * lift), z - (solid[:, 4] - light[2] * lift))
    edge = 1 + studio["penumbra"] / 2 - far / size.clamp(min=1e-6)
    soft = (edge / studio["penumbra"]).clamp(0, 1) * (ground & (size > 0))
    return 1 - studio["shadow"] / (1 + solid[:, 3]) * soft


def _sprite(solid: Tensor, rays: Vector, f: Tensor, sheet: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Which rays a solid stops, and their colours; see `render.sprite`."""
    height, gain, studio = f[:, 0], f[:, columns.LIGHT + 1], _studio(f)
    light = _light(f[:, columns.LIGHT], studio)
    shape, size, turn = solid[:, 0], solid[:, 5], solid[:, 6]
    scale = size.clamp(min=1e-6)
    places = studio["across"] - solid[:, 2], height - solid[:, 3], -studio["back"] - solid[:, 4]
    origin = places[0] / scale, places[1] / scale, places[2] / scale
    kinds = {"cube": _cube, "ball": _ball, "cone": _cone, "cylinder": _cylinder}
    hits = [kinds[name](origin, rays, turn) for name in SHAPES]
    mask, t, *normal = hits[0]
    for i, (other_mask, other_t, *other_normal) in enumerate(hits[1:], 1):
        mask, t = torch.where(shape == i, other_mask, mask), torch.where(shape == i, other_t, t)
        normal = [torch.where(shape == i, new, old) for new, old in zip(other_normal, normal, strict=True)]
    length = torch.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2).clamp(min=1e-6)
    way = normal[0] / length, normal[1] / length, normal[2] / length
    diffuse = _dot(way, light).clamp(min=0)
    bounced = [2 * diffuse * n - towards for n, towards in zip(way, light, strict=True)]
    eighth = (-_dot((bounced[0], bounced[1], bounced[2]), rays)).clamp(min=0) ** 2
    eighth = (eighth * eighth) ** 2
    shine = studio["specular"] * eighth * eighth * eighth
    base = _table(sheet, [tuple(v / 255 for v in colour) for colour in COLOURS.values()], solid[:, 1])
    lit = studio["ambient"] + studio["diffuse"] * diffuse
    return mask & (t > 0) & (size > 0), [gain * (channel * lit + shine) for channel in base]


Hit = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Whether rays meet a solid of size 1, how far away, and the outward normals; see `render.hit`."""


def _tipped(vector: Vector, turn: Tensor) -> Vector:
    c, s, (x, y, z) = torch.cos(turn), torch.sin(turn), vector
    return c * x - s * y, s * x + c * y, z


def _ball(origin: Vector, rays: Vector, _: Tensor) -> Hit:
    ox, oy, oz = origin[0], origin[1] - 1, origin[2]
    b = _dot(rays, (ox, oy, oz))
    found = b * b - (_dot((ox, oy, oz), (ox, oy, oz)) - 1)
    t = -b - torch.sqrt(found.clamp(min=0))
    return found > 0, t, ox + t * rays[0], oy + t * rays[1], oz + t * rays[2]


def _cube(origin: Vector, rays: Vector, turn: Tensor) -> Hit:
    half = PROPORTIONS["cube"][0]
    c, s = torch.cos(YAW + turn), torch.sin(YAW + turn)
    o = c * origin[0] - s * origin[2], origin[1] - half, s * origin[0] + c * origin[2]
    d = c * rays[0] - s * rays[2], rays[1], s * rays[0] + c * rays[2]
    d = tuple(torch.where(part == 0, 1e-9, part) for part in d)
    signs = [torch.sign(part) for part in d]
    enter = [(-sign * half - a) / b for sign, a, b in zip(signs, o, d, strict=True)]
    leave = [(sign * half - a) / b for sign, a, b in zip(signs, o, d, strict=True)]
    t = torch.maximum(torch.maximum(enter[0], enter[1]), enter[2])
    out = torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])
    first = enter[0] == t
    second = (enter[1] == t) & ~first
    chosen = first, second, ~first & ~second
    faces = [torch.where(there, -sign, 0) for there, sign in zip(chosen, signs, strict=True)]
    return t < out, t, c * faces[0] + s * faces[2], faces[1], c * faces[2] - s * faces[0]


def _cone(origin: Vector, rays: Vector, turn: Tensor) -> Hit:
    x, y, z = _tipped((origin[0], origin[1] - 1, origin[2]), turn)
    found, t, *normal = _round((x, y + 1, z), _tipped(rays, turn), "cone")
    return found, t, *_tipped((normal[0], normal[1], normal[2]), -turn)


def _cylinder(origin: Vector, rays: Vector, _: Tensor) -> Hit:
    half, height = PROPORTIONS["cylinder"]
    side, t, *normal = _round(origin, rays, "cylinder")
    cap = (height - origin[1]) / torch.where(rays[1] == 0, 1e-9, rays[1])
    x, z = origin[0] + cap * rays[0], origin[2] + cap * rays[2]
    on_cap = (cap > 0) & (x * x + z * z <= half**2)
    normal = [torch.where(on_cap, up, n) for up, n in zip((0.0, 1.0, 0.0), normal, strict=True)]
    return side | on_cap, torch.where(on_cap, cap, t), normal[0], normal[1], normal[2]


def _round(origin: Vector, rays: Vector, shape: str) -> Hit:
    """The side of a cylinder or a cone."""
    half, height = PROPORTIONS[shape]
    slope = half / height if shape == "cone" else 0.0
    (ox, oy, oz), (dx, dy, dz) = origin, rays
    radius, step = half - slope * oy, -slope * dy
    a = dx * dx + dz * dz - step**2
    b = dx * ox + dz * oz - radius * step
    found = b * b - a * (ox * ox + oz * oz - radius**2)
    t = (-b - torch.sqrt(found.clamp(min=0))) / torch.where(a.abs() < 1e-9, 1e-9, a)
    y = oy + t * dy
    return (found > 0) & (y >= 0) & (y <= height), t, ox + t * dx, slope * (half - slope * y), oz + t * dz
