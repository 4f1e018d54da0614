"""Every code block of the README runs, as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
SETUP = [code for kind, code in BLOCKS if kind == "sh" and code.startswith("pip install")]
SHELL = [code for kind, code in BLOCKS if kind == "sh" and code not in SETUP]
PYTHON = [code for kind, code in BLOCKS if kind == "python"]


@pytest.mark.quick
def test_two_commands_set_everything_up() -> None:
    """`.ci/run` executes them; here, that they are two, come first, and name the build of torch."""
    assert [code for _, code in BLOCKS[:2]] == SETUP
    assert all(len(code.splitlines()) == 1 and "torch==" in code for code in SETUP)
    assert "pytest" in SETUP[1] and "mmcore generate" in SETUP[0]
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks(code: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(code)
    run([sys.executable, "block.py"], tmp_path)


@pytest.mark.parametrize("code", SHELL, ids=range(len(SHELL)))
def test_shell_blocks(code: str, tmp_path: Path) -> None:
    script = f'set -euo pipefail\nmmcore() {{ "{sys.executable}" -m mmcore "$@"; }}\n{code}'
    run(["bash", "-c", script], tmp_path)
    for name in re.findall(r"(?:-o|--out) (\S+)", code):
        assert (tmp_path / name).stat().st_size > 0


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
