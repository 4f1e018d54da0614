"""A folder of Lance as a pipeline: words, pictures and clips in, words, pictures and clips out, on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import mmcore
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.buckets import bucket, middle, sampled, shaped
from mmcore.families.lance import LanceConfig
from mmcore.families.lance_media import DRAW, EDIT, HELP, LOOK, LanceTranslator, Sides, in_turns, task
from mmcore.families.lance_pieces import GUIDANCE, Given, Medium, Sentence
from mmcore.families.remembered import ROOM, Remembered
from mmcore.generate import make_settings
from mmcore.loading import describe
from mmcore.pipeline import FamilyPipeline
from mmcore.replies import Request
from mmcore.sequence import IMAGE, VIDEO, Patches, Tokens
from tests.conftest import noise_clip  # type: ignore[import-not-found]
from tests.test_families import WHOLE, released  # type: ignore[import-not-found]
from tests.test_lance import write_tower  # type: ignore[import-not-found]

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")

from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from mmcore.families.wan import ClipAutoencoder, load_clip_autoencoder
from tests.test_families_pipeline import write_tokenizer  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick

SIDES = Sides(48, 48, 56, 56)
WAN = {"base_dim": 4, "z_dim": 48, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "is_residual": True, "patch_size": 2}
WAN |= {"in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}


def write_autoencoder(folder: Path) -> None:
    """A tiny one of random weights, as `diffusers` lays it out."""
    folder.mkdir()
    torch.manual_seed(0)
    mean, std = torch.linspace(-1, 1, 48).tolist(), torch.linspace(0.5, 2, 48).tolist()
    config = {**WAN, "latents_mean": mean, "latents_std": std}
    save_file(dict(AutoencoderKLWan(**config).state_dict()), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan", **config}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder, with the parts that are shared beside it, as released."""
    root = tmp_path_factory.mktemp("released")
    (folder := root / "Lance_3B").mkdir()
    released("lance", folder)
    if not WHOLE:
        write_tower(LanceConfig.read(folder), root)
    write_autoencoder(root / "vae")
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FamilyPipeline:
    loaded = mmcore.load(folder, device="cpu")
    assert isinstance(loaded, FamilyPipeline)
    translator_of(loaded).sides = SIDES
    return loaded


def translator_of(model: FamilyPipeline) -> LanceTranslator:
    assert isinstance(model.translator, LanceTranslator)
    return model.translator


@pytest.fixture
def picture() -> Image:
    return Image(noise_clip(0, 1, 32))


@pytest.fixture
def clip() -> Video:
    return Video(noise_clip(1, 9, 32), 12.0)


class Encoded:
    """Counts what is encoded."""

    def __init__(self, autoencoder: ClipAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, real = 0, autoencoder.encode

        def encode(*args: object, **kwargs: object) -> torch.Tensor:
            self.count += 1
            return real(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(autoencoder, "encode", encode)


def test_it_is_known_by_its_files(model: FamilyPipeline, folder: Path) -> None:
    facts = describe(model)
    assert facts["family"] == "Lance" and facts["patch"] == "4x16x16" and facts["vocabulary"] == 300
    assert model.translator.settings.guidance == model.translator.editing.guidance == GUIDANCE
    with pytest.raises(MMCoreError, match=r"models lie in folders of it: load one of Lance_3B there"):
        mmcore.load(folder.parent)


def test_it_draws_films_edits_and_speaks(model: FamilyPipeline, picture: Image, clip: Video) -> None:
    assert model.generate_image("a red ball", height=32, width=40, steps=1).frames.shape == (1, 32, 40, 3)
    filmed = model.generate_video("a dog runs", frames=6, height=32, width=32, steps=1)
    assert filmed.frames.shape == (6, 32, 32, 3) and filmed.fps == 12
    assert np.ptp(filmed.frames) > 20
    assert model.edit(picture, "make it blue", steps=1).frames.shape == (1, 48, 48, 3)
    assert model.edit(clip, "make it snow", steps=1).frames.shape == (9, 48, 48, 3)
    assert isinstance(model.ask(clip, "what moves?", tokens=3), str)


def test_a_batch_of_mixed_requests_gives_each_what_it_gets_alone(
    model: FamilyPipeline, picture: Image, clip: Video
) -> None:
    requests = [
        Request(Document((Text("a red ball"),)), "image", (None, 32, 32), seed=1),
        Request(Document((picture, Text("make it blue"))), "image", seed=2),
        Request(Document((Text("it rolls"), picture)), "video", (5, 32, 32), seed=3),
        Request(Document((clip, Text("what is this?"))), "text", seed=4),
    ]
    chosen = make_settings({"steps": 2, "tokens": 3}, model.translator.settings)
    together = model.reply(requests, chosen, progress=False)
    for request, reply in zip(requests, together, strict=True):
        (alone,) = model.reply([request], chosen, progress=False)
        assert alone.text == reply.text and len(alone.media) == len(reply.media)
        for a, b in zip(alone.media, reply.media, strict=True):
            assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= 1


@pytest.mark.parametrize("want", ["image", "video"])
def test_a_later_turn_edits_without_encoding_again(
    model: FamilyPipeline, monkeypatch: pytest.MonkeyPatch, want: str, tmp_path: Path
) -> None:
    """What the model made is read by the latents that it wrote, also after a save; what was sent is encoded."""
    encoded = Encoded(translator_of(model).autoencoder, monkeypatch)
    chat = model.chat(steps=1, tokens=2)
    first = chat.send("a red ball", want=want).media[0]
    chat.send("make it blue", want=want)
    assert encoded.count == 0
    request = model._fitted(Request(Document((Document.load(chat.document.save(tmp_path)).media[0], Text("b"))), want))
    piece = model.translator.order(request, model.translator.sizes(request)).pieces[1]
    assert isinstance(piece, Medium) and encoded.count == 0
    known = translator_of(model).memory.find(first)
    assert known is not None and torch.equal(piece.values, known.values)
    changed = first.frames.copy()
    changed[0, 0, 0] ^= 1
    model.edit(type(first)(changed), "make it blue", steps=1)
    assert encoded.count == 1


def test_text_picture_and_text_in_one_reply(model: FamilyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own choice, with the head bent so that it speaks, draws and speaks again."""
    script = iter([5, 5, None, 7, 7])
    real = model.backbone.vocabulary.logits  # type: ignore[attr-defined]

    def bent(own: torch.Tensor) -> torch.Tensor:
        told = real(own)
        told[:] = -torch.inf
        token = next(script, "end")
        told[:, IMAGE if token is None else 4 if token == "end" else int(token) + 60] = 1.0
        return told

    monkeypatch.setattr(type(model.backbone.vocabulary), "logits", lambda self, own: bent(own))  # type: ignore[attr-defined]
    request = Request(Document((Text("hi"),)), "any", (None, 32, 32))
    chosen = make_settings({"steps": 1, "tokens": 9}, model.translator.settings)
    (reply,) = model.reply([request], chosen, progress=False)
    assert [type(segment).__name__ for segment in reply.document] == ["Text", "Image", "Text"]


def test_a_picture_is_set_in_motion_as_the_first_frame(model: FamilyPipeline, picture: Image) -> None:
    translator = translator_of(model)
    request = model._fitted(Request(Document((Text("it rolls"), picture)), "video", (9, None, None)))
    order = translator.order(request, translator.sizes(request))
    sentence, first, words = order.pieces
    assert isinstance(sentence, Sentence) and isinstance(first, Given) and isinstance(words, Tokens)
    assert order.grids == {VIDEO: (3, 3, 3)} and first.grid == (1, 3, 3)
    alone = translator._encode(translator.fit(picture).frames, torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(first.values, alone)
    kept = [type(piece) for piece in translator.order(request, {IMAGE: (1, 32, 32)}).pieces]
    assert kept == [Sentence, Given, Tokens]


def test_media_are_drawn_by_only_where_one_may_be_made(model: FamilyPipeline, clip: Video) -> None:
    translator, counts = translator_of(model), {}
    for want in ("text", "video", "any"):
        request = model._fitted(Request(Document((clip, Text("what is this?"))), want))
        order = translator.order(request, translator.sizes(request))
        piece = order.pieces[1]
        assert isinstance(piece, Medium) and piece.seen.shape == (3, 10, 56, 56)
        counts[want] = len(piece.values)
        assert order.grids == {VIDEO: (3, 3, 3)}
    assert counts == {"text": 0, "video": 27, "any": 27}


def test_sentences_that_set_the_task(picture: Image, clip: Video) -> None:
    def said(want: str, *media: Image | Video) -> str:
        return task(Request(Document((*media, Text("go"))), want))

    assert said("image") == DRAW[IMAGE] and said("video") == said("video", picture) == DRAW[VIDEO]
    assert said("image", picture) == EDIT.format("image") and said("video", clip) == EDIT.format("video")
    assert said("text", picture) == LOOK[IMAGE] and said("text", clip) == LOOK[VIDEO]
    assert said("text") == said("any", picture) == HELP


def test_words_that_open_a_turn_come_behind_its_media(picture: Image) -> None:
    a, b, reply = Text("a"), Text("b"), Text("c", True)
    assert in_turns(Document((a, picture, b, reply, a, b))) == [picture, b, a, reply, a, b]


def test_it_computes_in_the_dtype_it_was_saved_in(folder: Path, picture: Image, tmp_path: Path) -> None:
    """In bfloat16, as released, an edit is about the one in float32: 8 of 255 levels in the mean."""
    for path in (p for part in (folder.parent, folder, *folder.parent.glob("*/")) for p in part.glob("*.*")):
        target = tmp_path / path.relative_to(folder.parent)
        target.parent.mkdir(exist_ok=True)
        if path.suffix == ".safetensors" and not target.exists():
            save_file({k: v.bfloat16() for k, v in load_file(path).items()}, target)
        elif path.suffix == ".json" and not target.exists():
            target.symlink_to(path)
    half, exact = (mmcore.load(where / folder.name, device="cpu") for where in (tmp_path, folder.parent))
    assert {p.dtype for p in half.weights.parameters()} == {torch.bfloat16}
    made = []
    for loaded in (half, exact):
        loaded.translator.sides = SIDES  # type: ignore[attr-defined]
        made.append(loaded.edit(picture, "make it blue", steps=2).frames.astype(int))
    assert np.abs(made[0] - made[1]).mean() < 8 < np.abs(made[1] - made[1].mean()).mean()
    assert isinstance(half.ask(picture, "what is this?", tokens=2), str)


def test_what_it_cannot_do_is_one_clear_line(model: FamilyPipeline, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(MMCoreError, match=r"width must lie in \[1, 1024\], got 2000"):
        model.generate_image("a red ball", width=2000)
    with pytest.raises(MMCoreError, match=r"frames must lie in \[1, 121\], got 200"):
        model.generate_video("a red ball", frames=200)
    (alone := tmp_path / "alone").mkdir()
    for path in folder.iterdir():
        (alone / path.name).symlink_to(path)
    with pytest.raises(MMCoreError, match=r"no vae folder here or beside it"):
        mmcore.load(alone)


def test_latents_there_and_back(folder: Path, clip: Video) -> None:
    """Scaled channel by channel, the posterior's noise added as it is; the first frame does not see the others."""
    autoencoder = load_clip_autoencoder(folder.parent / "vae")
    pixels = torch.randn(3, 5, 32, 48)
    mean = autoencoder.encode(pixels)
    posterior = autoencoder.model.encode(pixels[None]).latent_dist
    torch.testing.assert_close(mean * autoencoder.spread + autoencoder.mean, posterior.mean[0].detach())
    drawn = autoencoder.encode(pixels, torch.Generator().manual_seed(3))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn - mean, posterior.std[0].detach() * noise)
    torch.testing.assert_close(autoencoder.encode(pixels[:, :1]), mean[:, :1])
    assert mean.shape == (48, 2, 2, 3) and autoencoder.decode(mean).shape == (3, 5, 32, 48)


@pytest.mark.parametrize("lacking", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_an_autoencoder_that_lacks_a_file(folder: Path, tmp_path: Path, lacking: str) -> None:
    for path in (folder.parent / "vae").iterdir():
        if path.name != lacking:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(MMCoreError, match=r"cannot read|no diffusion_pytorch_model\.safetensors here"):
        load_clip_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((1080, 1920), 768, (576, 1024)),
        ((500, 510), 640, (640, 640)),
        ((9, 16), 640, (480, 848)),
        ((9, 1), 64, (80, 48)),
    ],
)
def test_media_go_into_the_nearest_bucket(size: tuple, side: int, expected: tuple) -> None:
    assert bucket(size, side) == expected


def test_the_middle_of_a_picture_is_taken() -> None:
    frames = np.zeros((1, 40, 80, 3), np.uint8)
    frames[:, :, 20:60] = 200
    assert shaped(frames, (20, 20)).min() == 200 and shaped(frames, (20, 40)).min() == 0
    assert middle(frames, 28).shape == (1, 28, 56, 3)


@pytest.mark.parametrize(
    ("frames", "fps", "expected"), [(1, 12, 1), (12, 12, 9), (13, 12, 13), (60, 30, 21), (900, 30, 69), (3, 30, 1)]
)
def test_clips_are_sampled_to_a_latent_length(frames: int, fps: float, expected: int) -> None:
    taken = sampled(np.arange(frames)[:, None, None, None].repeat(3, 3), fps, 12, 6)[:, 0, 0, 0]
    assert len(taken) == expected and taken[0] == 0 and (expected == 1 or taken[-1] == frames - 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 500), st.floats(1, 120), st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
def test_any_medium_gets_a_length_and_a_size_that_latents_have(frames: int, fps: float, size: tuple[int, int]) -> None:
    taken = sampled(np.zeros((frames, 1, 1, 3), np.uint8), fps, 12, 6)
    assert len(taken) % 4 == 1 and len(taken) <= 72
    rows, columns = bucket(size, 640)
    assert rows % 16 == columns % 16 == 0 and 0.9 < rows * columns / 640**2 < 1.1
    if 9 / 16 < size[1] / size[0] < 21 / 9:
        assert abs(np.log(columns / rows * size[0] / size[1])) < 0.25


def test_only_so_many_media_are_remembered() -> None:
    memory, patches = Remembered[Patches](), Patches(torch.zeros(1, 48), (1, 1, 1), IMAGE, True)
    pictures = [Image(np.full((1, 2, 2, 3), i, np.uint8)) for i in range(ROOM + 1)]
    for made in pictures[:-1]:
        memory.keep(made, patches)
    assert memory.find(Image(pictures[0].frames.copy(), learn=True)) is not None
    memory.keep(pictures[-1], patches)
    assert memory.find(pictures[0]) is not None and memory.find(pictures[1]) is None
    assert memory.find(Image(pictures[0].frames.reshape(1, 1, 4, 3))) is None


def test_frames_together_are_not_frames_apart() -> None:
    memory, clip, still = Remembered[str](), Video(noise_clip(0, 2)), Image(noise_clip(1, 1))
    memory.keep(clip, "a clip")
    memory.keep(still, "a picture", apart=True)
    assert memory.find(clip, apart=True) is None and memory.find(clip) == "a clip"
    assert memory.find(still) == "a picture"
