"""Released families over several places: the same outputs, and blocks that lie nowhere but in their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmcore
from mmcore.cli import main
from mmcore.document import Document, Image, Text
from mmcore.errors import MMCoreError
from mmcore.families.spread import SHARE, Spread, attach, blocks_of, places
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from tests.conftest import noise_clip  # type: ignore[import-not-found]
from tests.test_five_turns import FAMILIES, released_folder, small_media  # type: ignore[import-not-found]

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install -e .[families]")


pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_media(monkeypatch)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return released_folder(request.param, tmp_path_factory.mktemp("released"))


def logits(model: Pipeline) -> torch.Tensor:
    """After two documents at once, one of which shows a picture; then after two more tokens, by the cache."""
    segments = (Image(noise_clip(0, 1, 32)), Text("what is it?")), (Text("a red ball"),)
    requests = [model._fitted(Request(Document(s), "any")) for s in segments]
    orders = [model.translator.order(r, model.translator.sizes(r)) for r in requests]
    past, first = model.backbone.read([order.pieces for order in orders])
    second = past.tokens([model.translator.order(r, model.translator.sizes(r)).pieces[-1].ids[:1] for r in requests])  # type: ignore[union-attr]
    return torch.stack((first, second)).cpu()


def drawn(model: Pipeline) -> np.ndarray:
    return model.generate_image("a red ball", height=32, width=32, steps=2).frames.astype(int)


def meta(model: Pipeline) -> set[str]:
    return {name for name, p in model.weights.named_parameters() if p.is_meta}


def test_blocks_in_files_and_in_memory_give_the_same_logits(folder: Path) -> None:
    """To the bit; what is left in files is not in memory, before or after."""
    plain = mmcore.load(folder, device="cpu")
    spread = mmcore.load(folder, device="cpu", device_map={"": "disk", "core.layers.1": "cpu"})
    left = {name for name in blocks_of(plain.weights) if name != "core.layers.1"}
    assert "core.layers.0" in left
    expected = {n for n, _ in plain.weights.named_parameters() if any(n.startswith(f"{block}.") for block in left)}
    assert meta(spread) == expected
    assert torch.equal(logits(spread), logits(plain))
    assert np.array_equal(drawn(spread), drawn(plain))
    assert meta(spread) == expected


def test_a_block_at_home_elsewhere_gives_the_same_logits(folder: Path) -> None:
    """A processor under another name stands in for another device: what goes there is copied, what is cached stays."""
    plain, away = (mmcore.load(folder, device="cpu", device_map=m) for m in (None, {"core.layers.1": "cpu:0"}))
    homes = {name: block.home for name, block in blocks_of(away.weights).items()}
    assert homes.pop("core.layers.1") == torch.device("cpu:0") and set(homes.values()) == {None}
    assert not meta(away) and torch.equal(logits(away), logits(plain))


def test_a_block_in_memory_is_brought_along_where_it_runs(folder: Path) -> None:
    """As beside a GPU: it lies nowhere else before and after."""
    plain, brought = (mmcore.load(folder, device="cpu") for _ in range(2))
    attach(brought.weights, Spread("cpu", {}), {"core.layers.0": torch.device("cpu")}, {})
    left = meta(brought)
    assert left and all(name.startswith("core.layers.0.") for name in left)
    assert torch.equal(logits(brought), logits(plain)) and meta(brought) == left


def test_auto_fills_what_there_is_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for all but one and a half blocks: two stay in files, the last ones. Lance's tower is not counted."""
    model: Any = mmcore.load(folder, device="cpu").weights
    size = {name: sum(p.nbytes for p in block.parameters()) for name, block in blocks_of(model).items()}
    total = sum(p.nbytes for name, p in model.named_parameters() if not name.startswith("tower.layers."))
    *_, before, last = size
    gone = size[last] + size[before] / 2
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda: {"cpu": (total - gone) / SHARE})
    spread = mmcore.load(folder, device="cpu", device_map="auto")
    assert {name.partition(".experts")[0] for name in meta(spread) if name.startswith("core")} <= {before, last}
    assert {name for name in size if any(m.startswith(f"{name}.") for m in meta(spread))} == {before, last}
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda: {"cpu": 100 * total})
    assert not meta(mmcore.load(folder, device="cpu", device_map="auto"))


def test_graphics_cards_come_before_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four equal blocks, and as much again that is no block: two cards with room for three of them, and one."""
    from mmcore.families.experts import ExpertCore, Shape

    with torch.device("meta"):
        core = ExpertCore(Shape(8, 4, 2, 1, 8))
    numbers = sum(t.numel() for t in core.layers[0].state_dict().values())
    core.register_parameter("rest", torch.nn.Parameter(torch.empty(4 * numbers, device="meta")))
    (tmp_path / "weights.safetensors").write_bytes(b"0" * (2 * sum(t.numel() for t in core.state_dict().values())))
    block = 2 * numbers / SHARE * 1.01
    room = {0: 5 * block, 1: block, "cpu": block}
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda: room)
    found = places(core, Spread("cuda:0", "auto"), [tmp_path / "weights.safetensors"])
    assert found == {"layers.1": torch.device("cuda:1"), "layers.2": torch.device("cpu"), "layers.3": "disk"}


def test_released_precision_stays(folder: Path, tmp_path: Path) -> None:
    """What comes from a file in bfloat16 computes in it."""
    copy = tmp_path / folder.name
    copy.mkdir()
    for path in [*folder.iterdir(), *(p for p in folder.parent.iterdir() if p.is_dir() and p != folder)]:
        target = (copy if path.parent == folder else tmp_path) / path.name
        if path.suffix == ".safetensors" and path.name != "vit.safetensors":
            save_file({k: v.bfloat16() for k, v in load_file(path).items()}, target)
        else:
            target.symlink_to(path)
    plain, spread = (mmcore.load(copy, device="cpu", device_map=where) for where in (None, {"core": "disk"}))
    assert {p.dtype for p in spread.weights.parameters() if p.is_meta} == {torch.bfloat16}
    assert torch.equal(logits(spread), logits(plain))


def test_mistakes_are_one_line(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for where, why in (
        ({"embed_tokens": "disk"}, "'embed_tokens' names no block; blocks are core.layers.0"),
        ({"core": "attic"}, "'attic' is no device"),
        ("balanced", 'must be "auto" or a map'),
    ):
        with pytest.raises(MMCoreError, match=why):
            mmcore.load(folder, device="cpu", device_map=where)
    with pytest.raises(MMCoreError, match="this one is on one device"):
        mmcore.load(device="cpu", device_map="auto")
    assert main(["info", "--model", str(folder), "--device-map", "auto", "--json"]) == 0
    assert '"family"' in capsys.readouterr().out
    assert main(["info", "--device-map", "auto"]) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this wants a GPU beside the CPU")
def test_two_devices_give_the_same_logits(folder: Path) -> None:
    """To 1e-4 of the largest: a block that lives on the GPU, and blocks that are brought to it."""
    exact = logits(mmcore.load(folder, device="cpu"))
    for device, where in (("cpu", {"core.layers.0": "cuda:0"}), ("cuda:0", {"": "cpu"}), ("cuda:0", {"core": "disk"})):
        found = mmcore.load(folder, device=device, device_map=where)
        close = {"rtol": 0, "atol": 1e-4 * float(exact[exact.isfinite()].abs().max())}
        torch.testing.assert_close(logits(found), exact, **close)  # type: ignore[arg-type]
        assert drawn(found).shape == (1, 32, 32, 3)
