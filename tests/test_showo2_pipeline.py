"""A released folder of Show-o2 as a pipeline: words, pictures and clips in, words, pictures and clips out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import mmcore
from mmcore.cli import main
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.canvas import to_pixels
from mmcore.families.remembered import Remembered
from mmcore.families.showo2_past import Asked, Begun
from mmcore.generate import Row, make_settings
from mmcore.loading import describe
from mmcore.pipeline import FamilyPipeline
from mmcore.replies import Request
from mmcore.sequence import END, IMAGE, Patches, Piece, Tokens
from tests.conftest import noise_clip  # type: ignore[import-not-found]
from tests.test_convert import as_released  # type: ignore[import-not-found]
from tests.test_families import released  # type: ignore[import-not-found]

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")

from mmcore.families.showo2_autoencoder import BLOCKS, load_wan, original_name
from mmcore.families.wan import ClipAutoencoder
from tests.test_families_pipeline import write_tokenizer  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


def wan() -> dict[str, Tensor]:
    """A tiny autoencoder of random weights, in `diffusers`' names."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=8, num_res_blocks=BLOCKS).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is released, and what is put beside it."""
    folder = tmp_path_factory.mktemp("showo2")
    torch.manual_seed(0)
    released("showo2", folder, "model.safetensors")
    as_released(folder)
    write_tokenizer(folder / "tokenizer.json")
    torch.save({original_name(name): tensor for name, tensor in wan().items()}, folder / "Wan2.1_VAE.pth")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FamilyPipeline:
    loaded = mmcore.load(folder, device="cpu")
    assert isinstance(loaded, FamilyPipeline)
    return loaded


@pytest.fixture
def picture() -> Image:
    return Image(noise_clip(0, 1, 64))


@pytest.fixture
def counts(model: FamilyPipeline, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often media are encoded, and how often tokens are made of latents outside of sampling."""
    counted = {"encode": 0, "look": 0}

    def count(name: str, do: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def done(*given: object) -> Tensor:
            counted[name] += 1
            return do(*given)

        return done

    translator, network = model.translator, model.weights
    monkeypatch.setattr(translator, "memory", Remembered[Tensor]())
    monkeypatch.setattr(translator.autoencoder, "encode", count("encode", translator.autoencoder.encode))  # type: ignore[attr-defined]
    monkeypatch.setattr(network, "features", count("look", network.features))  # type: ignore[arg-type]
    return counted


def pieces(model: FamilyPipeline, want: str, *segments: Text | Image | Video) -> list[Piece]:
    request = model._fitted(Request(Document(segments), want))
    return list(model.translator.order(request, model.translator.sizes(request)).pieces)


def test_it_is_known_by_its_files(model: FamilyPipeline) -> None:
    facts = describe(model)
    assert facts["family"] == "Show-o2" and facts["vocabulary"] == 300 and facts["picture"] == "64x64"
    assert facts["parameters"] == sum(p.numel() for p in model.weights.parameters())


def test_it_draws_edits_films_and_speaks(model: FamilyPipeline, picture: Image) -> None:
    drawn = model.generate_image("a red ball", height=40, width=24, steps=1)
    assert drawn.frames.shape == (1, 40, 24, 3), "what the grid of 16 pixels has too much is cut off"
    assert model.edit(picture, "make it blue", steps=1).frames.shape == (1, 64, 64, 3)
    assert isinstance(model.ask(picture, "what is this?", tokens=3), str)
    assert isinstance(model.ask(Video(noise_clip(1, 3, 20)), "what moves?", tokens=2), str)
    assert model.generate_video("a red ball", frames=3, height=32, width=16, steps=1).frames.shape == (3, 32, 16, 3)


def test_a_clip_begins_with_the_picture_before_it(model: FamilyPipeline, picture: Image) -> None:
    """Its first frame is what the autoencoder makes of the picture; the picture is not read besides."""
    film = model.generate_video(picture, "it moves", frames=5, steps=1)
    autoencoder, values = model.translator.autoencoder, pieces(model, "image", picture)[0].values  # type: ignore
    latents = values.reshape(1, 8, 8, 16).permute(3, 0, 1, 2)
    expected = (autoencoder.decode(latents)[:, 0] * 0.5 + 0.5) * 255
    assert np.abs(film.frames[0].astype(float) - expected.permute(1, 2, 0).numpy()).max() <= 1.01
    begun, words = pieces(model, "video", picture, Text("it moves"))
    assert isinstance(begun, Begun) and isinstance(words, Tokens)
    with pytest.raises(MMCoreError, match="begins with a picture has its size, 64x64"):
        model.generate_video(picture, "it moves", height=32)


def test_a_seed_decides_the_noise(model: FamilyPipeline, picture: Image) -> None:
    first, again, other = (model.edit(picture, "make it blue", seed=s, steps=1).frames for s in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_conversation_stands_as_the_scripts_have_it(model: FamilyPipeline, picture: Image) -> None:
    """Where words are wanted: the system's line, turns of user and assistant, the picture where it was sent, laid out
    as for a question. Where a picture is wanted: the words as they are."""
    special = {290: "<begin>", 291: "<end>"}
    translator = model.translator

    def read(piece: Piece) -> str:
        if isinstance(piece, Patches):
            return "<medium>"
        return "".join(special.get(i) or translator.text.decode([i]) for i in translator.vocabulary.own(piece.ids))  # type: ignore

    told = (picture, Text("what?"), Text("a ball", True), Text("and now?"))
    asked = pieces(model, "text", *told)
    assert isinstance(asked[1], Asked) and not isinstance(pieces(model, "any", *told)[1], Asked)
    assert "".join(map(read, asked)) == (
        "system\nYou are a helpful assistant.<end>\n<begin>user\n<medium>what?\n<begin>assistant\na ball<end>"
        "\n<begin>user\nand now?\n<begin>assistant\n"
    )
    assert "".join(map(read, pieces(model, "image", *told))) == "<medium>what?a balland now?"


def test_a_batch_gives_each_what_it_gets_alone(model: FamilyPipeline, picture: Image) -> None:
    requests = [
        Request(Document((Text("a red ball"),)), "image", (None, 32, 32), seed=1),
        Request(Document((picture, Text("make it blue"))), "image", (None, 32, 32), seed=2),
        Request(Document((Text("a ball"),)), "video", (5, 32, 16), seed=3),
        Request(Document((picture, Text("what is this?"))), "text", seed=4),
        Request(Document((Text("hello"),)), seed=5),
    ]
    settings = make_settings({"steps": 2, "tokens": 4, "guidance": 2.0}, model.translator.settings)
    together = model.reply(requests, settings, progress=False)
    for request, reply in zip(requests, together, strict=True):
        (alone,) = model.reply([request], settings, progress=False)
        assert alone.text == reply.text and len(alone.media) == len(reply.media)
        for a, b in zip(alone.media, reply.media, strict=True):
            assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= 1
    assert [len(reply.media) for reply in together] == [1, 1, 1, 0, 0] and together[3].text


def scripted(monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Let the model choose these tokens, whatever it would say."""
    script: Iterator[int] = iter(ids)
    monkeypatch.setattr(Row, "choose", lambda *_: next(script))


def test_text_a_picture_and_text_and_an_edit_of_it(
    model: FamilyPipeline, monkeypatch: pytest.MonkeyPatch, counts: dict[str, int]
) -> None:
    """One reply holds all three; the next turn edits the picture, and the next asks about it, and neither encodes it
    again or makes tokens of its latents again: they are those that were drawn."""
    chat = model.chat(steps=2, tokens=3, guidance=2.0)
    said = model.translator.vocabulary.told(model.translator.text.encode("yes so"))  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        scripted(patch, [*said[:3], IMAGE, *said[3:], END])
        reply = chat.send("draw a ball and say so")
    kinds = [type(segment) for segment in reply.document]
    assert kinds == [Text, Image, Text] and reply.text == "yes  so"
    assert counts == {"encode": 0, "look": 2 + 1}, "two steps, and the finished picture"
    edited = chat.send("make it blue", want="image").media[0]
    assert edited.size == reply.media[0].size and not np.array_equal(edited.frames, reply.media[0].frames)
    assert counts == {"encode": 0, "look": 3 + 2}, "two steps more"
    chat.send("what was the first?", want="text")
    assert counts == {"encode": 0, "look": 5 + 1}, "the edited picture alone is new to the context"


def test_what_was_sent_is_encoded_once(model: FamilyPipeline, picture: Image, counts: dict[str, int]) -> None:
    """In a second turn too, and where another message shows the same."""
    chat = model.chat(steps=1, tokens=1, guidance=1.0)
    chat.send(picture, "what is this?", want="text")
    chat.send("make it blue", want="image")
    model.ask(Image(picture.frames.copy()), "what is this?", tokens=1)
    assert counts == {"encode": 1, "look": 1 + 1}
    clip = Video(noise_clip(1, 3, 64))
    assert model.ask(clip, "what moves?", tokens=2) == model.ask(clip, "what moves?", tokens=2)
    assert counts == {"encode": 1 + 3, "look": 2 + 1}, "each frame by itself"


def test_it_computes_in_the_dtype_it_was_saved_in(folder: Path, picture: Image, tmp_path: Path) -> None:
    """In bfloat16 an edit is about the one in float32: 8 of 255 levels in the mean. Safetensors this time."""
    halved = {k: v.bfloat16() for path in folder.glob("*.bin") for k, v in torch.load(path).items()}
    save_file({k: v.clone() for k, v in halved.items()}, tmp_path / "model.safetensors")
    for path in folder.iterdir():
        if path.suffix != ".bin" and "index" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    half = mmcore.load(tmp_path, device="cpu")
    assert {p.dtype for p in half.weights.parameters()} == {torch.bfloat16}
    settings = {"steps": 2, "guidance": 2.0, "seed": 0}
    made, exact = (m.edit(picture, "make it blue", **settings).frames.astype(int) for m in (half, mmcore.load(folder)))
    assert np.abs(made - exact).mean() < 8 < np.abs(exact - exact.mean()).mean()
    assert isinstance(half.ask(Video(noise_clip(1, 2, 64)), "what?", tokens=2), str)


def test_the_converted_folder_is_the_same_model(model: FamilyPipeline, folder: Path, tmp_path: Path) -> None:
    """By the command line; no pickle is left in it."""
    target = tmp_path / "converted"
    assert main(["convert", str(folder), str(target)]) == 0
    assert {path.suffix for path in target.iterdir()} == {".json", ".safetensors"}
    drawn, again = (m.generate_image("a red ball", height=32, width=32, steps=1) for m in (model, mmcore.load(target)))
    assert np.array_equal(drawn.frames, again.frames)


def test_the_middle_of_a_picture_and_all_of_a_clip(model: FamilyPipeline) -> None:
    """A wide picture loses its sides, a wide clip stands between black bars."""
    frames = np.zeros((1, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = 200
    assert model.translator.fit(Image(frames)).frames.min() > 150
    clip = model.translator.fit(Video(frames.repeat(2, 0))).frames
    assert clip.shape == (2, 64, 64, 3) and clip[:, :15].max() == 0 and clip[:, 20:44, 20:44].min() > 150


@pytest.mark.parametrize("name", ["tokenizer.json", "Wan2.1_VAE.pth"])
def test_what_is_to_be_put_beside_it_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(MMCoreError, match=re.escape(name) + ".* here; put that of .* beside the weights"):
        mmcore.load(tmp_path)


def test_what_it_cannot_do_is_one_clear_line(model: FamilyPipeline, folder: Path) -> None:
    with pytest.raises(MMCoreError, match=r"height must lie in \[1, 1024\], got 2000"):
        model.generate_image("a red ball", height=2000)
    with pytest.raises(MMCoreError, match="frames must be at least 1, got -1"):
        model.generate_video("a red ball", frames=-1)
    with pytest.raises(MMCoreError, match="not an autoencoder of the original layout"):
        load_wan(folder / "pytorch_model-00001-of-00002.bin")


def test_autoencoder_names_are_the_original_ones() -> None:
    """By the table that `diffusers` has for the released file."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    names = list(wan())
    assert convert_wan_vae_to_diffusers({original_name(name): name for name in names}) == {n: n for n in names}


@pytest.fixture(scope="module")
def autoencoder(folder: Path) -> ClipAutoencoder:
    return load_wan(folder / "Wan2.1_VAE.pth")


def test_autoencoder_scales_as_the_reference(autoencoder: ClipAutoencoder) -> None:
    """(mean - m) / s, and noise that is not scaled; the way back undoes the scaling."""
    pixels = torch.stack([to_pixels(Image(noise_clip(i, 1, 32))) for i in range(5)], 1)
    inner = autoencoder.model.encode(pixels[None]).latent_dist
    shift, scale = (
        torch.tensor(getattr(autoencoder.model.config, f"latents_{n}"))[:, None, None, None] for n in ("mean", "std")
    )
    found, seeds = autoencoder.encode(pixels), (torch.Generator().manual_seed(1) for _ in range(2))
    assert found.shape == (16, 2, 4, 4)
    torch.testing.assert_close(found, (inner.mean[0] - shift) / scale, atol=1e-5, rtol=0)
    noise = torch.randn(found.shape, generator=next(seeds))
    torch.testing.assert_close(autoencoder.encode(pixels, next(seeds)), found + inner.std[0] * noise, atol=1e-5, rtol=0)
    decoded = autoencoder.decode(found)
    assert decoded.shape == (3, 5, 32, 32)
    torch.testing.assert_close(decoded, autoencoder.model.decode(inner.mean).sample[0], atol=1e-4, rtol=0)


def test_a_latent_has_seen_no_later_frame(autoencoder: ClipAutoencoder) -> None:
    pixels = torch.stack([to_pixels(Image(noise_clip(i, 1, 16))) for i in range(5)], 1)
    torch.testing.assert_close(autoencoder.encode(pixels)[:, :1], autoencoder.encode(pixels[:, :1]), atol=1e-5, rtol=0)
