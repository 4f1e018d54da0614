"""What families learn from: the references' training cases, and losses that follow from what they recorded.

Tolerance 2e-5, in float32. The recorded training case of BAGEL, and cross-entropies over a whole vocabulary, are more
than a clone carries. Lance has no recorded training case: its losses are computed from recorded velocities and logits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from mmcore.families.bagel import load_bagel
from mmcore.families.bagel_past import BagelBackbone, Picture
from mmcore.families.lance import Lance, LanceConfig, load_lance
from mmcore.families.lance_past import LanceBackbone
from mmcore.families.lance_pieces import Medium
from mmcore.families.lessons import Draw, bagel_lesson, lance_lesson, measure, noise_level
from mmcore.families.showo2 import load_showo2
from mmcore.families.showo2_lessons import showo2_lesson, showo2_measure
from mmcore.families.showo2_past import Showo2Backbone
from mmcore.sequence import IMAGE, Patches, Piece, Tokens
from tests.test_families import BAGEL_WORDS, CLOSE, WHOLE, Cases, released, tokens_of  # type: ignore[import-not-found]
from tests.test_lance import (  # type: ignore[import-not-found]
    SEEN,
    TEMPLATE,
    WORDS,
    Uncached,
    clip_of,
    noise_of,
    prompt,
    write_tower,
)
from tests.test_showo2 import WORDS as SHOWO2_WORDS  # type: ignore[import-not-found]
from tests.test_showo2 import raster

pytestmark = pytest.mark.quick

ONLY_WHOLE = pytest.mark.skipif(WHOLE is None, reason="this is more than a clone carries: set MMCORE_PARITY")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cases]:
    folder = tmp_path_factory.mktemp("lessons")
    cases = released("lance", folder)
    if not WHOLE:
        write_tower(LanceConfig.read(folder), folder)
    return folder, cases


@pytest.fixture(scope="module")
def lance(cases: tuple[Path, Cases]) -> Lance:
    model = load_lance(cases[0])
    if not WHOLE:
        model.look = lambda clip: cases[1][f"{SEEN[int(clip.flatten()[0])]}/stage_vit_output"]
    return model


@ONLY_WHOLE
@torch.inference_mode()
def test_bagel_learns_from_its_training_case(tmp_path: Path) -> None:
    """A text, a source picture, a text and a noised picture in one row: every recorded loss."""
    cases = {k.removeprefix("train/"): v for k, v in released("bagel", tmp_path).items() if k.startswith("train/")}
    model = load_bagel(tmp_path)
    source, target = (tokens_of(latent[None]) for latent in cases["padded_latent"])
    patches = rearrange(cases["packed_vit_tokens"], "(y x) (p q c) -> c (y p) (x q)", y=2, x=3, p=14, q=14)
    ids = cases["packed_text_ids"].tolist()
    pieces: list[Piece] = [
        Tokens(BAGEL_WORDS.told(ids[1:8]), True),
        Picture(source, (1, 2, 3), IMAGE, False, patches),
        Tokens(BAGEL_WORDS.told(ids[14:17]), True),
        Picture(target, (1, 2, 3), IMAGE, True, patches),
    ]
    levels = noise_level(cases["packed_timesteps"], float(cases["timestep_shift"]))
    assert levels[:6].tolist() == [0.0] * 6
    draw = Draw(float(levels[6]), cases["noise"][6:])
    lesson = bagel_lesson(BagelBackbone(model, BAGEL_WORDS), pieces, iter([draw]))
    losses = measure(model, [lesson])
    torch.testing.assert_close(losses.words[[0, 1, 2, 3, 8, 9, 10, 11]], cases["ce_per_token"], **CLOSE)
    torch.testing.assert_close(losses.media, cases["mse_per_element"], **CLOSE)


@torch.inference_mode()
def test_showo2_learns_from_its_training_case(tmp_path: Path) -> None:
    """Words and a noised picture: both recorded losses, beside another document and with a clean copy behind. That copy
    is what a finished picture is read as, and what is said of it depends on no noise."""
    cases = released("showo2", tmp_path, "model.safetensors")
    model = load_showo2(tmp_path)
    backbone, ids = Showo2Backbone(model, SHOWO2_WORDS), cases["train/text_tokens"][0].tolist()
    data, noise = (raster(cases[f"train/{name}"][0]) for name in ("x1_data", "x0_noise"))
    said = Tokens(SHOWO2_WORDS.told(ids[1:8]), True)
    drawn = Patches(data, (1, 4, 4), IMAGE, True)
    draw = Draw(1 - float(cases["train/t"]), noise)
    lesson = showo2_lesson(backbone, [said, drawn], iter([draw]))
    other = showo2_lesson(backbone, [replace(said, learn=False), replace(drawn, learn=False), said], iter([]))
    losses = showo2_measure(model, [other, lesson])
    torch.testing.assert_close(losses.media.mean(), cases["train/loss_flow"], **CLOSE)
    assert [token for _, token in lesson.labels] == [*ids[1:8], SHOWO2_WORDS.opener, SHOWO2_WORDS.end]
    own = losses.words[len(other.labels) :]
    if WHOLE:
        torch.testing.assert_close(own[:7].mean(), cases["train/loss_next_token"], **CLOSE)
    noisier = showo2_lesson(backbone, [said, drawn], iter([replace(draw, level=0.9)]))
    torch.testing.assert_close(showo2_measure(model, [noisier]).words, own, **CLOSE)
    read = [replace(said, learn=False), replace(drawn, learn=False), Tokens((), True)]
    (ends,) = showo2_measure(model, [showo2_lesson(backbone, read, iter([]))]).words
    torch.testing.assert_close(own[-1], ends, **CLOSE)


@torch.inference_mode()
@pytest.mark.parametrize(("case", "t"), [("gen_image", 0.9), ("gen_image", 0.3), ("edit_image", 0.3)])
def test_lance_learns_to_draw(lance: Lance, cases: tuple[Path, Cases], case: str, t: float) -> None:
    """The error of a recorded velocity, for data and noise whose mixture is the recorded x; beside another document."""
    found, x, data = cases[1], noise_of(cases[1], case)[0], torch.randn(6, 48)
    noise = (x - (1 - t) * data) / t
    pieces = [*prompt(found, case), Medium(data, (1, 2, 3), IMAGE, True, torch.zeros(3, 2, 56, 84))]
    lesson = lance_lesson(LanceBackbone(lance, WORDS, TEMPLATE), pieces, iter([Draw(t, noise)]))
    other = lance_lesson(LanceBackbone(lance, WORDS, TEMPLATE), prompt(found, "gen_video"), iter([]))
    losses = measure(lance, [other, lesson])
    expected = (found[f"{case}/t{t}/velocity_cond_all_target_tokens"] - (noise - data)).square()
    torch.testing.assert_close(losses.media, expected, atol=2e-5, rtol=2e-5)
    assert len(losses.words) == 0


@torch.inference_mode()
def test_lance_learns_to_answer(lance: Lance, cases: tuple[Path, Cases]) -> None:
    """The cross-entropies of an answer's words, and of its end, are those of the logits before each of them."""
    backbone, found = LanceBackbone(lance, WORDS, TEMPLATE), cases[1]
    pieces = [*prompt(found, "und_image"), Tokens(WORDS.told([20, 7]), True)]
    losses = measure(lance, [lance_lesson(backbone, pieces, iter([]))])
    whole = Uncached(backbone, 1)
    whole.take([pieces])
    expected = F.cross_entropy(whole.logits()[-3:], torch.tensor([20, 7, 291]), reduction="none")
    torch.testing.assert_close(losses.words, expected, **CLOSE)
    if WHOLE:
        recorded = F.cross_entropy(found["und_image/decode_logits"][:1], torch.tensor([20]))
        torch.testing.assert_close(losses.words[0], recorded, **CLOSE)


def test_a_conversation_teaches_what_it_asks_for(lance: Lance, cases: tuple[Path, Cases]) -> None:
    """Two turns: a drawn picture is learnt noised and read clean by what follows; gradients reach both experts."""
    backbone = LanceBackbone(lance, WORDS, TEMPLATE)
    drawn = Medium(torch.randn(6, 48), (1, 2, 3), IMAGE, True, clip_of(cases[1], "edit_image"))
    asked, answer = Tokens(WORDS.told([14, 18]), False), Tokens(WORDS.told([20, 21]), True)
    pieces = [*prompt(cases[1], "gen_image"), drawn, asked, answer]
    for parameter in lance.parameters():
        parameter.requires_grad_(True)
    lesson = lance_lesson(backbone, pieces, iter([Draw(0.5, torch.randn(6, 48))]))
    losses = measure(lance, [lesson])
    assert losses.words.shape == (3,) and losses.media.shape == (6, 48)
    (losses.words.mean() + losses.media.mean()).backward()
    for expert in lance.core.layers[0].experts:
        grad = expert.mlp.up_proj.weight.grad
        assert grad is not None and grad.abs().max() > 0
    for parameter in lance.parameters():
        parameter.requires_grad_(False).grad = None
    with torch.inference_mode():
        noisier = lance_lesson(backbone, pieces, iter([Draw(0.9, torch.randn(6, 48))]))
        torch.testing.assert_close(measure(lance, [noisier]).words, losses.words, **CLOSE)
        past, _ = backbone.read([pieces[:2]])
        (velocity,) = past._velocities(past.cache, past.rows, (1, 2, 3), None)(
            *(part[None] for part in (drawn.values, torch.full((6,), 1e-6)))
        )
        clean = measure(lance, [lance_lesson(backbone, pieces, iter([Draw(1e-6, drawn.values)]))])
        torch.testing.assert_close(clean.media, velocity[0].square(), atol=2e-5, rtol=2e-5)
