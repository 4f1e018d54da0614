"""Lance against what its own implementation gave, on tiny random weights in float32.

Tolerances: 2e-5 for logits and velocities, 1e-4 for final latents. A plain clone tests a cut of the recorded cases,
with the recorded features of the vision tower in its place; with MMCORE_PARITY the whole set is read, the tower runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmcore.attention import TARGET
from mmcore.backbone import Guidance
from mmcore.cache import Cache
from mmcore.errors import MMCoreError
from mmcore.families.lance import TOWER, Lance, LanceConfig, load_lance
from mmcore.families.lance_past import LanceBackbone, LancePast
from mmcore.families.lance_pieces import GUIDANCE, Given, LanceGuidance, Medium, Sentence, Template, as_lance
from mmcore.families.lanes import Strand, lay_out
from mmcore.families.qwen_tower import ClipTower
from mmcore.families.vocabulary import SHIFT, Vocabulary
from mmcore.flow import euler, schedule
from mmcore.generate import Order, SegmentEvent, Settings, TokenEvent, write
from mmcore.sequence import IMAGE, VIDEO, Grid, Patches, Piece, Tokens
from tests.test_families import CLOSE, WHOLE, Cases, released  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick

WORDS = Vocabulary(begin=290, end=291, opener=292, closer=293)
TEMPLATE = Template((290, 5, 6), (291, 6, 290, 13, 6), (291, 6, 290, 19, 6))
GRIDS: dict[str, Grid] = {
    "gen_image": (1, 2, 3),
    "edit_image": (1, 2, 3),
    "gen_video": (3, 2, 3),
    "edit_video": (2, 2, 3),
    "i2v": (3, 2, 3),
}
SEEN = ("und_image", "und_video", "edit_image", "edit_video")
NAMES = {"default": GUIDANCE, "norenorm": replace(GUIDANCE, until=1.0, renorm="none"), "nocfg": LanceGuidance(1.0)}
NAMES["channel"] = replace(GUIDANCE, renorm="channel")
FINAL = r"{}/sample_.*?(default|channel|norenorm|nocfg).*/final_latent({}|_last_via_full_sequence_path)"


def write_lance(folder: Path) -> Cases:
    """A folder as it is released, the vision tower of random weights where a cut has none; the recorded cases."""
    folder.mkdir()
    cases = released("lance", folder)
    if not WHOLE:
        write_tower(LanceConfig.read(folder), folder)
    return cases


def write_tower(config: LanceConfig, folder: Path) -> None:
    """A vision tower of random weights, as a folder of its own."""
    torch.manual_seed(0)
    (folder / TOWER).mkdir()
    save_file(dict(ClipTower(config.vision).layers.state_dict()), folder / TOWER / "vit.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lance") / "model"


@pytest.fixture(scope="module")
def cases(folder: Path) -> Cases:
    return write_lance(folder)


@pytest.fixture(scope="module")
def lance(folder: Path, cases: Cases) -> Lance:
    model = load_lance(folder)
    if not WHOLE:
        model.look = lambda clip: cases[f"{SEEN[int(clip.flatten()[0])]}/stage_vit_output"]
    return model


@pytest.fixture
def backbone(lance: Lance) -> LanceBackbone:
    return LanceBackbone(lance, WORDS, TEMPLATE)


def clip_of(cases: Cases, case: str) -> Tensor:
    """What the tower is shown: the recorded pixels, or in their place the case's number in a clip of that size."""
    if WHOLE:
        return cases[f"{case}/vit_pixels_c_t_h_w"]
    return torch.full((3, len(cases[f"{case}/stage_vit_output"]) // 3, 56, 84), float(SEEN.index(case)))


def told(ids: Tensor, kind: type[Tokens] = Tokens) -> Tokens:
    return kind(WORDS.told(ids.tolist()), False)


def prompt(cases: Cases, case: str) -> list[Piece]:
    """What the reference had read before it wrote, without what stands around turns."""
    ids, lengths = cases[f"{case}/pack/packed_text_ids"], cases[f"{case}/pack/split_lens"].tolist()
    parts = ids.split(lengths)
    if case.startswith("und"):
        seen = clip_of(cases, case)
        none = Medium(torch.zeros(0, 48), (1, 1, 1), VIDEO, False, seen)
        return [told(parts[0][3:-5], Sentence), none, told(parts[2][:6])]
    pieces: list[Piece] = [told(parts[0][3:-5], Sentence)]
    if "edit" in case:
        latents = cases[f"{case}/vae_latent0_t_h_w_c"].reshape(-1, 48)
        pieces.append(Medium(latents, GRIDS[case], IMAGE, False, clip_of(cases, case)))
    if case == "i2v":
        frame = cases[f"{case}/vae_latent0_t_h_w_c"][0].reshape(-1, 48)
        pieces.append(Given(frame, (1, 2, 3), VIDEO, False))
    return [*pieces, told(parts[-4])]


def noise_of(cases: Cases, case: str) -> Tensor:
    """(1, N, P) what the reference began with, or was given as x."""
    t, y, x = GRIDS[case]
    return cases[f"{case}/noise_all_vae_tokens"][None, -t * y * x :]


class Uncached(LancePast):
    """A past that keeps positions instead of keys and values: every prediction runs the document again."""

    def read(self, strands: Sequence[Strand]) -> Tensor:
        self.before = strands
        for row, strand in zip(self.rows, strands, strict=True):
            row.span, row.position = strand.span, strand.position
        return torch.zeros(0)

    @torch.inference_mode()
    def velocity(self, x: Tensor, level: Tensor, grid: Grid) -> Tensor:
        """Velocity (N, P) of a medium behind the only document; its levels are (N)."""
        row, (strand,) = self.rows[0], self.before
        self.target(strand, row, row.position, grid, TARGET)
        strand.lanes[1].values[-1] = self.model.latents(x, level, grid)
        return self.model.velocity(self.model(lay_out([strand], x.new_zeros(1, 64)))[0, -len(x) :])

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Logits (n, V) of the only document's text positions."""
        new = lay_out(self.before, self.model.embed_tokens.weight)
        return self.model.logits(self.model(new)[0, : new.lengths[0]])


@torch.inference_mode()
def test_text_logits_cached_and_batched(lance: Lance, cases: Cases) -> None:
    """In one pass; in two, beside a document of another length."""
    ids, expected = cases["text_only/input_ids"].tolist(), cases["text_only/logits"]

    def run(rows: list[list[int]], begin: int, cache: Cache | None) -> Tensor:
        strands = [Strand(begin, begin) for _ in rows]
        for strand, row in zip(strands, rows, strict=True):
            strand.tokens(lance.words(row))
        new = lay_out(strands, lance.embed_tokens.weight)
        hidden = lance(new, cache)
        if cache is not None:
            cache.commit(new.marks)
        return lance.logits(hidden)[..., cases["columns"]]

    torch.testing.assert_close(run([ids], 0, None)[0], expected, **CLOSE)
    cache = Cache()
    first, second = run([ids[:4], ids[:2]], 0, cache), run([ids[4:], ids], 4, cache)
    torch.testing.assert_close(torch.cat((first[0], second[0, : len(ids) - 4])), expected, **CLOSE)


@pytest.mark.parametrize("case", ["und_image", "und_video"])
def test_it_understands(backbone: LanceBackbone, cases: Cases, case: str) -> None:
    """Token by token against the cache, two at once; every row has the recorded logits."""
    pieces, expected = prompt(cases, case), cases[f"{case}/greedy_tokens"].tolist()
    past, logits = backbone.read([pieces, pieces])
    columns = cases["columns"][cases["columns"] < 290]
    kept = [int(torch.where(cases["columns"] == c)[0]) for c in columns]
    for step, token in enumerate(expected):
        for row in logits:
            torch.testing.assert_close(row[SHIFT + columns], cases[f"{case}/decode_logits"][step, kept], **CLOSE)
        logits = past.tokens([[token + SHIFT]] * 2)
    events = write(backbone, [Order(pieces, media=0)], Settings(temperature=0, tokens=len(expected)))
    assert [event.token - SHIFT for event in events if isinstance(event, TokenEvent)] == expected


@pytest.mark.skipif(WHOLE is None, reason="the recorded tower is larger than a clone carries: set MMCORE_PARITY")
@pytest.mark.parametrize("case", ["und_image", "und_video"])
@torch.inference_mode()
def test_the_tower_sees_the_same(lance: Lance, cases: Cases, case: str) -> None:
    """Its patches and features, and the logits of the whole document behind it, without a cache."""
    clip = clip_of(cases, case)
    assert torch.equal(lance.tower.patches(clip), cases[f"{case}/vit_patches"])
    torch.testing.assert_close(lance.look(clip), cases[f"{case}/stage_vit_output"], **CLOSE)
    past = Uncached(LanceBackbone(lance, WORDS, TEMPLATE), 1)
    past.take([prompt(cases, case)])
    torch.testing.assert_close(past.logits()[:-1], cases[f"{case}/context_logits"], **CLOSE)


@torch.inference_mode()
def test_no_time_step_sees_another(lance: Lance) -> None:
    clip = torch.randn(3, 4, 56, 84)
    other = torch.cat((clip[:, :2], torch.randn(3, 2, 56, 84)), 1)
    first, second = lance.tower(clip), lance.tower(other)
    assert torch.equal(first[:6], second[:6]) and not torch.allclose(first[6:], second[6:], atol=1e-3)


@pytest.mark.parametrize("t", [0.9, 0.3])
@pytest.mark.parametrize("case", GRIDS)
def test_velocities(lance: Lance, backbone: LanceBackbone, cases: Cases, case: str, t: float) -> None:
    """With and without the words against the cache, with them also without a cache; and one guided step to the data."""
    if f"{case}/t{t}/velocity_cond_all_target_tokens" not in cases:
        pytest.skip("the recorded velocities of clips are more than a clone carries: set MMCORE_PARITY")
    past, _ = backbone.read([prompt(cases, case)])
    x, grid = noise_of(cases, case).clone(), GRIDS[case]
    level = torch.full(x.shape[:2], t)
    if case == "i2v":
        level[:, :6], x[:, :6] = 0, cases["i2v/vae_latent0_t_h_w_c"][0].reshape(-1, 48)
    without, full = (v[0] for v in past._velocities(past.cache, past.rows, grid, GUIDANCE)(x, level))
    expected = cases[f"{case}/t{t}/velocity_cond_all_target_tokens"]
    torch.testing.assert_close(full, expected, **CLOSE)
    torch.testing.assert_close(without, cases[f"{case}/t{t}/velocity_uncond_all_target_tokens"], **CLOSE)
    uncached = Uncached(backbone, 1)
    uncached.take([prompt(cases, case)])
    torch.testing.assert_close(uncached.velocity(x[0], level[0], grid), expected, **CLOSE)
    if (name := f"{case}/t{t}/latent_after_one_cfg4_global_step_to_0") in cases:
        rule = replace(GUIDANCE, until=1.0)
        clean = past.predictor([0], grid, IMAGE, rule)(noise_of(cases, case), torch.tensor([1 - t]))
        torch.testing.assert_close(clean[0], cases[name].reshape(-1, 48), **CLOSE)


@pytest.mark.parametrize("case", GRIDS)
def test_it_samples_the_same_latents(backbone: LanceBackbone, cases: Cases, case: str) -> None:
    """Seven steps, shift 3.5, guided in every recorded way; both ways of the reference to leave words out."""
    past, _ = backbone.read([prompt(cases, case)])
    pattern = FINAL.format(case, "1_t_h_w_c" if "edit" in case else "0_t_h_w_c")
    names = {name: found for name in cases if (found := re.match(pattern, name))}
    assert len(names) >= (7 if WHOLE else 1)
    for name, found in names.items():
        rule = replace(NAMES[found[1]], anew=found[2].startswith("_last"))
        predict = past.predictor([0], GRIDS[case], IMAGE, rule)
        *_, (made, _) = euler(predict, noise_of(cases, case), schedule(7, 3.5), backbone.rest)
        expected = cases[name].reshape(-1, 48)
        torch.testing.assert_close(made[0], expected, atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        if found[1] != "nocfg":
            predict = past.predictor([0], GRIDS[case], IMAGE, replace(rule, anew=not rule.anew))
            *_, (other, _) = euler(predict, noise_of(cases, case), schedule(7, 3.5), backbone.rest)
            assert (other[0] - expected).abs().max() > (0.01 if found[1] != "channel" else 1e-3)


def test_batched_equals_single(backbone: LanceBackbone, cases: Cases) -> None:
    """A drawing, an edit, a clip, a clip from a first frame and an answer at once: each as it would be alone."""
    tasks = {"gen_image": IMAGE, "edit_image": IMAGE, "gen_video": VIDEO, "i2v": VIDEO, "und_video": None}
    orders = [
        Order(prompt(cases, case), {opener: GRIDS[case]} if opener else {}, opener, 1 if opener else 0, i, foreword=0)
        for i, (case, opener) in enumerate(tasks.items())
    ]
    settings = Settings(3, GUIDANCE, shift=3.5, temperature=0, tokens=4)
    many = {e.row: e.piece for e in write(backbone, orders, settings) if isinstance(e, SegmentEvent)}
    for row, order in enumerate(orders):
        (alone,) = (e.piece for e in write(backbone, [order], settings) if isinstance(e, SegmentEvent))
        together = many[row]
        if isinstance(alone, Tokens):
            assert alone == together
        else:
            assert isinstance(together, Patches)
            torch.testing.assert_close(together.values, alone.values, atol=1e-4, rtol=0)
    first = cases["i2v/vae_latent0_t_h_w_c"][0].reshape(-1, 48)
    assert isinstance(many[3], Patches)
    torch.testing.assert_close(many[3].values[:6], first, atol=1e-6, rtol=0)


def test_text_picture_text_in_one_reply(lance: Lance, cases: Cases) -> None:
    """What a reply has written is read as if it had been in the prompt: by its latents and as the tower sees it."""
    seen, latents = clip_of(cases, "edit_image"), cases["edit_image/vae_latent0_t_h_w_c"].reshape(-1, 48)
    backbone = LanceBackbone(lance, WORDS, TEMPLATE, view=lambda patches: seen)
    before = prompt(cases, "gen_image")
    past, _ = backbone.read([before])
    past.tokens([[17 + SHIFT]])
    past.tokens([[IMAGE]])
    first = past.visual([Patches(latents, (1, 2, 3), IMAGE, True)])
    second = past.tokens([[31 + SHIFT]])
    written: list[Piece] = [Tokens((17 + SHIFT,), True), Medium(latents, (1, 2, 3), IMAGE, True, seen)]
    for logits, more in ((first, []), (second, [Tokens((31 + SHIFT,), True)])):
        whole = Uncached(backbone, 1)
        whole.take([[*before, *written, *more]])
        torch.testing.assert_close(logits, WORDS.logits(whole.logits()[-1:]), **CLOSE)


def test_a_later_turn_edits_where_the_picture_stands(backbone: LanceBackbone, cases: Cases) -> None:
    """A target takes the rotary positions of the one medium of the last turn that had any, if it is as large."""
    latents = cases["edit_image/vae_latent0_t_h_w_c"].reshape(-1, 48)
    medium = Medium(latents, (1, 2, 3), IMAGE, True, clip_of(cases, "edit_image"))
    again = [*prompt(cases, "gen_image"), medium, Tokens((20 + SHIFT,), False)]
    past, _ = backbone.read([again, [*again, replace(medium, learn=False)], prompt(cases, "gen_image")])
    places = []
    for row in past.rows:
        strand = Strand(row.span)
        past.target(strand, row, row.position, (1, 2, 3), TARGET)
        places.append(strand.lanes[1].coords[0])
    assert (places[0] == past.rows[0].sources[0][1:-1]).all() and places[0].max() < past.rows[0].position
    assert (places[1] == past.rows[1].sources[0][1:-1]).all() and len(past.rows[1].sources) == 1
    assert places[1].min() > past.rows[0].position
    assert places[2].min() == past.rows[2].position + 1


@pytest.mark.parametrize("begin", [0, 1, 2])
def test_without_words_there_is_nothing_to_leave_out(backbone: LanceBackbone, cases: Cases, begin: int) -> None:
    """A sentence alone, with a picture, with a picture that the model has drawn: with and without words is the same."""
    sentence, medium, _ = prompt(cases, "edit_image")
    assert isinstance(medium, Medium)
    pieces: list[Piece] = [[sentence], [sentence, medium], [sentence, replace(medium, learn=True)]][begin]
    past, _ = backbone.read([pieces])
    x, level = noise_of(cases, "edit_image"), torch.full((1, 6), 0.5)
    without, full = past._velocities(past.cache, past.rows, (1, 2, 3), GUIDANCE)(x, level)
    if begin < 2:
        torch.testing.assert_close(without, full, **CLOSE)
    else:
        assert not torch.allclose(without, full, atol=1e-3), "what the model has done is left out with the words"


def test_its_guidance_is_by_words_alone(backbone: LanceBackbone, cases: Cases) -> None:
    """A plain guidance bounds nothing and acts from its level on; one that weighs media is refused."""
    past, _ = backbone.read([prompt(cases, "edit_image")])

    def clean(guidance: Guidance) -> Tensor:
        return past.predictor([0], (1, 2, 3), IMAGE, guidance)(noise_of(cases, "edit_image"), torch.tensor([0.7]))

    unbounded = LanceGuidance(3.0, until=1.0, renorm="none")
    torch.testing.assert_close(clean(Guidance(3.0, since=0.2)), clean(unbounded))
    torch.testing.assert_close(clean(Guidance(3.0, since=0.8)), clean(Guidance(1.0)))
    assert not torch.allclose(clean(unbounded), clean(LanceGuidance(3.0, until=1.0)), atol=1e-3)
    assert as_lance(GUIDANCE) is GUIDANCE
    with pytest.raises(MMCoreError, match="media must be 1, got 2"):
        clean(Guidance(3.0, 2.0))


def test_a_document_that_is_too_long_is_refused(backbone: LanceBackbone) -> None:
    with pytest.raises(MMCoreError, match=r"takes 130010 positions, the model holds 128000"):
        backbone.read([[Tokens((5 + SHIFT,) * 130000, False)]])
