"""Show-o2 against what its own implementation gave, on tiny random weights in float32.

Tolerances: 2e-5 for logits and velocities, 1e-4 for final latents. A plain clone tests a cut of the recorded cases
(`tests/fixtures/families`); with MMCORE_PARITY set to the folder of the whole set, that is read instead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mmcore.attention import CONTEXT, TARGET
from mmcore.backbone import Guidance
from mmcore.errors import MMCoreError
from mmcore.families.lanes import lay_out
from mmcore.families.line import Line
from mmcore.families.showo2 import Showo2, load_showo2
from mmcore.families.showo2_past import DRAWING, Asked, Begun, Showo2Backbone, Showo2Past, Showo2Words
from mmcore.families.vocabulary import SHIFT
from mmcore.flow import euler, schedule
from mmcore.generate import Order, SegmentEvent, Settings, TokenEvent, write
from mmcore.sequence import IMAGE, VIDEO, Grid, Patches, Piece, Tokens
from tests.test_families import CLOSE, Cases, released  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick

WORDS = Showo2Words(begin=290, end=291, opener=292, closer=293, special=tuple(range(294, 300)), film=298, cut=299)
GRIDS: dict[str, Grid] = {
    "gen_image": (1, 4, 4),
    "gen_image_interpolated_pos_6x4": (1, 6, 4),
    "gen_video": (3, 4, 4),
    "gen_video_first_frame_given": (3, 4, 4),
}
LAYOUTS = ("und_image", "und_image_training_layout", "und_video")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("showo2")


@pytest.fixture(scope="module")
def cases(folder: Path) -> Cases:
    return released("showo2", folder, "model.safetensors")


@pytest.fixture(scope="module")
def model(folder: Path, cases: Cases) -> Showo2:
    return load_showo2(folder)


@pytest.fixture
def backbone(model: Showo2) -> Showo2Backbone:
    return Showo2Backbone(model, WORDS)


def raster(latents: Tensor) -> Tensor:
    """Latents (C, H, W) or (C, T, H, W) as tokens (N, P)."""
    frames = latents[:, None] if latents.ndim == 3 else latents
    return rearrange(frames, "c t h w -> (t h w) c").reshape(-1, 4 * len(latents))


def said(ids: list[int]) -> Tokens:
    """A recorded text as a piece."""
    return Tokens(WORDS.told(ids), False)


def drawn(cases: Cases, case: str, state: str = "x_t") -> tuple[list[Piece], int]:
    """What was read before a medium was written, and what opens it. The state's first frame is what is given of it."""
    opener = VIDEO if "video" in case else IMAGE
    ids = cases[f"{case}/text_tokens_cond_uncond"][0].tolist()
    pieces: list[Piece] = [said(ids[1 : ids.index(WORDS.markers(opener)[0])])]
    if case.endswith("first_frame_given"):
        pieces.append(Begun(raster(cases[f"{case}/{state}"][0, :, :1]), (1, 4, 4), IMAGE, False))
    return pieces, opener


def asked(cases: Cases, case: str) -> list[Piece]:
    """What was read before words were written about a medium."""
    if case == "und_image_training_layout":
        ids, latents = cases[f"{case}/text_tokens"][0].tolist(), cases[f"{case}/latents_bchw"][0]
        begin, end = ids.index(292), ids.index(293)
        return [said(ids[1:begin]), Patches(raster(latents), (1, 4, 4), IMAGE, False), said(ids[end + 1 :])]
    before, after = (cases[f"{case}/text_tokens_{part}"][0].tolist() for part in "ab")
    if case == "und_video":
        frames = torch.cat([raster(frame) for frame in cases["und_video/frame_latents_fchw"]])
        return [said(before[1:]), Asked(frames, (3, 4, 4), VIDEO, False), said(after[2:])]
    picture = Asked(raster(cases["und_image/latents_bchw"][0]), (1, 4, 4), IMAGE, False)
    return [said(before[1:]), picture, said(after[2:])]


def recorded_logits(cases: Cases, case: str) -> Tensor:
    """(n, columns) of the last n positions."""
    return cases[f"{case}/logits_last12" if case == "und_video" else f"{case}/logits"][0]


def opened(backbone: Showo2Backbone, prompts: list[list[Piece]], opener: int) -> Showo2Past:
    """Documents that a medium is to follow."""
    past, _ = backbone.read(prompts)
    past.tokens([[opener]] * len(prompts))
    return past


def velocity(past: Showo2Past, rows: list[int], grid: Grid, opener: int, x: Tensor, t: float, text: float) -> Tensor:
    """(R, N, P)."""
    run = past.velocity(rows, grid, opener, Guidance(text, since=0.0))
    return run(x.expand(len(rows), -1, -1), torch.full((len(rows),), t))


@torch.inference_mode()
@pytest.mark.parametrize("case", ["text_only", *LAYOUTS])
def test_logits_in_one_pass(backbone: Showo2Backbone, cases: Cases, case: str) -> None:
    """Every recorded position; nothing is cached yet."""
    pieces = [said(cases[f"{case}/input_ids"][0].tolist()[1:])] if case == "text_only" else asked(cases, case)
    past, _ = backbone.read([pieces])
    ((hidden, _),) = past._waiting
    expected = recorded_logits(cases, case)
    found = backbone.model.logits(hidden[0, -len(expected) :])[:, cases["columns"]]
    torch.testing.assert_close(found, expected, **CLOSE)


@torch.inference_mode()
@pytest.mark.parametrize("case", LAYOUTS)
def test_logits_with_a_cache_in_a_batch(backbone: Showo2Backbone, cases: Cases, case: str) -> None:
    """The question token by token after the medium, beside a document of another length."""
    *pieces, question = asked(cases, case)
    assert isinstance(question, Tokens)
    past, _ = backbone.read([[*pieces], [said([5, 17])]])
    expected, columns = recorded_logits(cases, case), cases["columns"]
    for i, token in enumerate(question.ids):
        found = past.tokens([[token], [token]])[0, SHIFT:][columns]
        ordinary = columns < 290  # special tokens are the loop's own
        row = expected[i - len(question.ids)]
        torch.testing.assert_close(found[ordinary], row[ordinary], **CLOSE)


@pytest.mark.parametrize("case", ["und_image", "und_video"])
def test_it_writes_the_same_words(backbone: Showo2Backbone, cases: Cases, case: str) -> None:
    """By the writing loop, twice at once and beside a text; for words alone the head does not run."""
    order = Order(asked(cases, case), media=0)
    expected = cases[f"{case}/greedy_tokens_top_k1"].tolist()
    plain = Order([said([5, 17])], media=0)
    events = list(write(backbone, [order, plain, order], Settings(temperature=0, tokens=len(expected))))
    for row in (0, 2):
        assert [e.token - SHIFT for e in events if isinstance(e, TokenEvent) and e.row == row] == expected


@pytest.mark.parametrize("case", GRIDS)
def test_velocities(backbone: Showo2Backbone, cases: Cases, case: str) -> None:
    """At both noise levels against the cache: with and without the words, in a batch of both and alone, and guided,
    where five times the difference is added and errors are as much larger."""
    names = [name for name in cases if name.startswith(f"{case}/t") and "velocity" in name]
    if not names:
        pytest.skip("not in the cut of the recorded cases: set MMCORE_PARITY")
    pieces, opener = drawn(cases, case)
    past, x = opened(backbone, [pieces, pieces[1:]], opener), raster(cases[f"{case}/x_t"][0])[None]
    for name in names:
        t = 0.9 if "t0.9" in name else 0.3
        expected = torch.stack([raster(row) for row in cases[name]])
        rows, weight = [*range(len(expected))], 1.0 if name.endswith("cond_uncond") else 5.0
        for some in (rows, rows[:1]):
            found = velocity(past, some, GRIDS[case], opener, x, t, weight)
            torch.testing.assert_close(
                found, expected[: len(some)], atol=2e-5 * weight, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


@torch.inference_mode()
def uncached(model: Showo2, line: Line, levels: Tensor) -> tuple[Tensor, Tensor]:
    """A whole document in one pass: hidden states and velocities."""
    new = lay_out([line], model.embed_tokens.weight)
    hidden = model(new)
    return hidden, model.velocity(hidden, levels, new)


@torch.inference_mode()
@pytest.mark.parametrize("case", ["gen_image", "gen_image_interpolated_pos_6x4", "gen_video"])
def test_velocity_without_a_cache(model: Showo2, cases: Cases, case: str) -> None:
    """Document and target in one pass of core and head; the words before it too, where they were recorded."""
    (piece,), opener = drawn(cases, case)
    assert isinstance(piece, Tokens)
    line, t = Line(), torch.tensor([[0.3]])
    line.tokens(model.words([290, *WORDS.own(piece.ids), WORDS.markers(opener)[0]]))
    features = model.features(raster(cases[f"{case}/x_t"][0])[None], GRIDS[case])[0]
    line.block((torch.cat((model.time(t[0]), features)),), TARGET)
    hidden, found = uncached(model, line, t)
    expected = raster(cases[f"{case}/t0.3/velocity_cond_uncond"][0])
    torch.testing.assert_close(found[0, -len(features) :], expected, **CLOSE)
    if (told := cases.get(f"{case}/t0.3/text_logits_cond")) is not None:
        torch.testing.assert_close(model.logits(hidden[0]), told[0, : len(line)], **CLOSE)


@pytest.mark.parametrize("case", GRIDS)
def test_it_samples_the_same_latents(backbone: Showo2Backbone, cases: Cases, case: str) -> None:
    """Five steps (the reference counts six points), shift 3, guided and not; each of them, where it was recorded."""
    pieces, opener = drawn(cases, case, "noise")
    past = opened(backbone, [pieces], opener)
    names = [name for name in cases if name.startswith(f"{case}/sample") and name.endswith("final_latent")]
    if not names:
        pytest.skip("not in the cut of the recorded cases: set MMCORE_PARITY")
    for name in names:
        guidance = Guidance(5.0 if "guidance5" in name else 1.0, since=0.0)
        predict = past.predictor([0], GRIDS[case], opener, guidance)
        steps = [x[0] for x, _ in euler(predict, raster(cases[f"{case}/noise"][0])[None], schedule(5, 3.0), 0.0)]
        told = cases.get(name.replace("final_latent", "trajectory_cond_half"), cases[name][None])
        for made, expected in zip(reversed(steps), told.flip(0), strict=False):
            torch.testing.assert_close(made, raster(expected[0]), atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def mixture(cases: Cases) -> tuple[list[Piece], Tensor]:
    """A text, a picture and a text; and the picture that is drawn next."""
    ids = cases["mixed_two_images_last_denoised/text_tokens"][0].tolist()
    first, second = cases["mixed_two_images_last_denoised/latents_bchw"]
    picture = Patches(raster(first), (1, 4, 4), IMAGE, True)
    return [said(ids[1:3]), picture, said(ids[22:24])], raster(second)[None]


def test_a_second_picture_in_a_document(backbone: Showo2Backbone, cases: Cases) -> None:
    """The first is clean, the second is drawn at t = 0.4."""
    pieces, x = mixture(cases)
    past = opened(backbone, [pieces], IMAGE)
    found = velocity(past, [0], (1, 4, 4), IMAGE, x, 0.4, 1.0)
    expected = raster(cases["mixed_two_images_last_denoised/velocity"][1])
    torch.testing.assert_close(found[0], expected, **CLOSE)


@pytest.mark.parametrize("clean", [1.0, 0.0])
def test_the_level_of_a_clean_picture(model: Showo2, cases: Cases, clean: float) -> None:
    """Both ways of the reference: cached equals one pass in which core and head are told that level."""
    (text, picture, more), x = mixture(cases)
    assert isinstance(text, Tokens) and isinstance(picture, Patches) and isinstance(more, Tokens)
    past = opened(Showo2Backbone(model, WORDS, clean), [[text, picture, more]], IMAGE)
    found = velocity(past, [0], (1, 4, 4), IMAGE, x, 0.4, 1.0)
    line, tokens = Line(), torch.cat((picture.values[None], x))
    with torch.inference_mode():
        seen, times = model.features(tokens, (1, 4, 4)), model.time(torch.tensor([clean, 0.4]))
        line.tokens(model.words([290, *WORDS.own(text.ids), 292]))
        line.block((torch.cat((times[:1], seen[0])),), CONTEXT)
        line.tokens(model.words([293, *WORDS.own(more.ids), 292]))
        line.block((torch.cat((times[1:], seen[1])),), TARGET)
    levels = torch.full((1, len(line)), clean)
    levels[:, -17:] = 0.4
    _, expected = uncached(model, line, levels)
    torch.testing.assert_close(found[0], expected[0, -16:], **CLOSE)
    recorded = raster(cases["mixed_two_images_last_denoised/velocity"][1])
    assert torch.allclose(expected[0, -16:], recorded, **CLOSE) == (clean == 1.0)


@torch.inference_mode()
def test_training_losses(model: Showo2, cases: Cases) -> None:
    """Both, with what the packed training case recorded: words predicted, and velocities in raster order."""
    ids, labels = cases["train/text_tokens"][0].tolist(), cases["train/text_labels"][0]
    data, noise = (raster(cases[f"train/{name}"][0]) for name in ("x1_data", "x0_noise"))
    t = cases["train/t"]
    line = Line()
    line.tokens(model.words(ids[:9]))
    features = model.features((t * data + (1 - t) * noise)[None], (1, 4, 4))[0]
    line.block((torch.cat((model.time(t), features)),), CONTEXT)
    line.tokens(model.words(ids[26:]))
    hidden, v = uncached(model, line, t[None])
    columns, told = cases["columns"], labels[1:] >= 0
    if len(columns) == 300:
        loss = F.cross_entropy(model.logits(hidden[0, :-1])[told], labels[1:][told])
        torch.testing.assert_close(loss, cases["train/loss_next_token"], **CLOSE)
    torch.testing.assert_close(F.mse_loss(v[0, 10:26], data - noise), cases["train/loss_flow"], **CLOSE)


def test_batched_equals_single(backbone: Showo2Backbone, cases: Cases) -> None:
    """Documents of every kind at once: one draws, one draws by a picture, one films, one speaks."""
    source = Patches(raster(cases["und_image/latents_bchw"][0]), (1, 4, 4), IMAGE, False)
    orders = [
        Order(drawn(cases, "gen_image")[0], {IMAGE: (1, 4, 4)}, IMAGE, seed=1, foreword=0),
        Order([source, said([5, 17, 42])], {IMAGE: (1, 4, 4)}, IMAGE, seed=2, foreword=0),
        Order([said([7])], {VIDEO: (2, 2, 3)}, VIDEO, seed=3, foreword=0),
        Order(asked(cases, "und_image"), media=0, seed=4),
    ]
    settings = Settings(2, DRAWING, shift=3.0, tokens=3)
    many = [(e.row, e.piece) for e in write(backbone, orders, settings) if isinstance(e, SegmentEvent)]
    for row, order in enumerate(orders):
        (alone,) = (e.piece for e in write(backbone, [order], settings) if isinstance(e, SegmentEvent))
        (together,) = (piece for r, piece in many if r == row)
        if isinstance(alone, Tokens):
            assert alone == together
        else:
            assert isinstance(together, Patches)
            torch.testing.assert_close(together.values, alone.values, atol=1e-4, rtol=0)


def test_text_picture_text_in_one_reply(backbone: Showo2Backbone, cases: Cases) -> None:
    """What a reply has written so far is read as if it had been in the prompt, and pictures come one after another."""
    (prompt,), _ = drawn(cases, "gen_image")
    past, _ = backbone.read([[prompt]])
    past.tokens([[17 + SHIFT]])
    past.tokens([[IMAGE]])
    picture = Patches(raster(cases["und_image/latents_bchw"][0]), (1, 4, 4), IMAGE, True)
    first = past.visual([picture])
    second = past.tokens([[31 + SHIFT]])
    written = [prompt, said([17]), picture]
    for logits, more in ((first, []), (second, [said([31])])):
        torch.testing.assert_close(logits, backbone.read([[*written, *more]])[1], **CLOSE)
    past.tokens([[IMAGE]])
    x = raster(cases["gen_image/x_t"][0])[None]
    fresh = opened(backbone, [[*written, said([31])]], IMAGE)
    found, expected = (velocity(p, [0], (1, 4, 4), IMAGE, x, 0.3, 5.0) for p in (past, fresh))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_head_waits_and_media_are_looked_at_once(
    model: Showo2, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For words alone the head does not run; latents that are still at hand do not go through SigLIP again."""
    calls = {"head": 0, "features": 0}

    def counted(name: str, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*given: object) -> Tensor:
            calls[name] += 1
            return forward(*given)

        return run

    monkeypatch.setattr(model.head, "forward", counted("head", model.head.forward))
    monkeypatch.setattr(model.semantic, "forward", counted("features", model.semantic.forward))
    backbone = Showo2Backbone(model, WORDS)
    pieces = asked(cases, "und_image")
    backbone.read([pieces])
    past, _ = backbone.read([pieces])
    past.tokens([[73 + SHIFT]])
    assert calls == {"head": 0, "features": 1}
    past.predictor([0], (1, 4, 4), IMAGE, Guidance(1.0))
    assert calls["head"] == 1


def test_openers_and_ends_are_the_loops_own() -> None:
    told = WORDS.logits(torch.arange(300.0)[None])[0]
    assert told[4] == 291 and told[IMAGE] == 292 and told[VIDEO] == 298
    assert all(told[SHIFT + i] == -torch.inf for i in range(290, 300))
    assert WORDS.markers(IMAGE) == [292, 293] and WORDS.markers(VIDEO) == [298, 299]


def test_what_it_cannot_do_is_one_clear_line(backbone: Showo2Backbone) -> None:
    with pytest.raises(MMCoreError, match="weighs words and media together"):
        backbone.read([[]])[0].predictor([0], (1, 4, 4), IMAGE, Guidance(3.0, media=2.0))
    with pytest.raises(MMCoreError, match=r"takes 40001 positions, the model holds 32768"):
        backbone.read([[said([5] * 40000)]])
