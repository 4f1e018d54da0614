"""The model: saving, packing, the level of each span, and what an image is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmcore.attention import PADDING, attend
from mmcore.config import MMCoreConfig
from mmcore.document import Document, Image, Text, Video
from mmcore.layers import QUERY_GAIN, RMSNorm, ZeroLinear
from mmcore.model import MMCoreModel, Output, flow_losses
from mmcore.packing import pack
from mmcore.pyramid import ZeroConvolution
from mmcore.sequence import Strip, document_strip
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer
from tests.conftest import lively, noise_clip  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


def strip_of(document: Document, tokenizer: TextTokenizer, config: MMCoreConfig) -> Strip:
    return document_strip(document_pieces(document, tokenizer, config.patch))


def run(model: MMCoreModel, rows: list[list[Strip]], room: tuple[int, int, int] | None = None):
    seq = pack(rows, model.config.patch_width, room)
    with torch.no_grad():
        return seq, model(seq)


@pytest.mark.parametrize("backend", ["dense", "sdpa", "flex"])
def test_packed_equals_unpacked(backend: str, model, tokenizer, config, mixed) -> None:
    """Two documents in one padded row give what each gives alone; float32, tolerance 2e-5."""
    model.backend = backend
    other = Document((Text("what is this ?"), Image(noise_clip(7, 1)), Text("a ball", True)))
    strips = [strip_of(d, tokenizer, config) for d in (mixed, other)]
    total = torch.tensor([s.lengths for s in strips]).sum(0) + 3
    seq, packed = run(model, [strips, [strips[1]]], tuple(total.tolist()))
    for d, strip in enumerate(strips):
        _, alone = run(model, [[strip]])
        lt, lc, _ = seq.lengths
        torch.testing.assert_close(packed.hidden[0][seq.marks.doc[0, :lt] == d], alone.hidden[0], atol=2e-5, rtol=0)
        found = packed.patches[0][seq.marks.doc[0, lt + lc :] == d]
        torch.testing.assert_close(found, alone.patches[0], atol=2e-5, rtol=0)
    assert (seq.marks.doc == PADDING).any()


def test_a_norm_without_gradients_is_the_same() -> None:
    """It is written out there; torch's own, to 1e-5, for tiny and for large numbers."""
    norm = RMSNorm(32)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 32) * torch.tensor([1e-4, 1.0, 1e3])[:, None, None]
    with torch.no_grad():
        ours = norm(x)
    torch.testing.assert_close(ours, norm(x), atol=1e-5, rtol=1e-5)


def test_saved_equals_loaded_to_the_bit(model: MMCoreModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = MMCoreModel.from_pretrained(tmp_path)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert again.config.to_dict() | {"dtype": None} == model.config.to_dict() | {"dtype": None} | {
        k: v for k, v in again.config.to_dict().items() if k in ("_name_or_path", "architectures")
    }


def test_an_image_is_a_clip_of_one_frame(model, tokenizer, config) -> None:
    """The same pixels as one frame or as a clip's worth of equal frames: the same patches, positions and output."""
    frame = noise_clip(5, 1)
    still = strip_of(Document((Image(frame), Text("a", True))), tokenizer, config)
    clip = strip_of(Document((Image(frame), Text("a", True))), tokenizer, config)
    moving = Video(frame.repeat(config.patch[0], 0))
    from_video = document_pieces(Document((moving,)), tokenizer, config.patch)[0]
    from_image = document_pieces(Document((Image(frame),)), tokenizer, config.patch)[0]
    assert from_video.grid == from_image.grid == (1, 2, 2)  # type: ignore[union-attr]
    assert torch.equal(from_video.values, from_image.values)  # type: ignore[union-attr]
    assert torch.equal(run(model, [[still]])[1].hidden, run(model, [[clip]])[1].hidden)


def test_a_target_never_leaks_into_the_text(model, tokenizer, config, mixed) -> None:
    """Other noise in the target lane leaves every text state as it is, to the bit."""
    seq = pack([[strip_of(mixed, tokenizer, config)]], config.patch_width)
    outs: list[Output] = []
    for seed in (0, 1):
        noise = torch.randn(seq.target_patches.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            outs.append(model(seq.with_targets(noise, torch.full(noise.shape[:2], 0.3))))
    assert torch.equal(outs[0].hidden, outs[1].hidden)
    assert not torch.equal(outs[0].patches, outs[1].patches)


def test_a_fresh_model_adds_nothing_and_predicts_nothing(config, tokenizer, mixed) -> None:
    """Residual branches begin at 0, in spite of the order in which `transformers` visits modules."""
    model = MMCoreModel(config).eval()
    seq, output = run(model, [[strip_of(mixed, tokenizer, config)]])
    assert not output.patches.any()
    embedded = config.embedding_scale * model.embedding(seq.ids)
    torch.testing.assert_close(output.hidden, model.text_norm(embedded), atol=1e-6, rtol=0)
    for name, p in model.named_parameters():
        if name.endswith("query_norm.weight"):
            assert (p == QUERY_GAIN).all(), name


def test_a_fresh_model_looks_up_places(config, tokenizer, monkeypatch) -> None:
    """The first head of every block of the core finds a patch's place in a source, however far the words set it."""
    shares: list[torch.Tensor] = []

    def recorded(q, k, v, mask):
        shares.append((q @ k.mT * q.shape[-1] ** -0.5 + mask.additive).softmax(-1))
        return attend(q, k, v, mask)

    monkeypatch.setattr("mmcore.layers.attend", recorded)
    words = Text("now make this ball the red one")
    edit = Document((Video(noise_clip(1, 4)), words, Video(noise_clip(2, 4), 8.0, True)))
    strip = document_strip(document_pieces(edit, tokenizer, config.patch), last_context=False)
    seq, _ = run(MMCoreModel(config).eval(), [[strip]])
    lt, lc, lx = seq.lengths
    assert lc == lx
    for share in shares[: config.depth]:
        to_source = share[0, 0, lt + lc + 1 :, lt + 1 : lt + lc]  # (N, N), level positions left out
        same = to_source.trace() / (lc - 1)
        other = to_source.mean()
        assert same > 3 * other


def test_a_fresh_models_matrices_keep_the_size_of_what_they_take(config) -> None:
    """Those that do not end a branch: standard deviation 1 / sqrt(fan in), within a tenth."""
    for name, module in MMCoreModel(config).named_modules():
        if isinstance(module, torch.nn.Linear) and not isinstance(module, (ZeroLinear, ZeroConvolution)):
            assert module.weight.std().item() * module.in_features**0.5 == pytest.approx(1, rel=0.1), name


def test_the_noise_level_matters(model, tokenizer, config, mixed) -> None:
    seq = pack([[strip_of(mixed, tokenizer, config)]], config.patch_width)
    level = torch.zeros(seq.target_patches.shape[:2])
    with torch.no_grad():
        a = model(seq.with_targets(seq.target_patches, level)).patches
        b = model(seq.with_targets(seq.target_patches, level + 0.9)).patches
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("linear", [0, 1, 4])
def test_every_weight_gets_a_gradient(config, tokenizer, mixed, linear: int) -> None:
    config.linear = linear
    model = lively(MMCoreModel(config))
    seq = pack([[strip_of(mixed, tokenizer, config)]], config.patch_width)
    losses = flow_losses(model, seq, torch.Generator().manual_seed(0))
    (losses.text + losses.flow).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_copies_of_a_target_do_not_see_each_other(model, tokenizer, config, mixed) -> None:
    """Two target spans of one medium, with their own noise, give what each gives alone; so do the words after them."""
    pieces = document_pieces(mixed, tokenizer, config.patch)
    once, twice = document_strip(pieces), document_strip(pieces, hides=[(0, 0)] * 9)
    seq, both = (pack([[strip]], config.patch_width) for strip in (once, twice))
    spans = seq.marks.span[0, -seq.lengths[2] :].unique_consecutive(return_counts=True)[1].tolist()
    generator = torch.Generator().manual_seed(0)
    noise = [[torch.randn(n, config.patch_width, generator=generator) for n in spans] for _ in range(2)]
    levels = [[torch.full((n,), level) for n in spans] for level in (0.3, 0.6)]
    with torch.no_grad():
        alone = [
            model(seq.with_targets(torch.cat(x)[None], torch.cat(t)[None])) for x, t in zip(noise, levels, strict=True)
        ]
        x, t = (torch.cat([c for pair in zip(*copies, strict=True) for c in pair])[None] for copies in (noise, levels))
        together = model(both.with_targets(x, t))
    parts = together.patches[0].split([n for n in spans for _ in range(2)])
    for k in range(2):
        torch.testing.assert_close(torch.cat(parts[k::2]), alone[k].patches[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.hidden, alone[k].hidden, atol=1e-4, rtol=1e-4)


def test_losses_are_means_over_their_own_tokens(model, tokenizer, config, mixed) -> None:
    """A batch that holds the same document twice has the same text loss as one that holds it once."""
    strip = strip_of(mixed, tokenizer, config)
    once, twice = (
        flow_losses(model, pack([[strip]] * n, config.patch_width), torch.Generator().manual_seed(0)) for n in (1, 2)
    )
    torch.testing.assert_close(once.text, twice.text)
    assert twice.text_tokens == 2 * once.text_tokens
    assert once.flow_tokens == sum(len(p.values) for p in strip.patches[4])


def test_a_config_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="skip from"):
        MMCoreConfig(depth=2, decoder_depth=3)
    with pytest.raises(ValueError, match="multiple of 8"):
        MMCoreConfig(width=100, heads=4)
