"""Places of Lance's media: those of a larger grid, and rotary positions around a medium."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.families.lance import block_places, waves
from mmcore.sequence import Grid

pytestmark = pytest.mark.quick


def test_places_of_a_larger_grid_begin_alike() -> None:
    """The table is computed for any size: a place keeps its vector, and no two places share one."""
    small, large = waves((2, 2, 3), 64), waves((4, 5, 6), 64).view(4, 5, 6, 64)
    assert torch.equal(small.view(2, 2, 3, 64), large[:2, :2, :3])
    assert len(large.view(-1, 64).unique(dim=0)) == 120


@settings(deadline=None)
@given(st.integers(0, 1000), st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)))
def test_places_of_a_medium(position: int, grid: Grid) -> None:
    """Every token has a place of its own behind what opens the medium, and what closes it lies behind them all."""
    places = block_places(position, grid, 2)
    opener, inside, closer = places[0], places[1:-1], places[-1]
    assert (opener == position).all() and len(np.unique(inside, axis=0)) == len(inside) == np.prod(grid)
    assert (inside.min(0) == position + 1).all() and (closer == inside.max() + 1).all()
    assert inside[:, 0].max() - position - 1 == 2 * (grid[0] - 1)
