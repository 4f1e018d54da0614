"""Writing: cached equals uncached, batched equals single, and the loop does as it is told."""

from __future__ import annotations

import math

import pytest
import torch

from mmcore.attention import CONTEXT, TARGET, TEXT
from mmcore.backbone import Guidance, Native
from mmcore.errors import MMCoreError
from mmcore.generate import Order, Row, SegmentEvent, Settings, StepEvent, TokenEvent, write
from mmcore.packing import pack
from mmcore.sequence import IMAGE, VIDEO, Patches, Tokens, document_strip

pytestmark = pytest.mark.quick


def test_cached_equals_uncached(model, prompts, config) -> None:
    """Reading a document in chunks against the cache gives the logits of reading it at once; tolerance 2e-5."""
    past, logits = Native(model).read([prompts[0]])
    picture = Patches(torch.randn(4, config.patch_width), (1, 2, 2), IMAGE, True)
    stages = [logits, past.tokens([[30, 31]]), past.tokens([[IMAGE]]), past.visual([picture]), past.tokens([[40]])]
    strip = document_strip(prompts[0], open_reply=True)
    strip.text([30, 31, IMAGE])
    strip.visual(picture, CONTEXT)
    strip.advance(picture.grid)
    strip.text([IMAGE + 1, 40])
    seq = pack([[strip]], config.patch_width)
    with torch.no_grad():
        whole = model.logits(model(seq).hidden)[0]
    n = len(strip.ids)
    for stage, at in zip(stages, (n - 6, n - 4, n - 3, n - 2, n - 1), strict=True):
        torch.testing.assert_close(stage[0], whole[at], atol=2e-5, rtol=0)


def test_a_sampling_step_against_the_cache_equals_the_whole_sequence(model, prompts, config) -> None:
    """And each guidance branch equals a run of its own with that condition hidden."""
    weights = Guidance(text=3.0, media=1.5)
    grid, x, t = (2, 2, 2), torch.randn(1, 8, config.patch_width), torch.tensor([0.4])
    past, _ = Native(model).read([prompts[0]])
    past.tokens([[VIDEO]])
    guided = past.predictor([0], grid, VIDEO, weights)(x, t)
    expected = torch.zeros_like(x)
    for hide, weight in ((0, 3.0), (TEXT, -1.5), (TEXT | CONTEXT, -0.5)):
        strip = document_strip(prompts[0], open_reply=True)
        strip.text([VIDEO])
        strip.visual(Patches(x[0], grid, VIDEO, True), TARGET, hide)
        seq = pack([[strip]], config.patch_width)
        level = torch.full((1, 9), 0.4)
        with torch.no_grad():
            expected += weight * model(seq.with_targets(seq.target_patches, level)).patches[:, 1:]
    torch.testing.assert_close(guided, expected, atol=5e-5, rtol=0)


def test_early_predictions_are_not_pushed(model, prompts, config) -> None:
    """Below the level from which guidance acts, a guided prediction is the plain one; from there on it is not."""
    grid, x = (2, 2, 2), torch.randn(1, 8, config.patch_width)
    past, _ = Native(model).read([prompts[0]])
    past.tokens([[VIDEO]])
    plain = past.predictor([0], grid, VIDEO, Guidance(1.0))
    guided = past.predictor([0], grid, VIDEO, Guidance(3.0, since=0.2))
    for t, same in ((0.0, True), (0.19, True), (0.2, False), (0.7, False)):
        level = torch.tensor([t])
        assert torch.allclose(guided(x, level), plain(x, level), atol=1e-5) is same


def reply_of(events, row: int = 0) -> list:
    return [e.piece for e in events if isinstance(e, SegmentEvent) and e.row == row]


def orders(prompts, config) -> list[Order]:
    grids = {IMAGE: (1, 2, 2), VIDEO: (2, 2, 2)}
    return [
        Order(prompts[0], grids, VIDEO, seed=1),
        Order(prompts[1], grids, seed=2, media=2),
        Order(prompts[2], grids, IMAGE, seed=3),
        Order(prompts[2], grids, seed=4, media=0),
    ]


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_batched_equals_single(model, prompts, config, sampler: str) -> None:
    """Four different requests at once give what each gives alone: same tokens, patches within 1e-4."""
    settings = Settings(steps=3, tokens=12, sampler=sampler, temperature=1.0)
    many = list(write(Native(model), orders(prompts, config), settings))
    for row, order in enumerate(orders(prompts, config)):
        alone = reply_of(write(Native(model), [order], settings))
        together = reply_of(many, row)
        assert len(alone) == len(together) > 0
        for a, b in zip(alone, together, strict=True):
            assert type(a) is type(b)
            if isinstance(a, Tokens):
                assert a.ids == b.ids
            else:
                torch.testing.assert_close(a.values, b.values, atol=1e-4, rtol=0)


def test_the_loop_does_as_it_is_told(model, prompts, config) -> None:
    events = list(write(Native(model), orders(prompts, config), Settings(steps=3, tokens=12)))
    *before, forced = reply_of(events, 0)
    assert isinstance(forced, Patches) and forced.opener == VIDEO
    assert all(isinstance(p, Tokens) and len(p.ids) <= 12 for p in before), "words may come before, no other medium"
    steps = [e.step for e in events if isinstance(e, StepEvent) and e.row == 0]
    assert steps == [1, 2, 3]
    assert all(isinstance(p, Tokens) for p in reply_of(events, 3)), "no media were allowed"
    for row in (0, 1, 3):
        written = [e.token for e in events if isinstance(e, TokenEvent) and e.row == row]
        told = [i for p in reply_of(events, row) if isinstance(p, Tokens) for i in p.ids]
        assert written == told and len(told) <= 12


def test_the_model_opens_a_medium_and_goes_on_after_it(model, prompts, config) -> None:
    """Make the opener the likeliest token, once: an image must come, then text about it."""
    boosted = model.embedding.weight
    with torch.no_grad():
        past, _ = Native(model).read([prompts[1]])
        hidden = past.tokens([[30]])
        boosted[IMAGE] = boosted.norm(dim=1).max() * 20 * torch.sign(hidden).new_ones(())
    events = list(write(Native(model), [Order(prompts[1], {IMAGE: (1, 2, 2)}, media=1, seed=0)], Settings(2, tokens=9)))
    kinds = [type(p).__name__ for p in reply_of(events)]
    assert kinds.count("Patches") <= 1


def test_a_seed_decides_everything(model, prompts) -> None:
    def draw(seed: int) -> torch.Tensor:
        order = Order(prompts[1], {IMAGE: (1, 2, 2)}, IMAGE, seed=seed)
        return reply_of(write(Native(model), [order], Settings(2)))[-1].values

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))


def test_what_is_unlikely_is_never_drawn() -> None:
    """Of 1000 draws each likely token comes about as often as its share says; what lies under min_p never comes."""
    logits = torch.full((40,), -20.0)
    logits[30], logits[31], logits[32] = math.log(0.5), math.log(0.3), math.log(0.2)
    row = Row(Order(()), torch.device("cpu"))
    drawn = [row.choose(logits, Settings(min_p=0.5)) for _ in range(1000)]
    assert set(drawn) == {30, 31}
    assert abs(drawn.count(30) / 1000 - 0.5 / 0.8) < 0.05
    assert {row.choose(logits, Settings(temperature=0)) for _ in range(9)} == {30}


def test_a_document_that_is_too_long_is_refused(model, prompts, tokenizer, config) -> None:
    model.config.context_length = 40
    long = [Tokens(tokenizer.encode("a red ball " * 50), False)]
    with pytest.raises(MMCoreError, match=r"takes \d+ positions, the model holds 40"):
        list(write(Native(model), [Order(long)], Settings()))
    order = Order(prompts[1], {VIDEO: (8, 2, 2)}, VIDEO)
    with pytest.raises(MMCoreError, match="the document is full"):
        list(write(Native(model), [order], Settings()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"sampler": "ddim"}, "euler, heun"),
        ({"temperature": -1.0}, "0 or"),
        ({"min_p": 2}, "0, 1"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict, message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        Settings(**wrong)
