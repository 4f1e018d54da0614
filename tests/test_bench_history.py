"""What a cache saves in a long conversation: that the work is counted right, and that both ways draw the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmcore.families.diffusion_head import HeadShape
from mmcore.families.experts import Shape
from mmcore.families.showo2_past import Showo2Backbone
from mmcore.generate import Order, write
from mmcore.sequence import IMAGE, Piece
from mmcore.training.bench import history_rows
from mmcore.training.bench_history import (
    MIDDLE,
    SETTINGS,
    WORDS,
    Again,
    conversation,
    cost,
    random_model,
    work,
)

pytestmark = pytest.mark.quick

TINY = replace(
    MIDDLE,
    shape=Shape(width=32, depth=2, heads=4, kv_heads=2, hidden=64, qk_norm=False),
    vocabulary=50,
    vision={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    head=HeadShape(Shape(width=32, depth=1, heads=4, kv_heads=2, hidden=64, bias=False)),
    grid=(2, 3),
)
GRID, MEDIA, STEPS = (1, 2, 3), 3, 4


@pytest.fixture(scope="module")
def backbone() -> Showo2Backbone:
    return random_model(TINY)


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return conversation(TINY, MEDIA)


def test_products_and_attention_are_counted() -> None:
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert work(lambda: a @ b) == 2 * 3 * 5 * 7
    q, k, mask = torch.zeros(1, 4, 6, 8), torch.zeros(1, 2, 9, 8), torch.zeros(1, 1, 6, 9)
    attention = work(lambda: F.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=True))
    assert attention == 2 * 2 * 4 * 6 * 9 * 8


def test_reading_a_conversation_takes_what_the_formula_says(backbone: Showo2Backbone, pieces: list[Piece]) -> None:
    """Each position through every matrix, all positions with all; the logits of the last one."""
    backbone.read([pieces])
    positions = 1 + WORDS * (MEDIA + 1) + MEDIA * (2 * 3 + 3)  # a time token, an opener and a closer for each picture
    d, kv, hidden = 32, 16, 64
    layer = positions * 2 * (2 * d * d + 2 * d * kv + 3 * d * hidden) + 4 * d * positions**2
    levels = work(lambda: [backbone.model.time(torch.ones(1)) for _ in range(MEDIA)])
    assert work(lambda: backbone.read([pieces])) == 2 * layer + 2 * d * TINY.vocabulary + levels


def test_both_ways_draw_the_same_and_differ_by_the_reading(backbone: Showo2Backbone, pieces: list[Piece]) -> None:
    """Work to the operation: without a cache each prediction reads the document and lets the head see it, with it the
    first alone does. Latents to 1e-4 of the largest."""
    backbone.read([pieces])
    settings = replace(SETTINGS, steps=STEPS)
    cached, again = (cost(b, pieces, GRID, settings) for b in (backbone, Again(backbone)))
    torch.testing.assert_close(again.made, cached.made, rtol=0, atol=1e-4 * float(cached.made.abs().max()))
    reading = work(lambda: backbone.read([pieces])[0].tokens([[IMAGE]]))
    past, _ = backbone.read([pieces])
    past.tokens([[IMAGE]])
    head = work(lambda: past.predictor([0], GRID, IMAGE, settings.guidance))
    assert again.work - cached.work == STEPS * reading + (STEPS - 1) * head
    order = Order(pieces, {IMAGE: GRID}, IMAGE, foreword=0)
    assert cached.work == work(lambda: list(write(backbone, [order], settings))), "every step takes the same"


def test_rows_tell_the_ratios() -> None:
    found = {"cached work": 10.0, "again work": 65.0, "cached seconds": 2.0, "again seconds": 9.0}
    rows = {row.name: row for row in history_rows(found)}
    assert rows["arithmetic saved"].number == 6.5 and rows["time saved"].number == 4.5
    assert rows["drawing behind ten pictures, with the cache"].number == 2.0
