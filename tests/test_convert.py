"""Released weights as `torch.save` wrote them: read as tensors and nothing else, and written anew as safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmcore.cli import main
from mmcore.errors import MMCoreError
from mmcore.families.convert import convert
from mmcore.families.shards import opened, weight_files
from mmcore.families.showo2 import load_showo2
from tests.test_families import released  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick

NAME = "und_trans.layers.1.mlp.fc1.weight"


def as_released(folder: Path) -> dict[str, Tensor]:
    """Make of a folder with one safetensors file what is released: two pickled shards and an index, the tied text head
    in one piece of memory with the embedding; returns the tensors."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["showo.lm_head.weight"] = weights["showo.model.embed_tokens.weight"]
    path.unlink()
    names, shards = sorted(weights), {}
    for i in (1, 2):
        shards |= dict.fromkeys(names[i - 1 :: 2], f"pytorch_model-0000{i}-of-00002.bin")
    for file in set(shards.values()):
        torch.save({name: weights[name] for name in names if shards[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    return weights


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("showo2")
    released("showo2", folder, "model.safetensors")
    as_released(folder)
    return folder


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "copy")


def tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with opened(path) as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def test_it_is_the_same_model_in_shards(source: Path, tmp_path: Path) -> None:
    """Name by name and bit by bit; each file within the limit; what lies beside the weights comes along."""
    made = convert(source, tmp_path / "made", shard=200_000)
    before, after = tensors(source), tensors(tmp_path / "made")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert len(made) > 3 and all(sum(t.nbytes for t in load_file(p).values()) <= 200_000 for p in made)
    assert [p.name for p in made] == [f"model-{i:05d}-of-{len(made):05d}.safetensors" for i in range(1, len(made) + 1)]
    total = json.loads((tmp_path / "made" / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert total == sum(t.nbytes for t in after.values())
    assert (tmp_path / "made" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert not list((tmp_path / "made").glob("pytorch_model*"))
    old, new = load_showo2(source).state_dict(), load_showo2(tmp_path / "made").state_dict()
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_the_command(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other pickled weights become safetensors of their own; a folder that is there is left alone."""
    torch.save({"encoder.conv1.weight": torch.ones(3, 2)}, copy / "Wan2.1_VAE.pth")
    target = copy.parent / "made"
    assert main(["convert", str(copy), str(target)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: 0.00 GB in 1 safetensors files")
    assert torch.equal(load_file(target / "Wan2.1_VAE.safetensors")["encoder.conv1.weight"], torch.ones(3, 2))
    assert main(["convert", str(copy), str(target)]) == 2
    assert "is there already" in capsys.readouterr().err


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("broken", ["code", "numbers", "cut off"])
def test_what_is_not_tensors_is_refused_and_nothing_is_left(copy: Path, broken: str) -> None:
    path = copy / "pytorch_model-00002-of-00002.bin"
    if broken == "code":
        torch.save({"a": torch.zeros(1), "b": Evil(copy / "trap")}, path)
    elif broken == "numbers":
        torch.save({"a": torch.zeros(1), "step": 7}, path)
    else:
        path.write_bytes(path.read_bytes()[:3000])
    before = sorted(copy.parent.iterdir())
    with pytest.raises(MMCoreError, match=r"00002-of-00002\.bin: (cannot read the weights|tensors by name)"):
        convert(copy, copy.parent / "made")
    assert sorted(copy.parent.iterdir()) == before and not (copy / "trap").exists()


@pytest.mark.parametrize("name", ["../pytorch_model.bin", "/etc/passwd", "..", 7])
def test_an_index_names_only_what_lies_beside_it(copy: Path, name: object) -> None:
    (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(MMCoreError, match="not the name of a file beside it"):
        load_showo2(copy)


def test_a_folder_without_an_index(copy: Path) -> None:
    """Its files are known by their names; where there are none, that is said."""
    (copy / "pytorch_model.bin.index.json").unlink()
    assert len(weight_files(copy)) == 2
    for path in weight_files(copy):
        path.unlink()
    with pytest.raises(MMCoreError, match="no weights here"):
        load_showo2(copy)


def test_a_shard_that_is_missing_is_named(copy: Path) -> None:
    (copy / "pytorch_model-00001-of-00002.bin").unlink()
    with pytest.raises(MMCoreError, match=r"pytorch_model-00001-of-00002\.bin: missing"):
        load_showo2(copy)


@pytest.mark.parametrize("broken", ["missing", "unknown", "of another shape"])
def test_weights_that_do_not_fit_are_named(copy: Path, broken: str) -> None:
    for path in weight_files(copy):
        weights = torch.load(path, weights_only=True)
        if NAME not in weights:
            continue
        if broken == "missing":
            del weights[NAME]
        elif broken == "unknown":
            weights["und_trans.layers.3.mlp.fc1.weight"] = torch.zeros(48, 32)
        else:
            weights[NAME] = torch.zeros(32, 48)
        torch.save(weights, path)
    name = {"missing": NAME, "unknown": r"und_trans\.layers\.3\.mlp\.fc1\.weight"}
    expected = name.get(broken, rf"{NAME} is \(32, 48\), not \(48, 32\)")
    with pytest.raises(MMCoreError, match=f"1 {broken}: {expected}$"):
        load_showo2(copy)


def test_a_core_that_is_not_known(copy: Path) -> None:
    """Released folders say no more than the width; the two that there are, are known."""
    for name in ("llm_config", "siglip_vision_config", "diffusion_head_config"):
        (copy / f"{name}.json").unlink()
    with pytest.raises(MMCoreError, match=r"a core of width 64 is not known \(known are 1536, 3584\)"):
        load_showo2(copy)
