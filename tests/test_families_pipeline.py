"""A released folder of another family as a pipeline: words and pictures in, words and pictures out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.convert_slow_tokenizer import bytes_to_unicode

import mmcore
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.bagel_past import DRAWING, EDITING, Picture
from mmcore.families.canvas import canvas, from_pixels, resized, to_pixels
from mmcore.generate import Settings, make_settings
from mmcore.loading import describe
from mmcore.pipeline import FamilyPipeline
from mmcore.replies import Request
from mmcore.sequence import IMAGE
from tests.conftest import noise_clip  # type: ignore[import-not-found]
from tests.test_families import released  # type: ignore[import-not-found]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")

from mmcore.families.autoencoder import SCALE, SHIFT, _original, _sizes, load_autoencoder

pytestmark = pytest.mark.quick

WHOLE = os.environ.get("MMCORE_PARITY")
SPECIALS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|endoftext|>")
DOWNS, UPS = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4


def write_autoencoder(path: Path) -> None:
    """A tiny one of random weights, in the original file's layout."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    sizes = {"block_out_channels": (32, 32, 32, 64), "layers_per_block": 1, "latent_channels": 16}
    quiet = {"use_quant_conv": False, "use_post_quant_conv": False}
    model = AutoencoderKL(**sizes, down_block_types=DOWNS, up_block_types=UPS, **quiet)  # type: ignore[arg-type]
    weights = {_original(name, 4): tensor.clone() for name, tensor in model.state_dict().items()}
    convolutions = {k: v[..., None, None] if ".attn_1." in k and v.ndim == 2 else v for k, v in weights.items()}
    save_file(convolutions, path)


def write_tokenizer(path: Path) -> None:
    """One token for each byte, fillers, and the special tokens at the ids of the recorded cases."""
    vocabulary = {symbol: i for i, symbol in enumerate(bytes_to_unicode().values())}
    vocabulary |= {f"filler{i}": i for i in range(len(vocabulary), 290)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.save(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bagel")
    torch.manual_seed(0)
    released("bagel", folder)
    write_autoencoder(folder / "ae.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FamilyPipeline:
    loaded = mmcore.load(folder, device="cpu")
    assert isinstance(loaded, FamilyPipeline)
    return loaded


@pytest.fixture
def picture() -> Image:
    return Image(noise_clip(0, 1, 32))


def test_it_is_known_by_its_files(model: FamilyPipeline) -> None:
    facts = describe(model)
    assert facts["family"] == "BAGEL" and facts["vocabulary"] == 300 and facts["device"] == "cpu"
    assert facts["parameters"] == sum(p.numel() for p in model.weights.parameters())


def test_it_draws_edits_and_speaks(model: FamilyPipeline, picture: Image) -> None:
    drawn = model.generate_image("a red ball", height=32, width=40, steps=2)
    assert drawn.frames.shape == (1, 32, 40, 3), "what the grid of 16 pixels has too much is cut off"
    assert np.ptp(drawn.frames) > 20
    assert model.edit(picture, "make it blue", steps=2).frames.shape == (1, 64, 64, 3)
    assert isinstance(model.ask(picture, "what is this?", tokens=5), str)


def test_it_computes_in_the_dtype_it_was_saved_in(folder: Path, picture: Image, tmp_path: Path) -> None:
    """In bfloat16, as released, an edit is about the one in float32: 8 of 255 levels in the mean."""
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            save_file({k: v.bfloat16() for k, v in load_file(path).items()}, tmp_path / path.name)
        else:
            (tmp_path / path.name).symlink_to(path)
    half = mmcore.load(tmp_path, device="cpu")
    assert {p.dtype for p in half.weights.parameters()} == {torch.bfloat16}
    made, exact = (m.edit(picture, "make it blue", steps=3).frames.astype(int) for m in (half, mmcore.load(folder)))
    assert np.abs(made - exact).mean() < 8 < np.abs(exact - exact.mean()).mean()
    assert isinstance(half.ask(picture, "what is this?", tokens=3), str)


def test_a_seed_decides_everything(model: FamilyPipeline, picture: Image) -> None:
    """The noise, and what is drawn from the posterior of a source picture."""
    first, again, other = (model.edit(picture, "make it blue", seed=s, steps=1).frames for s in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_batch_gives_each_what_it_gets_alone(model: FamilyPipeline, picture: Image) -> None:
    requests = [
        Request(Document((Text("a red ball"),)), "image", (None, 32, 32), seed=1),
        Request(Document((picture, Text("make it blue"))), "image", (None, 32, 32), seed=2),
        Request(Document((picture, Text("what is this?"))), "text", seed=3),
    ]
    settings = make_settings({"steps": 2, "tokens": 4}, model.translator.settings)
    together = model.reply(requests, settings, progress=False)
    for request, reply in zip(requests, together, strict=True):
        (alone,) = model.reply([request], settings, progress=False)
        assert alone.text == reply.text and len(alone.media) == len(reply.media)
        for a, b in zip(alone.media, reply.media, strict=True):
            assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= 1


def test_a_picture_is_drawn_by_only_where_one_may_be_drawn(model: FamilyPipeline, picture: Image) -> None:
    """Where words alone are wanted it is only looked at; else its latents are read too."""
    document = Document((picture, Text("what is this?")))
    counts = {}
    for want in ("text", "image", "any"):
        request = model._fitted(Request(document, want))
        order = model.translator.order(request, model.translator.sizes(request))
        piece = order.pieces[0]
        assert isinstance(piece, Picture) and piece.seen.shape == (3, 140, 140)
        counts[want] = len(piece.values)
        assert order.grids[IMAGE] == piece.grid == (1, 4, 4)
    assert counts == {"text": 0, "image": 16, "any": 16}
    assert model.translator.editing.guidance == EDITING and model.translator.settings.steps == 49


def test_a_picture_behind_a_picture_is_an_edit(
    model: FamilyPipeline, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance by the source, in whatever way it is asked for; a number weighs the words and leaves the rest."""
    used: list[Settings] = []
    stream = model.stream
    monkeypatch.setattr(model, "stream", lambda asked, chosen: (used.append(chosen), stream(asked, chosen))[1])
    chat = model.chat(steps=1, tokens=1, guidance=3.0)
    chat.send("a red ball", want="image")
    chat.send("make it blue", want="image")
    chat.send("what is this?", want="text")
    model.generate_image(picture, "make it blue", steps=1)
    drawing, editing = (replace(guidance, text=3.0) for guidance in (DRAWING, EDITING))
    assert [settings.guidance for settings in used] == [drawing, editing, drawing, EDITING]
    with pytest.raises(MMCoreError, match="unknown setting"):
        model.chat(stepz=1)


def test_a_drawn_picture_is_seen_as_if_it_had_been_sent(model: FamilyPipeline, picture: Image) -> None:
    """A conversation reads its own picture again as any other; its pixels are those that were shown."""
    chat = model.chat(steps=1, tokens=3)
    made = chat.send("draw a ball", want="image").media[0]
    assert isinstance(made, Image) and made.learn
    assert isinstance(chat.send("what is this?", want="text").text, str)
    assert len(chat.document.media) == 1


def test_a_drawn_picture_is_edited_by_the_latents_it_was_drawn_with(
    model: FamilyPipeline, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was sent goes through the autoencoder, and a picture of any size keeps its own."""

    def refuse(*args: object) -> None:
        raise AssertionError("encoded")

    monkeypatch.setattr(model.translator.autoencoder, "encode", refuse)  # type: ignore[attr-defined]
    drawn = model.generate_image("a red ball", height=32, width=40, steps=1)
    assert model.edit(Image(drawn.frames.copy()), "make it blue", steps=1).frames.shape == (1, 32, 40, 3)
    with pytest.raises(AssertionError, match="encoded"):
        model.edit(picture, "make it blue", steps=1)


def test_words_that_look_special_are_words(model: FamilyPipeline) -> None:
    text = model.translator.text  # type: ignore[attr-defined]
    ids = text.encode("<|im_end|> a é")
    assert not set(ids) & set(text.special) and text.decode(ids) == "<|im_end|> a é"
    assert text.special == (290, 291, 292, 293, 294)


def test_what_it_cannot_do_is_one_clear_line(model: FamilyPipeline, picture: Image, tmp_path: Path) -> None:
    clip = Video(noise_clip(0))
    with pytest.raises(MMCoreError, match="reads pictures, not clips"):
        model.ask(clip, "what moves?")
    with pytest.raises(MMCoreError, match="draws pictures, not clips"):
        model.generate_video("a red ball")
    with pytest.raises(MMCoreError, match=r"height must lie in \[1, 128\], got 2000"):
        model.generate_image("a red ball", height=2000)
    with pytest.raises(MMCoreError, match="copy its folder"):
        model.save(tmp_path)


@pytest.mark.parametrize("name", ["ae.safetensors", "tokenizer.json", "ema.safetensors", "vit_config.json"])
def test_a_folder_that_lacks_a_file_is_one_clear_line(folder: Path, tmp_path: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(MMCoreError, match=r"no tokenizer\.(json|model) here|no ema\.\w+ or|cannot read"):
        mmcore.load(tmp_path)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((1080, 1920), (1024, 512, 16), (576, 1024)),
        ((100, 100), (1024, 512, 16), (512, 512)),
        ((100, 400), (1024, 512, 16), (256, 1024)),
        ((640, 640), (980, 224, 14), (644, 644)),
        ((10, 3000), (1024, 512, 16), (16, 1024)),
    ],
)
def test_pictures_keep_their_shape(size: tuple, limits: tuple, expected: tuple) -> None:
    assert canvas(size, *limits) == expected


def test_pixels_there_and_back(picture: Image) -> None:
    """One level of 255 is lost at most, since levels are cut off, as the reference does."""
    back = from_pixels(to_pixels(picture)).frames.astype(int)
    assert np.abs(back - picture.frames).max() <= 1
    assert resized(picture, (16, 48)).frames.shape == (1, 16, 48, 3)


@pytest.mark.skipif(WHOLE is None, reason="the recorded autoencoder is larger than a clone carries: set MMCORE_PARITY")
def test_autoencoder_is_the_reference(tmp_path: Path) -> None:
    """Tolerance 2e-5: the mean, the posterior with the recorded noise, and the way back."""
    source = Path(str(WHOLE)) / "bagel"
    autoencoder, cases = load_autoencoder(source / "ae.safetensors"), load_file(source / "ae_cases.safetensors")
    mean, log_variance = cases["moments_mean_logvar_concat"][0].chunk(2)
    found = autoencoder.encode(cases["pixels_bchw"][0])
    torch.testing.assert_close(found, SCALE * (mean - SHIFT), atol=2e-5, rtol=0)
    drawn = found + SCALE * (log_variance / 2).exp() * cases["posterior_noise"][0]
    torch.testing.assert_close(drawn, cases["encoded_latent"][0], atol=2e-5, rtol=0)
    decoded = autoencoder.decode(cases["latent_to_decode"][0])
    torch.testing.assert_close(decoded, cases["decoded"][0], atol=2e-5, rtol=0)


def test_the_posterior_is_drawn_from(folder: Path, picture: Image) -> None:
    """The mean of many draws is what is given without a generator, and they are spread about it."""
    autoencoder, pixels = load_autoencoder(folder / "ae.safetensors"), to_pixels(picture)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([autoencoder.encode(pixels, generator) for _ in range(60)])
    error = (draws.mean(0) - autoencoder.encode(pixels)).abs()
    assert (error / (draws.std(0) / 60**0.5)).mean() == pytest.approx(0.8, abs=0.2) and draws.std(0).min() > 0


def test_a_file_that_is_no_autoencoder(folder: Path) -> None:
    with pytest.raises(MMCoreError, match="not an autoencoder of the original layout"):
        load_autoencoder(folder / "ema.safetensors")
    shapes = {name: tuple(t.shape) for name, t in load_file(folder / "ae.safetensors").items()}
    assert _sizes(shapes)["block_out_channels"] == (32, 32, 32, 64)
