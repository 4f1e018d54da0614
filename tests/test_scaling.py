"""Laws that are known are found again from losses that follow them, and from runs' logs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from mmcore.cli import main
from mmcore.errors import MMCoreError
from mmcore.model import MMCoreModel
from mmcore.training.curves import COLOURS
from mmcore.training.recipe import load_recipe
from mmcore.training.scaling import Law, Points, fit
from mmcore.training.subjects import shape

pytestmark = pytest.mark.quick


def points(law: Law, noise: float = 0.0) -> Points:
    """Four sizes, ten lines each; the logarithm of each loss is off by some normal noise."""
    sizes, tokens = np.meshgrid([2e6, 8e6, 3e7, 1.2e8], np.geomspace(1e7, 1e10, 10))
    off = np.exp(noise * np.random.default_rng(0).normal(size=sizes.shape))
    return Points(sizes.ravel(), tokens.ravel(), (law(sizes, tokens) * off).ravel())


CHINCHILLA = Law(1.69, 406.4, 0.34, 410.7, 0.28)


@settings(max_examples=5, deadline=None)
@given(st.floats(0.05, 2), st.floats(0.2, 0.8), st.floats(0.2, 0.8), st.floats(0.3, 2), st.floats(0.3, 2))
def test_a_law_without_noise_is_found(floor: float, alpha: float, beta: float, of_n: float, of_d: float) -> None:
    """Exponents to 0.01, and the loss of a model four times as large on ten times the data to a thousandth."""
    law = Law(floor, of_n * 8e6**alpha, alpha, of_d * 3e8**beta, beta)
    found = fit(points(law))
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=0.01)
    assert float(found(5e8, 1e11)) == pytest.approx(float(law(5e8, 1e11)), rel=1e-3)


def test_noise_and_a_run_that_went_wrong_do_little() -> None:
    """Half a percent of noise, and one loss that is twice what it should be."""
    drawn = points(CHINCHILLA, 0.005)
    drawn.losses[7] *= 2
    found = fit(drawn)
    assert (found.alpha, found.beta) == pytest.approx((0.34, 0.28), abs=0.04)
    assert float(found(5e8, 1e11)) == pytest.approx(float(CHINCHILLA(5e8, 1e11)), rel=0.02)
    assert found.share == pytest.approx(0.28 / 0.62, abs=0.05)
    clean = Points(*(np.delete(x, 7) for x in (drawn.sizes, drawn.tokens, drawn.losses)))
    assert found.error(clean) < 0.01


def run(folder: Path, preset: str, law: Law, key: str) -> int:
    """A run's folder whose log follows a law while rates are constant, and not elsewhere; its parameters."""
    recipe = load_recipe("debug", [f"preset={preset}", "steps=100", "optimizer.warmup=20", "optimizer.cooldown=20"])
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe)))
    size = sum(p.numel() for p in MMCoreModel(shape(recipe)).parameters())
    lines: list[dict[str, float]] = []
    for step in range(10, 101, 10):
        tokens = 1e5 * 2 ** (step / 10)
        loss = float(law(size, tokens)) if 20 < step <= 80 else 99.0
        lines += [{"step": step, "other": 1.0, "tokens": tokens}, {"step": step, key: loss, "tokens": tokens}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return size


def test_runs_are_read_fitted_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = Law(0.5, 30.0, 0.4, 200.0, 0.45)
    sizes = [run(tmp_path / preset, preset, law, "valid_flow") for preset in ("debug", "tiny", "small")]
    folders = [str(tmp_path / preset) for preset in ("debug", "tiny", "small")]
    out = tmp_path / "curve.png"
    assert main(["scaling", *folders, "--loss", "valid_flow", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"] == 18 and told["error"] < 1e-3, "lines where rates rise or fall are left out"
    found = Law(*(told[field.name] for field in dataclasses.fields(Law)))
    assert found.beta == pytest.approx(0.45, abs=0.01)
    assert float(found(sizes[1], 1e8)) == pytest.approx(float(law(sizes[1], 1e8)), rel=5e-3)
    with Image.open(out) as picture:
        drawn = {pixel for _, pixel in picture.getcolors(10**6) or ()}
        assert picture.format == "PNG" and {ImageColor.getrgb(colour) for colour in COLOURS[:3]} <= drawn
    assert main(["scaling", *folders, "--loss", "valid_flow", "--out", str(out)]) == 0
    assert "/ D^0.45" in capsys.readouterr().out
    assert main(["scaling", folders[0], "--loss", "valid_flow", "--out", str(out)]) == 2
    assert "6 points of 1 sizes" in capsys.readouterr().err
    assert main(["scaling", *folders, "--loss", "valid_text", "--out", str(tmp_path / "none.png")]) == 2
    assert "no line of its log has valid_text" in capsys.readouterr().err
    assert main(["scaling", str(tmp_path), "--out", str(tmp_path / "none.png")]) == 2
    assert "no run here" in capsys.readouterr().err and not (tmp_path / "none.png").exists()


def test_too_few_points() -> None:
    few = points(CHINCHILLA)
    with pytest.raises(MMCoreError, match="4 points of 4 sizes"):
        fit(Points(few.sizes[:4], few.tokens[:4], few.losses[:4]))
