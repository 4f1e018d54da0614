"""The pyramid within a patch: planes found in lanes, convolutions that know no patch borders, skips."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.packing import pack
from mmcore.pyramid import Convolution, Floors, Planes, PyramidDown, PyramidUp, find_planes
from mmcore.sequence import IMAGE, Patches, document_strip
from tests.conftest import lively  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


@pytest.fixture
def config() -> MMCoreConfig:
    return MMCoreConfig(**PRESETS["debug"])


def lanes_of(grids: list[tuple[int, int, int]]):
    """One document for each grid, alternately in two rows, the patch width 1, patches numbered."""
    strips, count = [], 0
    for i, grid in enumerate(grids):
        n = grid[0] * grid[1] * grid[2]
        values = torch.arange(count, count + n).float()[:, None] + 1
        strips.append(document_strip([Patches(values, grid, IMAGE, learn=bool(i % 2))], last_context=False))
        count += n
    return pack([strips[::2], strips[1::2]], 1)


@given(st.lists(st.tuples(*[st.integers(1, 3)] * 3), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_every_patch_lies_in_one_plane_in_reading_order(grids) -> None:
    seq = lanes_of(grids)
    planes = find_planes(seq.grid, seq.is_patch)
    assert sorted(p.size for p in planes) == sorted({grid[1:] for grid in grids})
    places = torch.cat([p.where.flatten() for p in planes])
    assert sorted(places.tolist()) == seq.is_patch.flatten().nonzero()[:, 0].tolist()
    for p in planes:
        numbers = p.read(seq.patches)[..., 0]
        assert numbers.shape[1:] == p.size
        flat = numbers.flatten(1)
        assert torch.equal(flat, flat[:, :1] + torch.arange(flat.shape[1]))
        assert torch.equal(p.write(torch.zeros_like(seq.patches), numbers[..., None]), seq.patches * _mask(seq, p))


def _mask(seq, planes: Planes) -> torch.Tensor:
    mask = torch.zeros(seq.is_patch.numel(), 1)
    mask[planes.where.flatten()] = 1
    return mask.view(*seq.is_patch.shape, 1)


def test_the_target_lanes_planes_are_found_in_it_alone() -> None:
    seq = lanes_of([(1, 2, 2), (2, 2, 2), (1, 2, 2)])
    _, contexts, targets = seq.lengths
    (planes,) = find_planes(seq.grid, seq.is_patch)
    floors = Floors(planes, [planes.read(seq.patches)], planes.read(seq.patches)[:, 0, 0])
    chosen = floors.of_targets(contexts, contexts + targets)
    assert len(chosen.planes.where) == 2
    assert torch.equal(chosen.planes.read(seq.target_patches), chosen.held[0])
    assert torch.equal(chosen.level, chosen.held[0][:, 0, 0])


def test_a_convolution_is_torchs(config: MMCoreConfig) -> None:
    """Its matrix (C, 9 C) is torch's kernel with the input's channels last."""
    ours, theirs = Convolution(5), torch.nn.Conv2d(5, 5, 3, padding=1, bias=False)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.permute(0, 2, 3, 1).flatten(1))
    x = torch.randn(2, 6, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def both(config: MMCoreConfig) -> tuple[PyramidDown, PyramidUp]:
    torch.manual_seed(0)
    return lively(PyramidDown(config)), lively(PyramidUp(config))


def as_lanes(frames: torch.Tensor, config: MMCoreConfig) -> tuple[torch.Tensor, Planes]:
    """One plane's pixels (rows, columns), the same in all frames and channels, as lanes (1, Y X, P)."""
    t, y, x = config.patch
    rows, columns = frames.shape[0] // y, frames.shape[1] // x
    patches = frames.view(rows, y, columns, x).permute(0, 2, 1, 3)[:, :, None, :, :, None].expand(-1, -1, t, -1, -1, 3)
    where = torch.arange(rows * columns)[None]
    return patches.reshape(1, rows * columns, -1), Planes((rows, columns), where)


@torch.no_grad()
def test_borders_of_patches_are_no_borders(config: MMCoreConfig) -> None:
    """A picture moved by half a patch gives the finest floor moved by as much, away from the picture's border."""
    down, _ = both(config)
    picture = torch.zeros(96, 96)
    picture[40:57, 33:52] = torch.randn(17, 19)
    level = torch.randn(1, 1, config.width).expand(1, 36, -1)
    floors = []
    for moved in (picture, picture.roll((8, 8), (0, 1))):
        patches, planes = as_lanes(moved, config)
        _, (left,) = down(patches, level, [planes])
        floors.append(left.held[0])
    piece = config.patch[1] // 2 ** len(config.floors)
    assert piece == 4
    inner = floors[0][:, 4:-4, 4:-4]
    torch.testing.assert_close(floors[1].roll((-2, -2), (1, 2))[:, 4:-4, 4:-4], inner, atol=1e-5, rtol=1e-5)
    assert inner.std() > 0.1


@torch.no_grad()
def test_what_goes_up_comes_from_the_hidden_states_the_skips_and_the_level(config: MMCoreConfig) -> None:
    down, up = both(config)
    patches, planes = as_lanes(torch.randn(32, 48), config)
    level = torch.randn(1, 6, config.width)
    hidden, floors = down(patches, level, [planes])
    out = up(hidden, floors)
    assert out.shape == patches.shape and out.std() > 0.01
    other = Floors(planes, [torch.zeros_like(f) for f in floors[0].held], floors[0].level)
    later = Floors(planes, floors[0].held, floors[0].level + 1)
    for changed in (up(hidden + 1, floors), up(hidden, [other]), up(hidden, [later])):
        assert (changed - out).abs().max() > 1e-3


def test_a_patch_that_cannot_be_halved_so_often_is_refused() -> None:
    with pytest.raises(ValueError, match="3 floors halve patches"):
        MMCoreConfig(floors=(8, 8, 8), patch=(4, 12, 16))
