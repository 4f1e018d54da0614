"""Who may import whom, the `tokenizers` trap, and what a wheel holds."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

LAYERS = {
    0: ("mmcore.document", "mmcore.config", "mmcore.errors", "mmcore.memory", "mmcore.replies"),
    1: (
        *(
            f"mmcore.{name}"
            for name in ("sequence", "packing", "attention", "layers", "pyramid", "core", "decoder", "model")
        ),
        *(f"mmcore.{name}" for name in ("cache", "flow", "generate", "backbone", "translator")),
        *(f"mmcore.{name}" for name in ("text_core", "delta", "chains", "linear", "lane", "eye", "quantize")),
        "mmcore.tiles",
    ),
    2: ("mmcore.autoencoder", "mmcore.tokenizers", "mmcore.decoders", "mmcore.families"),
    3: (
        "mmcore.notes",
        "mmcore.parts",
        "mmcore.native",
        "mmcore.chat",
        "mmcore.pipeline",
        "mmcore.loading",
        "mmcore.starting",
    ),
    4: (
        "mmcore.training",
        "mmcore.demo",
        "mmcore.commands",
        "mmcore.data_commands",
        "mmcore.training_commands",
        "mmcore.cli",
    ),
}
IGNORANT = (
    ("mmcore.tokenizers", "mmcore.decoders"),
    ("mmcore.tokenizers", "mmcore.families"),
    ("mmcore.decoders", "mmcore.families"),
    ("mmcore.training", "mmcore.demo"),
)
HOMES = {
    "av": {"mmcore.tokenizers.media", "mmcore.decoders.media"},
    "deepspeed": {"mmcore.training.engine"},
    "flash_attn": {"mmcore.attention"},
    "webdataset": {"mmcore.training.data"},
    "sentencepiece": {"mmcore.tokenizers.text"},
    "diffusers": {"mmcore.autoencoder"},
    "accelerate": {"mmcore.families.spread"},
    "torch.utils.tensorboard": {"mmcore.training.log"},
}
UPWARD = {("mmcore.document", "mmcore.decoders.media"), ("mmcore.document", "mmcore.tokenizers.media")}
"""`Clip.save` and `Clip.open` reach up, inside the call: a medium that could not be opened would be no use."""


def modules(root: Path) -> dict[str, Path]:
    found = {f"mmcore.{p.stem}": p for p in (root / "mmcore").glob("*.py") if p.stem not in ("__init__", "__main__")}
    for folder in ("tokenizers", "decoders", "training", "demo"):
        for path in (root / folder).rglob("*.py"):
            found[".".join(("mmcore", *path.relative_to(root).with_suffix("").parts))] = path
    for path in (root / "mmcore" / "families").glob("*.py"):
        found[f"mmcore.families.{path.stem}"] = path
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def layer(name: str) -> int:
    found = [n for n, members in LAYERS.items() if any(name == m or name.startswith(f"{m}.") for m in members)]
    assert found, f"{name} has no layer: give it one in LAYERS"
    return found[0]


def test_imports_point_down(root: Path) -> None:
    for name, path in modules(root).items():
        for other in imports(path):
            if other.startswith("mmcore.") and (name, other) not in UPWARD:
                assert layer(other) <= layer(name), f"{name} imports {other}, which lies above it"
                for pair in IGNORANT:
                    sides = {p for p in pair for n in (name, other) if n.startswith(p)}
                    assert len(sides) < 2, f"{name} and {other} are to be ignorant of each other"


def test_each_library_has_one_home(root: Path) -> None:
    for name, path in modules(root).items():
        for other in imports(path):
            for library, homes in HOMES.items():
                assert not f"{other}.".startswith(f"{library}.") or name in homes, f"{name} imports {library}"
            assert other.split(".")[0] != "gradio" or name.startswith("mmcore.demo"), f"{name} imports gradio"


def test_files_are_short(root: Path) -> None:
    long = {name: n for name, path in modules(root).items() if (n := len(path.read_text().splitlines())) > 350}
    assert not long


def test_the_tokenizers_folder_shadows_nothing(root: Path) -> None:
    code = "import tokenizers, mmcore.tokenizers.text as ours; print(tokenizers.__file__); print(ours.__file__)"
    lines = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "site-packages" in lines[0]
    assert Path(lines[1]).resolve() == root.resolve() / "tokenizers" / "text.py"


def test_importing_mmcore_loads_nothing_heavy(root: Path) -> None:
    code = "import sys, mmcore; print(sorted({'torch', 'transformers', 'av', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wheel_holds_only_mmcore(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("build")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(root / "build")
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"mmcore"}
    for needed in (
        "tokenizers/text.py",
        "training/world/scene.py",
        "training/recipes/tiny.toml",
        "training/world/photographs/coffee.webp",
        "bundled/config.json",
        "demo/page.css",
        "demo/page.js",
    ):
        assert f"mmcore/{needed}" in names
