"""A vision tower as a second view of given media: its features are the library's, and it disturbs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Dinov2Config,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SwinConfig,
)

from mmcore.backbone import Native
from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.eye import MEANS, read_eye
from mmcore.model import MMCoreModel, flow_losses
from mmcore.packing import PackedSequence, pack
from mmcore.sequence import Patches, document_strip
from mmcore.starting import fill_eye
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer
from mmcore.tokenizers.visual import look_at
from mmcore.training.checkpoints import load_weights
from tests.conftest import lively, noise_clip

pytestmark = pytest.mark.quick

SIZE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT_SIZE = {**SIZE, "intermediate_size": 32, "vocab_size": 20, "eos_token_id": 1, "bos_token_id": 0}
PIXELS: dict[str, Any] = {"image_size": 16, "patch_size": 4}
TOWERS: dict[str, Any] = {
    "siglip": lambda: AutoModel.from_config(SiglipVisionConfig(**SIZE, **PIXELS, intermediate_size=32)),
    "siglip2": lambda: AutoModel.from_config(Siglip2VisionConfig(**SIZE, num_patches=16, patch_size=4)),
    "clip": lambda: AutoModel.from_config(CLIPVisionConfig(**SIZE, **PIXELS, intermediate_size=32)),
    "dinov2": lambda: AutoModel.from_config(Dinov2Config(**SIZE, **PIXELS)),
    "with text": lambda: SiglipModel(
        SiglipConfig(vision_config={**SIZE, **PIXELS, "intermediate_size": 32}, text_config=TEXT_SIZE)
    ),
}
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.5, 0.2]


def saved_tower(name: str, folder: Path) -> Any:
    """A small random tower, saved by the library."""
    torch.manual_seed(0)
    theirs = lively(TOWERS[name]())
    theirs.save_pretrained(folder)
    (folder / MEANS).write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return theirs


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SigLIP 2."""
    folder = tmp_path_factory.mktemp("eye")
    saved_tower("siglip2", folder)
    return folder


def seeing(folder: Path, config: MMCoreConfig) -> MMCoreModel:
    """A lively model of a shape, with a tower that does not yet say anything."""
    made = MMCoreConfig(**{**config.to_dict(), "eye": read_eye(folder)})
    model = lively(MMCoreModel(made))
    assert model.eye is not None
    with torch.no_grad():
        model.eye.project.weight.zero_()
        fill_eye(model.eye, folder)
    return model


def speak(model: MMCoreModel) -> None:
    """Let the eye's projection say something."""
    assert model.eye is not None
    with torch.no_grad():
        model.eye.project.weight.normal_(std=0.5)


def packed(
    model: MMCoreModel, text: TextTokenizer, *documents: Document, rows: list[list[int]] | None = None
) -> PackedSequence:
    c = model.config
    strips = [document_strip(document_pieces(d, text, c.patch, look=c.look)) for d in documents]
    chosen = rows or [list(range(len(strips)))]
    return pack([[strips[i] for i in row] for row in chosen], c.patch_width)


def outputs(model: MMCoreModel, seq: PackedSequence) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = model(seq)
    return found.hidden, found.patches


@pytest.mark.parametrize("name", TOWERS)
def test_features_are_the_librarys(name: str, config: MMCoreConfig, tmp_path: Path) -> None:
    """Float32, to 1e-5: the grid alone, without tokens before it, whatever else the folder holds."""
    theirs = saved_tower(name, tmp_path)
    model = seeing(tmp_path, config)
    looks = torch.from_numpy(noise_clip(0, 3, 16))
    pixels = ((looks / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    vision = getattr(theirs, "vision_model", theirs)
    with torch.no_grad():
        if name == "siglip2":
            flat = rearrange(pixels, "n c (y p) (x q) -> n (y x) (p q c)", p=4, q=4)
            shapes, mask = torch.full((3, 2), 4), torch.ones(3, 16, dtype=torch.int64)
            expected = vision(flat, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state
        else:
            expected = vision(pixels).last_hidden_state[:, -16:]
        assert model.eye is not None
        found = model.eye.features(looks)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected.unflatten(1, (4, 4)), atol=1e-5, rtol=0)


def test_a_plane_is_shown_as_its_middle_frame() -> None:
    """Of pixels and of latents, whose first frame has a cell of its own; nothing is cut off."""
    frames = np.arange(10, dtype=np.uint8).repeat(8 * 12 * 3).reshape(10, 8, 12, 3)

    def shown(count: int, patch: int, cell: int) -> list[int]:
        return look_at(frames[:count], patch, cell, 6)[:, 0, 0, 0].tolist()

    assert shown(10, 4, 1) == [1, 5, 8]
    assert shown(9, 1, 4) == [0, 2, 6]
    assert shown(9, 2, 4) == [2, 6]
    assert shown(1, 4, 1) == shown(1, 1, 4) == [0]
    wide = noise_clip(0, 1, 12)[:, :8]
    square = PILImage.fromarray(wide[0]).resize((6, 6), PILImage.Resampling.BICUBIC)
    assert np.array_equal(look_at(wide, 1, 1, 6)[0], np.asarray(square))


def test_a_fresh_eye_changes_nothing(
    model: MMCoreModel, config: MMCoreConfig, tower: Path, tokenizer: TextTokenizer, mixed: Document
) -> None:
    """To the bit; and once it says something, what was given changes, and what is written only by reading that."""
    eyed = seeing(tower, config)
    eyed.load_state_dict(model.state_dict(), strict=False)
    seq = packed(eyed, tokenizer, mixed)
    before = outputs(model, packed(model, tokenizer, mixed))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(eyed, seq), strict=True))
    speak(eyed)
    assert not torch.allclose(before[0], outputs(eyed, seq)[0], atol=1e-3)
    written = Document((Text("a red ball"), Video(noise_clip(2), learn=True), Text("a", True)))
    before = outputs(model, packed(model, tokenizer, written))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(eyed, packed(eyed, tokenizer, written)), strict=True))


def test_what_is_seen_stands_at_its_own_patches(
    config: MMCoreConfig, tower: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two media of other sizes, in two rows: each plane gets its own look, resampled to its own grid."""
    model = seeing(tower, config)
    speak(model)
    clip, still = Video(noise_clip(0, 4, 8)), Image(noise_clip(1, 1, 12)[:, :, :8])
    documents = [Document((clip, Text("a", True))), Document((still, Text("a", True), clip, Text("a", True)))]
    seq = packed(model, tokenizer, *documents, rows=[[0], [1]])
    assert len(seq.looks) == 2 + 1 + 2 and seq.is_seen.sum() == 8 + 6 + 8
    assert model.eye is not None
    with torch.no_grad():
        seen = model.eye(seq.looks, seq.grid[:, : seq.lengths[1]], seq.is_seen)
    alone = []
    for document in (documents[0], Document((still,))):
        one = packed(model, tokenizer, document)
        with torch.no_grad():
            alone.append(model.eye(one.looks, one.grid[:, : one.lengths[1]], one.is_seen)[0])
    torch.testing.assert_close(seen[0, :9], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[1, :16], torch.cat((alone[1], alone[0])), atol=1e-5, rtol=0)
    assert not seen[~seq.is_seen].any() and seen[seq.is_seen].abs().amax(-1).min() > 0
    assert not torch.allclose(alone[0][1:5], alone[0][5:]), "both steps of the clip are looked at"
    flat = torch.ones(1, 4, 4, 16) * torch.arange(4.0)[None, :, None, None]
    monkeypatch.setattr(model.eye, "features", lambda _: flat)
    model.eye.norm = torch.nn.Identity()  # type: ignore[assignment]
    one = packed(model, tokenizer, Document((still,)))
    with torch.no_grad():
        rows = model.eye(one.looks, one.grid[:, : one.lengths[1]], one.is_seen)[0, 1:].unflatten(0, (3, 2))
    weight = model.eye.project.weight.sum(1)
    expected = torch.tensor([0.3, 1.5, 2.7])[:, None, None] * weight
    torch.testing.assert_close(rows, expected.expand_as(rows), atol=1e-4, rtol=0)


def test_packed_equals_unpacked(config: MMCoreConfig, tower: Path, tokenizer: TextTokenizer, mixed: Document) -> None:
    """Float32, to 2e-5."""
    model = seeing(tower, config)
    speak(model)
    other = Document((Text("what is this ?"), Image(noise_clip(7, 1)), Text("a ball", True)))
    seq = packed(model, tokenizer, mixed, other)
    hidden, patches = outputs(model, seq)
    lt, lc, _ = seq.lengths
    for d, document in enumerate((mixed, other)):
        expected = outputs(model, packed(model, tokenizer, document))
        torch.testing.assert_close(hidden[0][seq.marks.doc[0, :lt] == d], expected[0][0], atol=2e-5, rtol=0)
        torch.testing.assert_close(patches[0][seq.marks.doc[0, lt + lc :] == d], expected[1][0], atol=2e-5, rtol=0)


def test_cached_equals_uncached(config: MMCoreConfig, tower: Path, tokenizer: TextTokenizer) -> None:
    """Words and the prediction of a target behind a given clip, to 1e-4: read once, or with all of it in one pass."""
    model = seeing(tower, config)
    speak(model)
    given = (Video(noise_clip(0)), Text("make it green"))
    target = Video(noise_clip(1), learn=True)
    pieces = document_pieces(Document(given), tokenizer, config.patch, look=model.config.look)
    past, logits = Native(model).read([pieces])
    whole = packed(model, tokenizer, Document((*given, target)))
    with torch.no_grad():
        output = model(whole)
    end = len(document_strip(pieces, open_reply=True).ids)
    torch.testing.assert_close(logits[0], model.logits(output.hidden[0, end - 1]), atol=1e-4, rtol=0)
    blind, _ = Native(model).read([document_pieces(Document(given), tokenizer, config.patch)])
    assert not torch.allclose(blind.tokens([[20]]), past.tokens([[20]]), atol=1e-3), "the clip was looked at"


def test_it_learns_where_it_should(
    config: MMCoreConfig, tower: Path, tokenizer: TextTokenizer, mixed: Document
) -> None:
    """Gradients reach the projection, and the tower where it is let loose; in bf16, too."""
    model = seeing(tower, config)
    speak(model)
    assert model.eye is not None
    model.eye.tower.requires_grad_(True)
    seq = packed(model, tokenizer, mixed)
    for bf16 in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = flow_losses(model, seq, torch.Generator().manual_seed(0))
        (losses.text + losses.flow).backward()
        for p in (model.eye.project.weight, model.eye.tower.get_parameter("embeddings.patch_embedding.weight")):
            assert p.grad is not None and p.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["siglip2", "clip", "dinov2"])
def test_saved_equals_loaded(name: str, config: MMCoreConfig, tmp_path: Path) -> None:
    """To the bit, in safetensors and config.json alone, by either way; and the features are those of before."""
    saved_tower(name, tmp_path / "eye")
    model = seeing(tmp_path / "eye", config)
    tmp_path = tmp_path / "model"
    model.save_pretrained(tmp_path)
    again = MMCoreModel.from_pretrained(tmp_path).eval()
    assert again.eye is not None and model.eye is not None and again.config.eye == model.config.eye
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain = MMCoreModel(model.config)
    load_weights(plain, tmp_path)
    assert all(torch.equal(ours[name], p) for name, p in plain.state_dict().items())
    looks = torch.from_numpy(noise_clip(0, 2, 16))
    with torch.no_grad():
        assert torch.equal(model.eye.features(looks), again.eye.features(looks))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_patches_know_what_is_shown(config: MMCoreConfig, tokenizer: TextTokenizer, mixed: Document) -> None:
    """Given media, and no others."""
    pieces = document_pieces(mixed, tokenizer, config.patch, look=16)
    media = [p for p in pieces if isinstance(p, Patches)]
    assert [p.looks is None for p in media] == [p.learn for p in media]
    assert all(p.looks is None or p.looks.shape == (p.grid[0], 16, 16, 3) for p in media)


def test_what_does_not_fit_is_named(config: MMCoreConfig, tower: Path, tmp_path: Path) -> None:
    def refused(message: str, folder: Path) -> None:
        with pytest.raises(MMCoreError, match=message) as raised:
            seeing(folder, config)
        assert "\n" not in str(raised.value)

    folder = tmp_path / "eye"
    folder.mkdir()
    refused("no config.json here", folder)
    (folder / "config.json").write_text((tower / "config.json").read_text())
    refused(f"no {MEANS} here", folder)
    (folder / MEANS).write_text("{}")
    refused("image_mean and image_std", folder)
    (folder / MEANS).write_text((tower / MEANS).read_text())
    refused("cannot read the weights: .*only safetensors are read", folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    refused("cannot read the weights: .*only safetensors are read", folder)
    tensors = load_file(tower / "model.safetensors")
    name = "embeddings.patch_embedding.weight"
    save_file({**tensors, name: torch.zeros(16, 12)}, folder / "model.safetensors")
    refused(rf"{name} is \(16, 12\), not \(16, 48\)", folder)
    save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors")
    refused(f"{name} is missing", folder)
    save_file({**tensors, "wings": torch.zeros(1)}, folder / "model.safetensors")
    refused("wings is unknown", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    refused("a vision tower with square patches .* is expected, this is 'qwen3'", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "wings"}))
    refused("this is 'wings'", folder)
    swin = AutoModel.from_config(SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2, **PIXELS))
    swin.save_pretrained(tmp_path / "swin")
    (tmp_path / "swin" / MEANS).write_text((tower / MEANS).read_text())
    refused(r"SwinModel: last_hidden_state is \(1, 4, 16\), a vector for each of 4 x 4 patches", tmp_path / "swin")


def test_the_debug_size_has_no_eye() -> None:
    assert MMCoreModel(MMCoreConfig(**PRESETS["debug"])).eye is None
