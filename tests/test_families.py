"""Released families against what their own implementations gave, on tiny random weights in float32.

Tolerances: 2e-5 for logits and velocities, 1e-4 for final latents. A plain clone tests a cut of the recorded cases
(`tests/fixtures/families`); with MMCORE_PARITY set to the folder of the whole set, that is read instead.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcore.attention import CONTEXT, TARGET
from mmcore.backbone import Guidance
from mmcore.errors import MMCoreError
from mmcore.families.bagel import Bagel, load_bagel
from mmcore.families.bagel_past import EDITING, BagelBackbone, Picture
from mmcore.families.guidance import Renormed
from mmcore.families.lanes import Strand, lay_out
from mmcore.families.vocabulary import SHIFT, Vocabulary
from mmcore.flow import euler, schedule
from mmcore.generate import Order, SegmentEvent, Settings, TokenEvent, write
from mmcore.sequence import IMAGE, Patches, Piece, Tokens

pytestmark = pytest.mark.quick

FIXTURES = Path(__file__).parent / "fixtures" / "families"
WHOLE = os.environ.get("MMCORE_PARITY")
BAGEL_WORDS = Vocabulary(begin=290, end=291, opener=292, closer=293)
CLOSE = {"atol": 2e-5, "rtol": 0}
GRIDS = {"gen_image": (1, 3, 2), "edit": (1, 2, 3)}

Cases = dict[str, Tensor]


def released(family: str, target: Path, file: str = "ema.safetensors") -> Cases:
    """Lay a family's fixture out as it is released; returns the recorded cases. Rows that a cut left out are 0."""
    source = Path(WHOLE) / family if WHOLE else FIXTURES / family
    for path in source.glob("*.json"):
        shutil.copy(path, target / path.name)
    weights, cases = load_file(source / "weights.safetensors"), load_file(source / "cases.safetensors")
    if not WHOLE:
        for name, height in json.loads((source / "tables.json").read_text()).items():
            rows = weights.pop(f"{name}.rows")
            weights[name] = torch.zeros(height, weights[name].shape[1]).index_copy(0, rows, weights[name])
    save_file(weights, target / file)
    cases.setdefault("columns", torch.arange(300))
    return cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bagel")


@pytest.fixture(scope="module")
def cases(folder: Path) -> Cases:
    return released("bagel", folder)


@pytest.fixture(scope="module")
def bagel(folder: Path, cases: Cases) -> Bagel:
    return load_bagel(folder)


@pytest.fixture
def backbone(bagel: Bagel) -> BagelBackbone:
    return BagelBackbone(bagel, BAGEL_WORDS)


def said(ids: Tensor) -> Tokens:
    """A recorded text, which has its markers, as a piece, which has none."""
    return Tokens(BAGEL_WORDS.told(ids.tolist()[1:-1]), False)


def tokens_of(latent: Tensor) -> Tensor:
    """(1, C, H, W) latents as tokens (N, P): channel fastest."""
    return rearrange(latent, "1 c (h p) (w q) -> (h w) (p q c)", p=2, q=2)


def prompt(cases: Cases, case: str) -> list[Piece]:
    """What the reference had read before it wrote."""
    if case == "text_only":
        return [said(cases["text_only/input_ids"])]
    if case == "und_image":
        picture = Picture(torch.zeros(0, 64), (1, 3, 2), IMAGE, False, cases["und_image/pixel_values_chw"])
        return [picture, said(cases["und_image/text_input_ids"])]
    if case == "gen_image":
        return [said(cases["gen_image/prompt_input_ids"])]
    source = tokens_of(cases["edit/source_latent_bchw"])
    picture = Picture(source, (1, 2, 3), IMAGE, False, cases["edit/vit_pixel_values_chw"])
    return [picture, said(cases["edit/instruction_input_ids"])]


def guidance_of(name: str) -> Renormed:
    """The guidance that a recorded name tells of."""
    weights = re.search(r"text([\d.]+)_img([\d.]+)(?:_interval([\d.]+))?", name)
    if weights is None:
        return Renormed(1.0)
    kind = next(kind for kind in ("text_channel", "channel", "global") if kind in name)
    text, media, low = (float(w or 0) for w in weights.groups())
    return Renormed(text, media, until=1 - low, renorm=kind)


def whole(bagel: Bagel, pieces: list[Piece], ids: list[int] = ()) -> Strand:  # type: ignore[assignment]
    """A document as one strand, without the cache and the writing loop; `ids` are what follows it."""
    strand, markers = Strand(), bagel.words([292, 293])
    for piece in pieces:
        if isinstance(piece, Tokens):
            strand.tokens(bagel.words([290, *BAGEL_WORDS.own(piece.ids), 291]))
            continue
        assert isinstance(piece, Picture)
        if len(piece.values):
            strand.block((markers, bagel.latents(piece.values, torch.tensor(0.0), piece.grid[1:])), CONTEXT)
        seen = bagel.look(piece.seen)
        strand.block((torch.cat((markers[:1], seen, markers[1:])),), CONTEXT)
    strand.tokens(bagel.words(list(ids)))
    return strand


@torch.inference_mode()
@pytest.mark.parametrize("case", ["text_only", "und_image", "edit"])
def test_bagel_logits(bagel: Bagel, cases: Cases, case: str) -> None:
    """Every position of the last text, in one pass without a cache."""
    name = {"text_only": "text_only/logits", "und_image": "und_image/text_logits", "edit": "edit/instruction_logits"}
    new = lay_out([whole(bagel, prompt(cases, case))], bagel.embed_tokens.weight)
    n = len(cases[name[case]])
    found = bagel.logits(bagel(new)[0, : new.lengths[0]])[-n:, cases["columns"]]
    torch.testing.assert_close(found, cases[name[case]], **CLOSE)


@torch.inference_mode()
def test_bagel_sees_a_picture(bagel: Bagel, cases: Cases) -> None:
    """Tower, connector and its table of places."""
    seen = bagel.look(cases["und_image/pixel_values_chw"])
    torch.testing.assert_close(seen, cases["und_image/stage_connector_plus_pos"], **CLOSE)


@torch.inference_mode()
def test_bagel_two_prompts_in_a_batch(bagel: Bagel, cases: Cases) -> None:
    """Of different lengths, side by side: no row sees the other or the padding."""
    lengths = cases["text_packed2/text_token_lens"].tolist()
    strands = [Strand(), Strand()]
    for strand, ids in zip(strands, cases["text_packed2/packed_text_ids"].split(lengths), strict=True):
        strand.tokens(bagel.words(ids.tolist()))
    hidden = bagel(lay_out(strands, bagel.embed_tokens.weight))
    found = torch.cat([row[:n] for row, n in zip(hidden, lengths, strict=True)])
    torch.testing.assert_close(bagel.logits(found)[:, cases["columns"]], cases["text_packed2/logits"], **CLOSE)


@pytest.mark.parametrize("case", ["text_only", "und_image"])
def test_bagel_writes_the_same_words(backbone: BagelBackbone, cases: Cases, case: str) -> None:
    """Token by token against the cache, by the writing loop; the reference's list begins with what opens a text."""
    order = Order(prompt(cases, case), media=0)
    expected = cases[f"{case}/greedy_after_context_starting_with_bos"].tolist()
    events = write(backbone, [order, order], Settings(temperature=0, tokens=len(expected) - 1))
    told = [(event.row, event.token - SHIFT) for event in events if isinstance(event, TokenEvent)]
    for row in (0, 1):
        assert [290, *(token for r, token in told if r == row)] == expected


@pytest.mark.parametrize("case", ["gen_image", "edit"])
@pytest.mark.parametrize("t", ["0.9", "0.3"])
def test_bagel_velocities(backbone: BagelBackbone, cases: Cases, case: str, t: str) -> None:
    """Conditional and guided in every way, at two noise levels, against the cache."""
    past, _ = backbone.read([prompt(cases, case)])
    level, x = float(t), cases[f"{case}/x_t"][None]
    names = [name for name in cases if name.startswith(f"{case}/t{t}/velocity_c")]
    assert len(names) == 5
    for name in names:
        clean = past.predictor([0], GRIDS[case], IMAGE, guidance_of(name))(x, torch.tensor([1 - level]))
        torch.testing.assert_close((x - clean)[0] / level, cases[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@torch.inference_mode()
@pytest.mark.parametrize("case", ["gen_image", "edit"])
def test_bagel_velocity_without_a_cache(bagel: Bagel, cases: Cases, case: str) -> None:
    """Document and target in one pass."""
    strand = whole(bagel, prompt(cases, case))
    latents = bagel.latents(cases[f"{case}/x_t"], torch.tensor(0.3), GRIDS[case][1:])
    strand.block((bagel.words([292, 293]), latents), TARGET)
    hidden = bagel(lay_out([strand], bagel.embed_tokens.weight))[0]
    torch.testing.assert_close(bagel.velocity(hidden[-len(latents) :]), cases[f"{case}/t0.3/velocity_cond"], **CLOSE)


@pytest.mark.parametrize("case", ["gen_image", "edit"])
def test_bagel_samples_the_same_latents(backbone: BagelBackbone, cases: Cases, case: str) -> None:
    """Six steps (the reference counts seven points), shift 3, guided as its notebook and its page do; and unguided."""
    past, _ = backbone.read([prompt(cases, case)])
    noise = cases[f"{case}/inputs/packed_init_noises"][None]
    names = [name for name in cases if name.startswith(f"{case}/sample") and name.endswith("final_latent_packed")]
    assert len(names) == (3 if case == "gen_image" else 2)
    for name in names:
        predict = past.predictor([0], GRIDS[case], IMAGE, guidance_of(name))
        *_, (made, _) = euler(predict, noise, schedule(6, 3.0))
        torch.testing.assert_close(made[0], cases[name], atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_many_steps_are_those_of_the_velocity(backbone: BagelBackbone, cases: Cases) -> None:
    """40 steps, the last of them shorter than what our own model is held to: each is x - v (level - next level)."""
    past, _ = backbone.read([prompt(cases, "gen_image")])
    order = Order(prompt(cases, "gen_image"), {IMAGE: (1, 3, 2)}, IMAGE, foreword=0)
    settings = Settings(40, Renormed(1.0), shift=1.0)
    (made,) = (e.piece for e in write(backbone, [order], settings) if isinstance(e, SegmentEvent))
    predict = past.predictor([0], (1, 3, 2), IMAGE, Renormed(1.0))
    x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
    for level, following in pairwise(1 - schedule(40, 1.0).double()):
        v = (x - predict(x, (1 - level).float()[None])) / level
        x = (x - v * (level - following)).float()
    assert isinstance(made, Patches)
    torch.testing.assert_close(made.values, x[0], atol=1e-4, rtol=0)


def test_bagel_batched_equals_single(backbone: BagelBackbone, cases: Cases) -> None:
    """Different documents at once, one that draws, one that edits, one that speaks: each as it would be alone."""
    orders = [
        Order(prompt(cases, "gen_image"), {IMAGE: (1, 2, 3)}, IMAGE, seed=1, foreword=0),
        Order(prompt(cases, "edit"), {IMAGE: (1, 2, 3)}, IMAGE, seed=2, foreword=0),
        Order(prompt(cases, "und_image"), media=0, seed=3),
    ]
    settings = Settings(3, EDITING, shift=3.0, tokens=4)
    many = [(e.row, e.piece) for e in write(backbone, orders, settings) if isinstance(e, SegmentEvent)]
    for row, order in enumerate(orders):
        (alone,) = (e.piece for e in write(backbone, [order], settings) if isinstance(e, SegmentEvent))
        (together,) = (piece for r, piece in many if r == row)
        if isinstance(alone, Tokens):
            assert alone == together
        else:
            assert isinstance(together, Patches)
            torch.testing.assert_close(together.values, alone.values, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bagel_text_picture_text_in_one_reply(bagel: Bagel, cases: Cases) -> None:
    """What a reply has written so far is read as if it had been in the prompt: words are closed before a picture, the
    picture is remembered by its latents and by what the tower sees of it, and new words begin after it."""
    pixels, latents = cases["und_image/pixel_values_chw"], tokens_of(cases["edit/source_latent_bchw"])
    backbone = BagelBackbone(bagel, BAGEL_WORDS, view=lambda patches: pixels)
    past, _ = backbone.read([prompt(cases, "gen_image")])
    past.tokens([[17 + SHIFT]])
    past.tokens([[23 + SHIFT]])
    past.tokens([[IMAGE]])
    first = past.visual([Patches(latents, (1, 2, 3), IMAGE, True)])
    second = past.tokens([[31 + SHIFT]])
    written: list[Piece] = [
        *prompt(cases, "gen_image"),
        Tokens(BAGEL_WORDS.told([17, 23]), True),
        Picture(latents, (1, 2, 3), IMAGE, True, pixels),
    ]
    for logits, ids in ((first, [290]), (second, [290, 31])):
        new = lay_out([whole(bagel, written, ids)], bagel.embed_tokens.weight)
        expected = BAGEL_WORDS.logits(bagel.logits(bagel(new)[:, new.lengths[0] - 1]))
        torch.testing.assert_close(logits, expected, **CLOSE)


def test_bagel_plain_guidance_bounds_nothing(backbone: BagelBackbone, cases: Cases) -> None:
    """It equals the unbounded sum of the branches, from its level on; below, the conditional prediction."""
    past, _ = backbone.read([prompt(cases, "edit")])
    x, t = cases["edit/x_t"][None], torch.tensor([0.7])

    def clean(guidance: Guidance) -> Tensor:
        return past.predictor([0], (1, 2, 3), IMAGE, guidance)(x, t)

    unbounded = Renormed(3.0, 1.0, until=1.0, renorm="none")
    torch.testing.assert_close(clean(Guidance(3.0, since=0.2)), clean(unbounded))
    torch.testing.assert_close(clean(Guidance(3.0, since=0.8)), clean(Guidance(1.0)))
    assert not torch.allclose(clean(unbounded), clean(Renormed(3.0, 1.0, until=1.0)), atol=1e-3)


def test_special_tokens_are_the_loops_own() -> None:
    """A text token keeps its logit, the family's special ones cannot be drawn, ends and openers are the loop's."""
    own = torch.arange(300.0)[None]
    told = BAGEL_WORDS.logits(own)[0]
    assert told[4] == 291 and told[IMAGE] == 292
    assert told[SHIFT : SHIFT + 290].tolist() == own[0, :290].tolist()
    assert all(told[SHIFT + i] == -torch.inf for i in (290, 291, 292, 293)) and told[SHIFT + 294] == 294


def test_a_document_that_is_too_long_is_refused(backbone: BagelBackbone) -> None:
    with pytest.raises(MMCoreError, match=r"takes 40002 positions, the model holds 32768"):
        backbone.read([[Tokens(BAGEL_WORDS.told([5] * 40000), False)]])


@pytest.mark.parametrize("broken", ["missing", "unknown", "of another shape"])
def test_weights_that_do_not_fit_are_named(folder: Path, cases: Cases, tmp_path: Path, broken: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "ema.safetensors"
    weights = load_file(path)
    name = "language_model.model.layers.1.self_attn.k_proj_moe_gen.bias"
    if broken == "missing":
        del weights[name]
    elif broken == "unknown":
        weights[(name := "language_model.model.layers.2.mlp.up_proj.weight")] = torch.zeros(2)
    elif broken == "of another shape":
        weights[name] = torch.zeros(31)
        name += r" is \(31,\), not \(32,\)"
    save_file(weights, path)
    with pytest.raises(MMCoreError, match=f"1 {broken}: {name}$"):
        load_bagel(tmp_path / "copy")


def test_weights_that_are_cut_off_are_one_clear_line(folder: Path, cases: Cases, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(MMCoreError, match=r"ema\.safetensors: cannot read the weights: .*; copy the file again"):
        load_bagel(tmp_path / "copy")
