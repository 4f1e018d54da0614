"""A run may be killed at any moment, as often as you like. Slow, so only by name: pytest -m slow tests/test_kills.py"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 20


@pytest.mark.slow
def test_twenty_random_kills_change_no_loss(root: Path, tmp_path: Path) -> None:
    """To the bit, held-out losses included; and the kills came at many different steps."""
    done = subprocess.run(
        [sys.executable, "-P", str(root / "tests" / "kill_run.py"), str(tmp_path / "runs"), str(KILLS), "0"],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == KILLS and len(set(told["steps reached when killed"])) > 5
