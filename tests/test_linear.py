"""Linear attention: the rule against the library's, and a core that has it against itself, read in other ways."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3_next.modeling_qwen3_next import (
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT
from mmcore.backbone import Guidance, Native, NativePast
from mmcore.chains import VIEWS, make_chains
from mmcore.config import PERIOD, PRESETS, MMCoreConfig
from mmcore.delta import chunked, recurrent
from mmcore.document import Document, Image, Text
from mmcore.generate import Order, SegmentEvent, Settings, write
from mmcore.linear import LONGEST, SHORTEST, LinearAttention
from mmcore.model import MMCoreModel
from mmcore.packing import pack
from mmcore.sequence import IMAGE, VIDEO, Patches, Strip, Tokens, document_strip
from mmcore.tokenizers.pieces import document_pieces
from tests.conftest import lively, noise_clip  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


@pytest.fixture(params=[3, 4], ids=["hybrid", "linear"])
def config(request: pytest.FixtureRequest) -> MMCoreConfig:
    """Three linear blocks and one full one, or four linear ones."""
    shape = PRESETS["debug"] | {"depth": PERIOD, "linear": request.param}
    return MMCoreConfig(**{"vocab_size": 320, "patch": (2, 4, 4), "height": 8, "width_px": 8, "frames": 4, **shape})


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny documents, too, are to take several chunks."""
    monkeypatch.setattr("mmcore.chains.CHUNK", 5)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(length: int) -> Inputs:
    """Queries, keys, values, fades and shares (2, 3, length, ...), and a state."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8, generator=generator) for _ in range(3))
    g = -F.softplus(torch.randn(2, 3, length, generator=generator))
    beta = torch.rand(2, 3, length, generator=generator)
    state = torch.randn(2, 3, 8, 8, generator=generator)
    return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, g, beta, state


def in_chunks(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, size: int):
    """`chunked` on plain sequences: each one's chunks follow each other."""
    rows, length = len(q), q.shape[2]
    parts = [F.pad(t, (0, 0, 0, -length % size)) for t in (q, k, v)]
    parts += [F.pad(t, (0, -length % size)) for t in (g, beta)]
    chunks = [torch.cat(t.split(size, 2)) for t in parts]
    parents = [torch.arange(rows)] * (len(chunks[0]) // rows)
    out, ends = chunked(*chunks, state, parents)  # type: ignore[arg-type]
    return torch.cat(out.split(rows), 2)[:, :, :length], ends[-1]


@pytest.mark.parametrize(("length", "size"), [(1, 1), (37, 8), (64, 16), (50, 64)])
def test_the_rule_is_the_librarys_and_chunks_change_nothing(length: int, size: int) -> None:
    """Ours, told one by one and in chunks, and both of Qwen3-Next's, states too; float32, 1e-5."""
    parts = inputs(length)
    *turned, state = (*(t.transpose(1, 2) for t in parts[:5]), parts[5])
    for rule, more in ((torch_chunk_gated_delta_rule, {"chunk_size": size}), (torch_recurrent_gated_delta_rule, {})):
        theirs, last = rule(*turned, initial_state=state, output_final_state=True, **more)
        for ours, end in (recurrent(*parts), in_chunks(*parts, size)):
            torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-5, rtol=0)
            torch.testing.assert_close(end, last, atol=1e-5, rtol=0)


def test_gradients_of_chunks_are_those_of_the_rule() -> None:
    grads: list[list[Tensor]] = []
    for chunks in (False, True):
        parts = [t.double().requires_grad_() for t in inputs(21)]
        out, end = in_chunks(*parts, 8) if chunks else recurrent(*parts)  # type: ignore[call-arg]
        (out.square().sum() + end.square().sum()).backward()
        grads.append([t.grad for t in parts if t.grad is not None])
    assert len(grads[0]) == 6
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_a_state_that_fades_fast_does_not_overflow() -> None:
    """Over 64 positions it fades to nothing, e^-1000: products of ratios, not ratios of products."""
    q, k, v, g, beta, state = inputs(64)
    g = torch.full_like(g, -1000 / 64)
    ours, _ = in_chunks(q, k, v, g, beta, state, 64)
    torch.testing.assert_close(ours, recurrent(q, k, v, g, beta, state)[0], atol=1e-5, rtol=0)


def strip_of(document: Document, tokenizer, config: MMCoreConfig, **how) -> Strip:
    return document_strip(document_pieces(document, tokenizer, config.patch), **how)


def in_order(layer: LinearAttention, x: Tensor) -> Tensor:
    """The layer over one sequence (L, D), position by position, as plainly as it can be told."""
    x = layer.norm(x)
    parts = torch.stack([f(x) for f in (layer.query, layer.key, layer.value)], 1)
    taps = len(layer.taps)
    padded = F.pad(parts, (0, 0, 0, 0, taps - 1, 0))
    mixed = F.silu(sum(padded[i : i + len(x)] * layer.taps[i] for i in range(taps)))  # type: ignore[arg-type]
    q, k, v = mixed.unflatten(-1, (layer.heads, -1)).permute(1, 2, 0, 3)[:, None]
    g, beta = -F.softplus(layer.fade(x) + layer.pace).T[None], layer.write(x).sigmoid().T[None]
    state = torch.zeros(1, layer.heads, layer.head_width, layer.head_width)
    out, _ = recurrent(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, g, beta, state)
    return layer.out(layer.out_norm(out[0].transpose(0, 1)).flatten(1) * F.silu(layer.gate(x)))


@torch.no_grad()
def test_a_layer_reads_what_the_mask_lets_it_see(config, tokenizer, mixed) -> None:
    """Every position of a packed batch, against the layer run over what it may see and itself, in reading order: words,
    contexts, targets that hide nothing, words, media, and both; 2e-5."""
    layer = lively(LinearAttention(config))
    hides = [(0, TEXT), (CONTEXT, TEXT | CONTEXT), (0, 0)]
    other = Document((Text("what is this ?"), Image(noise_clip(7, 1)), Text("a ball", True)))
    strips = [strip_of(mixed, tokenizer, config, hides=hides), strip_of(other, tokenizer, config)]
    room = tuple((torch.tensor([s.lengths for s in strips]).sum(0) + 3).tolist())
    seq = pack([strips, [strips[1]]], config.patch_width, room)
    x = torch.randn(*seq.marks.doc.shape, config.width)
    found = layer(x, make_chains(seq.marks, False))
    marks, checked = seq.marks, set()
    for row in range(2):
        doc, span, kind, hide = (getattr(marks, name)[row] for name in ("doc", "span", "kind", "hide"))
        for at in range(len(doc)):
            if doc[at] == PADDING:
                continue
            earlier = (span < span[at]) & (kind & hide[at] == 0) | (span == span[at]) & (torch.arange(len(doc)) <= at)
            seen = ((doc == doc[at]) & earlier).nonzero()[:, 0]
            seen = seen[span[seen].argsort(stable=True)]
            torch.testing.assert_close(found[row, at], in_order(layer, x[row, seen])[-1], atol=2e-5, rtol=0)
            checked.add((int(kind[at]), int(hide[at])))
    assert checked == {(TEXT, TARGET), (CONTEXT, TARGET), *((TARGET, TARGET | h) for h in (0, *VIEWS[1:], 3))}


def test_packed_equals_unpacked(model, tokenizer, config, mixed) -> None:
    """Two documents in one padded row give what each gives alone; float32, tolerance 2e-5."""
    other = Document((Text("what is this ?"), Image(noise_clip(7, 1)), Text("a ball", True)))
    strips = [strip_of(d, tokenizer, config) for d in (mixed, other)]
    seq = pack([strips, [strips[1]]], config.patch_width)
    with torch.no_grad():
        packed = model(seq)
    lt, lc, _ = seq.lengths
    for d, strip in enumerate(strips):
        with torch.no_grad():
            alone = model(pack([[strip]], config.patch_width))
        torch.testing.assert_close(packed.hidden[0][seq.marks.doc[0, :lt] == d], alone.hidden[0], atol=2e-5, rtol=0)
        found = packed.patches[0][seq.marks.doc[0, lt + lc :] == d]
        torch.testing.assert_close(found, alone.patches[0], atol=2e-5, rtol=0)


def test_a_target_never_leaks_into_the_text(model, tokenizer, config, mixed) -> None:
    """Other noise in the target lane leaves every text state as it is, to the bit."""
    seq = pack([[strip_of(mixed, tokenizer, config)]], config.patch_width)
    outs = []
    for seed in (0, 1):
        noise = torch.randn(seq.target_patches.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            outs.append(model(seq.with_targets(noise, torch.full(noise.shape[:2], 0.3))))
    assert torch.equal(outs[0].hidden, outs[1].hidden)
    assert not torch.equal(outs[0].patches, outs[1].patches)


def test_cached_equals_uncached(model, prompts, config) -> None:
    """Reading a document in chunks against the cache, a sampling step between them, gives the logits of reading it at
    once; tolerance 2e-5."""
    past, logits = Native(model).read([prompts[0]])
    picture = Patches(torch.randn(4, config.patch_width), (1, 2, 2), IMAGE, True)
    stages = [logits, past.tokens([[30, 31]]), past.tokens([[IMAGE]])]
    past.predictor([0], (1, 2, 2), IMAGE, Guidance(3.0, 2.0))(
        torch.randn(1, 4, config.patch_width), torch.tensor([0.5])
    )
    stages += [past.visual([picture]), past.tokens([[40]])]
    strip = document_strip(prompts[0], open_reply=True)
    strip.text([30, 31, IMAGE])
    strip.visual(picture, CONTEXT)
    strip.advance(picture.grid)
    strip.text([IMAGE + 1, 40])
    with torch.no_grad():
        whole = model.logits(model(pack([[strip]], config.patch_width)).hidden)[0]
    n = len(strip.ids)
    for stage, at in zip(stages, (n - 6, n - 4, n - 3, n - 2, n - 1), strict=True):
        torch.testing.assert_close(stage[0], whole[at], atol=2e-5, rtol=0)


def test_a_sampling_step_against_the_cache_equals_the_whole_sequence(model, prompts, config) -> None:
    """And each guidance branch equals a run of its own with that condition hidden."""
    grid, x, t = (2, 2, 2), torch.randn(1, 8, config.patch_width), torch.tensor([0.4])
    past, _ = Native(model).read([prompts[2]])
    past.tokens([[VIDEO]])
    guided = past.predictor([0], grid, VIDEO, Guidance(text=3.0, media=1.5))(x, t)
    expected = torch.zeros_like(x)
    for hide, weight in ((0, 3.0), (TEXT, -1.5), (TEXT | CONTEXT, -0.5)):
        strip = document_strip(prompts[2], open_reply=True)
        strip.text([VIDEO])
        strip.visual(Patches(x[0], grid, VIDEO, True), TARGET, hide)
        seq = pack([[strip]], config.patch_width)
        with torch.no_grad():
            level = torch.full((1, 9), 0.4)
            expected += weight * model(seq.with_targets(seq.target_patches, level)).patches[:, 1:]
    torch.testing.assert_close(guided, expected, atol=5e-5, rtol=0)


def test_batched_equals_single(model, prompts, config) -> None:
    """Three different requests at once give what each gives alone: same tokens, patches within 1e-4."""
    grids, settings = {IMAGE: (1, 2, 2), VIDEO: (2, 2, 2)}, Settings(steps=3, tokens=12)
    orders = [
        Order(prompts[0], grids, VIDEO, seed=1),
        Order(prompts[1], grids, seed=2, media=2),
        Order(prompts[2], grids, IMAGE, seed=3),
    ]
    many = list(write(Native(model), orders, settings))
    for row, order in enumerate(orders):
        alone = [e.piece for e in write(Native(model), [order], settings) if isinstance(e, SegmentEvent)]
        together = [e.piece for e in many if isinstance(e, SegmentEvent) and e.row == row]
        assert len(alone) == len(together) > 0
        for a, b in zip(alone, together, strict=True):
            if isinstance(a, Patches) and isinstance(b, Patches):
                torch.testing.assert_close(a.values, b.values, atol=1e-4, rtol=0)
            else:
                assert a == b


def test_memory_of_a_linear_core_stands_still(model, config) -> None:
    """Of a past four times as long, full blocks keep four times as much, linear ones the same."""
    held = []
    for count in (256, 1024):
        past, _ = Native(model).read([[Tokens([30] * (count - 2), False)]])
        assert isinstance(past, NativePast)
        held.append(past.cache.bytes)
    full = 2 * config.heads * config.head_width * 4 * sum(not config.is_linear(i) for i in range(config.depth))
    assert held[1] - held[0] == full * (1024 - 256)


def test_a_fresh_model_adds_nothing_and_fades_at_many_paces(config, tokenizer, mixed) -> None:
    model = MMCoreModel(config).eval()
    seq = pack([[strip_of(mixed, tokenizer, config)]], config.patch_width)
    with torch.no_grad():
        output = model(seq)
    embedded = config.embedding_scale * model.embedding(seq.ids)
    torch.testing.assert_close(output.hidden, model.text_norm(embedded), atol=1e-6, rtol=0)
    paces = [block.attention.pace for block in model.core.blocks if isinstance(block.attention, LinearAttention)]
    assert len(paces) == config.linear
    for pace in paces:
        horizon = 1 / F.softplus(pace)
        torch.testing.assert_close(horizon, torch.tensor([SHORTEST, LONGEST]).float(), rtol=1e-3, atol=0)


def test_saved_equals_loaded_to_the_bit(model, config, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    again = MMCoreModel.from_pretrained(tmp_path)
    assert again.config.linear == config.linear
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_where_linear_attention_cannot_go() -> None:
    with pytest.raises(ValueError, match="0 to 4, got 5"):
        MMCoreConfig(linear=5)
    with pytest.raises(ValueError, match="released text core"):
        MMCoreConfig(linear=3, origin={"model_type": "qwen3"})
    with pytest.raises(AssertionError, match="one document a row"):
        strip = Strip()
        strip.text([9])
        make_chains(pack([[strip, strip]], 1).marks, True)
