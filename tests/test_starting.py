"""A model of a released text core and autoencoder: made, trained, asked, saved, and its text part given back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

import mmcore
from mmcore.cli import main
from mmcore.config import MMCoreConfig
from mmcore.document import Document, Text, Video
from mmcore.errors import MMCoreError
from mmcore.model import PARTS, MMCoreModel, part_of
from mmcore.replies import Request
from mmcore.training.engine import make_engine
from mmcore.training.optimizers import let_learn
from mmcore.training.ranks import Ranks
from mmcore.training.recipe import load_recipe
from tests.conftest import lively, noise_clip
from tests.test_eye import saved_tower
from tests.test_released_text import released
from tests.test_text_core import SIZES, logits_of

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")

from tests.test_autoencoder import MADE

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random tiny Qwen3 with its tokenizer, and a random tiny Wan autoencoder."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    words = released(folder / "core")
    config = Qwen3Config(**{**SIZES, "vocab_size": len(words), "head_dim": 16, "max_position_embeddings": 2048})
    lively(Qwen3ForCausalLM(config).float()).save_pretrained(folder / "core")
    lively(MADE["wan 2.1"]()).save_pretrained(folder / "wan" / "vae")
    return folder / "core", folder / "wan"


@pytest.fixture(scope="module")
def begun(parts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mmcore init` makes of them."""
    folder = tmp_path_factory.mktemp("begun") / "model"
    core, vae = map(str, parts)
    size = ["--frames", "5", "--height", "16", "--width", "16"]
    assert main(["init", "--core", core, "--vae", vae, "-o", str(folder), *size]) == 0
    return folder


def test_from_init_over_align_to_a_clip_and_back(begun: Path, parts: tuple[Path, Path], tmp_path: Path) -> None:
    """By the commands alone. Text stays to the bit through align, and goes back to transformers."""
    run, model, text = (tmp_path / name for name in ("run", "model", "text"))
    changes = [
        "steps=2",
        "save_every=2",
        "log_every=1",
        "precision=fp32",
        "mixture=stills",
        "layout.rows=1",
        "layout.waiting=2",
    ]
    recipe = str(Path(mmcore.__file__).parent / "training" / "recipes" / "align.toml")
    assert main(["train", recipe, f"start={begun}", *changes, "layout.room=[400,80,80]", "--out", str(run)]) == 0
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert main(["export", str(run), str(model)]) == 0
    out = tmp_path / "clip.mp4"
    asked = ["generate", "a red ball", "--model", str(model), "--steps", "2", "--frames", "5", "-o", str(out)]
    assert main(asked) == 0
    assert mmcore.Video.open(out).size == (5, 16, 16)
    assert main(["export", str(run), str(text), "--to", "hf"]) == 0
    theirs, again = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (parts[0], text))
    for (key, a), b in zip(theirs.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b[: len(a)]), key
    assert AutoTokenizer.from_pretrained(text)("a red ball")["input_ids"]
    before, after = (mmcore.load(folder).model.state_dict() for folder in (begun, model))
    moved = {part_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"patches", "decoder", "visual"}


@pytest.fixture(scope="module")
def eyed(parts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mmcore init` makes of them and of a random tiny SigLIP 2."""
    folder = tmp_path_factory.mktemp("eyed")
    saved_tower("siglip2", folder / "eye")
    core, vae = map(str, parts)
    given = ["--core", core, "--vae", vae, "--eye", str(folder / "eye"), "-o", str(folder / "model")]
    assert main(["init", *given, "--frames", "5", "--height", "16", "--width", "16"]) == 0
    return folder / "model"


def test_an_eye_goes_from_init_over_align_to_a_caption(
    eyed: Path, parts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands alone. The tower stays to the bit, its projection learns, and what it sees is told."""
    run, model, clip = (tmp_path / name for name in ("run", "model", "clip.mp4"))
    changes = ["steps=2", "save_every=2", "precision=fp32", "mixture=reading", "layout.rows=1", "layout.waiting=2"]
    begun = [*changes, f"start={eyed}", "optimizer.ema=0", "layout.room=[400,80,80]"]
    assert main(["train", "align", *begun, "--out", str(run)]) == 0
    assert main(["export", str(run), str(model)]) == 0
    before, after = (mmcore.load(folder).model.state_dict() for folder in (eyed, model))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "eye.project.weight" in moved and {part_of(name) for name in moved} == {"patches", "visual"}
    theirs = AutoModel.from_pretrained(eyed.parent / "eye", dtype=torch.float32).state_dict()
    assert all(torch.equal(after[f"eye.tower.{name}"], p) for name, p in theirs.items())
    Video(noise_clip(0, 5, 16), 8.0).save(clip)
    capsys.readouterr()
    assert main(["caption", str(clip), "--model", str(model), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)["text"], str)
    pipeline = mmcore.load(model)
    seen, order = [], pipeline.translator.order
    for side in (pipeline.config.look, 0):
        pipeline.config.eye["side"] = side
        request = Request(Document((Video.open(clip), Text("what is this ?"))), "text")
        seen.append(pipeline.backbone.read([order(request, {}).pieces])[1])
    assert not torch.equal(*seen), "the clip is looked at"


@pytest.mark.parametrize("lora", [0, 2])
def test_sft_moves_what_it_says(lora: int, eyed: Path, tmp_path: Path) -> None:
    """From a folder of `mmcore init`: all but patches and the eye; or, by adapters, the core's matrices alone."""
    run, model = tmp_path / "run", tmp_path / "model"
    changes = ["steps=2", "save_every=2", "precision=fp32", "layout.rows=1", "layout.waiting=2", f"lora={lora}"]
    begun = [*changes, f"start={eyed}", "optimizer.ema=0", "optimizer.adam=0.01", "layout.room=[400,80,80]"]
    assert main(["train", "sft", *begun, "--out", str(run)]) == 0
    assert main(["export", str(run), str(model)]) == 0
    before, after = (mmcore.load(folder).model.state_dict() for folder in (eyed, model))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    core = {name for name in before if part_of(name) in ("attention", "text", "visual")}
    if lora:  # nothing reads what the last block says of patches: the decoder is fresh, and stays so
        last = f"core.blocks.{MMCoreConfig.from_pretrained(eyed).depth - 1}.visual."
        assert moved == {name for name in core if before[name].ndim == 2 and not name.startswith(last)}
        for name in moved:
            added = torch.linalg.svdvals(after[name] - before[name])
            assert added[lora] < 1e-2 * added[0], name
    else:
        assert core <= moved and {part_of(name) for name in moved} == set(PARTS) - {"patches", "eye"}


def test_it_says_what_its_text_core_says(begun: Path, parts: tuple[Path, Path]) -> None:
    """Float32, to 1e-4; and it reads a clip through the autoencoder."""
    pipeline = mmcore.load(begun)
    theirs = AutoModelForCausalLM.from_pretrained(parts[0], dtype=torch.float32)
    ids = pipeline.tokenizer.encode("a red ball and a blue cube")
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits_of(pipeline.model, ids)[:, : expected.shape[1]], expected, atol=1e-4, rtol=0)
    clip = Video(noise_clip(0, 5, 16), 8.0)
    assert isinstance(pipeline.ask(clip, "what is this ?", tokens=4), str)
    edited = pipeline.edit(clip, "make it green", steps=1, tokens=2)
    assert edited.size == (5, 16, 16) and np.ptp(edited.frames) > 0


def test_saved_equals_loaded(begun: Path, tmp_path: Path) -> None:
    pipeline = mmcore.load(begun)
    pipeline.save(tmp_path)
    again = mmcore.load(tmp_path)
    order = Document((Text("a red ball"), Video(noise_clip(1, 5, 16))))
    ours, theirs = (p.generate_video(*order, frames=5, steps=1, tokens=2).frames for p in (pipeline, again))
    assert np.array_equal(ours, theirs)


def test_parts_learn_at_their_rates(config: MMCoreConfig) -> None:
    """Every weight belongs to one part; 0 freezes it, others scale a first step of AdamW, whose length is its rate."""
    model = MMCoreModel(config)
    assert {part_of(name) for name, _ in model.named_parameters()} == set(PARTS) - {"eye"}
    changes = ["optimizer.muon=0", "optimizer.weight_decay=0", "optimizer.warmup=0", "precision='fp32'"]
    recipe = load_recipe("debug", [*changes, "rates={words=0, text=0.5, decoder=2}"])
    let_learn(model, recipe)
    engine = make_engine(model, recipe, Ranks())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    engine.step()
    for name, p in model.named_parameters():
        expected = recipe.optimizer.adam * {"words": 0, "text": 0.5, "decoder": 2}.get(part_of(name), 1)
        torch.testing.assert_close(before[name] - p, torch.full_like(p, expected), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["rates.wings=0"], "no part 'wings'; known are: words, attention, text, visual, patches, eye, decoder"),
        (["rates.text=-1"], "rates must be 0 or more"),
    ],
)
def test_wrong_rates(changes: list[str], message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        load_recipe("debug", changes)


def test_what_cannot_be_begun_is_one_line(
    begun: Path, parts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core, vae = map(str, parts)

    def refused(message: str, *given: str) -> None:
        assert main(["init", *given]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], lines
        assert not list(tmp_path.glob("model*"))

    out = ["-o", str(tmp_path / "model")]
    refused("a text core of llama, qwen2, qwen3 is expected", "--core", str(begun), "--vae", vae, *out)
    refused("an autoencoder of AutoencoderKLWan, AutoencoderKL is expected", "--core", core, "--vae", core, *out)
    refused("with square patches", "--core", core, "--vae", vae, "--eye", core, *out)
    refused("something is there already", "--core", core, "--vae", vae, "-o", str(begun))
    refused("must be above 0", "--core", core, "--vae", vae, "--frames", "0", *out)
    assert main(["export", str(Path(mmcore.__file__).parent / "bundled"), str(tmp_path / "text"), "--to", "hf"]) == 2
    assert "core is our own" in capsys.readouterr().err
    assert not (tmp_path / "text").exists()
