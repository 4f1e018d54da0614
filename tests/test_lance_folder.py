"""Lance's released folders: shards one at a time, weights and files that do not fit named in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmcore.errors import MMCoreError
from mmcore.families.lance import TOWER, Lance, load_lance
from mmcore.families.shards import shards
from tests.test_lance import write_lance  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lance") / "model"
    write_lance(made)
    return made


@pytest.fixture(scope="module")
def lance(folder: Path) -> Lance:
    return load_lance(folder)


def test_the_weights_of_a_model_come_before_averaged_ones(tmp_path: Path) -> None:
    for name in ("ema.safetensors", "model.safetensors"):
        (tmp_path / name).touch()
        assert shards(tmp_path, ("model.safetensors", "ema.safetensors")) == [tmp_path / name]


@pytest.mark.parametrize("broken", ["missing", "unknown", "of another shape"])
def test_weights_that_do_not_fit_are_named(folder: Path, tmp_path: Path, broken: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "ema.safetensors")
    name = "language_model.model.layers.1.mlp_moe_gen.up_proj.weight"
    if broken == "missing":
        del weights[name]
    elif broken == "unknown":
        weights[(name := "connector.fc1.weight")] = torch.zeros(2)
    else:
        weights[name] = torch.zeros(31)
        name += r" is \(31,\), not \(112, 64\)"
    save_file(weights, copy / "ema.safetensors")
    with pytest.raises(MMCoreError, match=f"1 {broken}: {name}$"):
        load_lance(copy)


def split(folder: Path, target: Path) -> None:
    """The weights in two shards with an index, and the tower in a folder beside the model's."""
    weights = load_file(folder / "ema.safetensors")
    tower = {k.removeprefix("vit_model."): v for k, v in weights.items() if k.startswith("vit_model.")}
    rest = {k: v for k, v in weights.items() if not k.startswith(("vit_model.", "latent_pos_embed."))}
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    where = {k: names[i % 2] for i, k in enumerate(rest)}
    target.mkdir()
    for name in names:
        save_file({k: v for k, v in rest.items() if where[k] == name}, target / name)
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    shutil.copy(folder / "llm_config.json", target)
    if tower:
        (target.parent / TOWER).mkdir()
        save_file(tower, target.parent / TOWER / "vit.safetensors")
    else:
        shutil.copytree(folder / TOWER, target.parent / TOWER)


def test_shards_are_read_one_at_a_time(
    folder: Path, lance: Lance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From shards and a tower beside the model the same weights come, with never more than one file open."""
    from mmcore.families import shards as files

    split(folder, tmp_path / "model")
    real, now, most = files.safe_open, [0], [0]

    class Counted:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.inner = real(*args, **kwargs)

        def __enter__(self) -> object:
            now[0] += 1
            most[0] = max(most[0], now[0])
            return self.inner.__enter__()

        def __exit__(self, *args: object) -> None:
            now[0] -= 1
            self.inner.__exit__(*args)

    monkeypatch.setattr(files, "safe_open", Counted)
    loaded = load_lance(tmp_path / "model")
    assert most == [1]
    for name, tensor in lance.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    clip = torch.randn(3, 2, 56, 84)
    assert torch.equal(loaded.tower(clip), lance.tower(clip))


def test_an_index_leads_nowhere_else(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../ema.safetensors"}}))
    with pytest.raises(MMCoreError, match="is not the name of a file beside it"):
        load_lance(copy)


@pytest.mark.parametrize("lacking", ["ema.safetensors", "llm_config.json", "rope_scaling"])
def test_a_folder_that_lacks_something_is_one_clear_line(folder: Path, tmp_path: Path, lacking: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    if lacking == "rope_scaling":
        config = json.loads((copy / "llm_config.json").read_text())
        del config[lacking]
        (copy / "llm_config.json").write_text(json.dumps(config))
    else:
        (copy / lacking).unlink()
    with pytest.raises(MMCoreError, match=r"no model\.safetensors or ema|cannot read|incomplete: KeyError"):
        load_lance(copy)
