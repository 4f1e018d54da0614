"""A run in many processes is the run in one: losses, averages, deaths and what comes after them.

`engine_run.py` is what each process runs; six launches in all, each with several runs, are judged by what they wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmcore.cli import main
from mmcore.loading import load
from mmcore.model import MMCoreModel
from mmcore.training.log import read_log
from mmcore.training.shards import Sample, write_shards
from tests.engine_run import documents

HERE = Path(__file__).parent
TOLERANCE = 1e-4
"""Relative, of losses and norms: ranks add float32 numbers in another order."""

Job = dict[str, object]


def job(folder: Path, *changes: str, **more: object) -> Job:
    """A run of four steps of two batches, in a folder that has the bundled tokenizer."""
    folder.mkdir(exist_ok=True)
    if not (folder / "tokenizer.model").exists():
        shutil.copy(HERE.parent / "mmcore" / "bundled" / "tokenizer.model", folder)
    return {"folder": str(folder), "changes": ["steps=4", "engine.batches=2", *changes], **more}


def sharded(zero: int) -> tuple[str, ...]:
    return "engine.kind=deepspeed", f"engine.zero={zero}", "optimizer.muon=0"


SCORED = ("data.world=1", "mixture=reading", "layout.room=[100, 40, 24]", "ruler.every=2", "ruler.documents=1")


def launch(jobs: list[Job], where: Path, *launchers: list[str], dies: bool = False) -> None:
    """Run jobs by one or several launchers at once (nodes), and wait for them."""
    path = where / f"jobs-{len(list(where.glob('jobs-*')))}.json"
    path.write_text(json.dumps(jobs))
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(HERE.parent)}
    started = [
        subprocess.Popen(
            [sys.executable, "-P", *launcher, str(HERE / "engine_run.py"), str(path)],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=(where / f"{path.stem}-{n}.err").open("w"),
        )
        for n, launcher in enumerate(launchers or ([],))
    ]
    try:
        codes = [process.wait(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert any(codes) == dies, (where / f"{path.stem}-0.err").read_text()[-3000:]


def torchrun(port: int, nodes: int = 1, node: int = 0, ranks: int = 2) -> list[str]:
    """A launcher on loopback."""
    place = ["--nnodes", str(nodes), "--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *place]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def numbers(folder: Path) -> np.ndarray:
    """(steps, 4) step, text loss, flow loss and norm of a run's log."""
    return np.array(
        [[line[k] for k in ("step", "text", "flow", "norm")] for line in read_log(folder) if "text" in line]
    )


def held_out(folder: Path) -> np.ndarray:
    """(2, 3) step, text loss and flow loss on held-out documents, twice in a run."""
    lines = [line for line in read_log(folder) if "valid_text" in line]
    return np.array([[line[k] for k in ("step", "valid_text", "valid_flow")] for line in lines])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Documents on disk, and others to validate on: changes to a recipe."""
    where = tmp_path_factory.mktemp("shards")
    for name, first, count in (("train", 0, 20), ("held", 100, 5)):
        write_shards((Sample.of(documents(first + i)) for i in range(count)), where / name, 8000)
    assert len(list((where / "train").glob("*.tar"))) > 1
    return f"data={where / 'train'}", f"validation.data={where / 'held'}"


@pytest.fixture(scope="module")
def one(shards: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in one process, by torch and by DeepSpeed; the last is killed in its fourth step."""
    pytest.importorskip("deepspeed")
    where = tmp_path_factory.mktemp("one")
    jobs = [job(where / "plain", "optimizer.muon=0"), job(where / "muon")]
    jobs += [job(where / f"zero{zero}", *sharded(zero)) for zero in range(4)]
    jobs += [job(where / f"together{zero}", *sharded(zero), "engine.at_once=2") for zero in (0, 2)]
    jobs += [job(where / "shards", "optimizer.muon=0", *shards)]
    jobs += [job(where / "scored", "optimizer.muon=0", *SCORED)]
    jobs += [job(where / "killed", *sharded(1), die=(0, 4, "step"))]
    launch(jobs, where, dies=True)
    return where


@pytest.fixture(scope="module")
def two(one: Path, shards: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two ranks; the first goes on where one rank was killed, in the last one rank is killed while it saves."""
    where = tmp_path_factory.mktemp("two")
    shutil.copytree(one / "killed", where / "grown")
    jobs = [job(where / "grown", *sharded(1))]
    jobs += [job(where / f"zero{zero}", *sharded(zero), average=True) for zero in range(4)]
    jobs += [job(where / "shards", *sharded(2), *shards)]
    jobs += [job(where / "scored", *sharded(3), *SCORED)]
    jobs += [job(where / "offload", *sharded(2), "engine.offload=true")]
    jobs += [job(where / "muon", "engine.kind=deepspeed", "engine.checkpointing=true")]
    jobs += [job(where / "killed", *sharded(3), die=(1, 4, "saving"))]
    launch(jobs, where, torchrun(free_port()), dies=True)
    return where


@pytest.mark.parametrize("zero", [0, 2])
def test_batches_that_go_through_the_model_together_are_the_same_step(one: Path, zero: int) -> None:
    np.testing.assert_allclose(numbers(one / f"together{zero}"), numbers(one / "plain"), rtol=TOLERANCE, atol=2e-5)


@pytest.mark.parametrize("zero", range(4))
def test_deepspeed_equals_torch_at_one_and_two_ranks(one: Path, two: Path, zero: int) -> None:
    plain = numbers(one / "plain")
    assert len(plain) == 4
    for folder in (one, two):
        np.testing.assert_allclose(numbers(folder / f"zero{zero}"), plain, rtol=TOLERANCE, atol=2e-5)


@pytest.mark.parametrize("zero", range(4))
def test_held_out_losses_are_the_same_on_any_ranks(one: Path, two: Path, zero: int) -> None:
    plain = held_out(one / "plain")
    assert plain[:, 0].tolist() == [2, 4] and abs(plain[0] - plain[1])[1:].min() > 5e-4
    for folder in (one, two):
        np.testing.assert_allclose(held_out(folder / f"zero{zero}"), plain, rtol=TOLERANCE, atol=2e-5)


def test_two_ranks_on_shards_come_to_the_validation_loss_of_one_process(one: Path, two: Path) -> None:
    """DeepSpeed with ZeRO 2 at two ranks, and plain torch, from shards on disk: within 1e-4."""
    for read in (numbers, held_out):
        np.testing.assert_allclose(read(two / "shards"), read(one / "shards"), rtol=TOLERANCE, atol=2e-5)
    assert abs(held_out(one / "shards") - held_out(one / "plain"))[:, 1:].min() > 1e-3, "other documents"


def test_one_of_two_ranks_scores_and_the_losses_are_those_of_one_process(one: Path, two: Path) -> None:
    """The average is gathered from both ranks (ZeRO 3); each time there is one line of scores, the same."""
    np.testing.assert_allclose(numbers(two / "scored"), numbers(one / "scored"), rtol=TOLERANCE, atol=2e-5)
    scores = [[line for line in read_log(where / "scored") if "right/words" in line] for where in (one, two)]
    assert scores[0] == scores[1] and [line["step"] for line in scores[0]] == [2, 4]


def test_muon_works_where_nothing_is_split_and_blocks_may_run_twice(one: Path, two: Path) -> None:
    plain = numbers(one / "muon")
    assert abs(plain - numbers(one / "plain"))[1:, 1].max() > 0.01, "Muon is not AdamW"
    np.testing.assert_allclose(numbers(two / "muon"), plain, rtol=TOLERANCE, atol=2e-5)


def test_optimizer_state_in_the_processors_memory_changes_nothing(one: Path, two: Path) -> None:
    np.testing.assert_allclose(numbers(two / "offload"), numbers(one / "plain"), rtol=TOLERANCE, atol=2e-5)


def test_two_nodes_on_loopback(one: Path, tmp_path: Path) -> None:
    port = free_port()
    jobs = [job(tmp_path / "nodes", *sharded(2))]
    launch(jobs, tmp_path, *(torchrun(port, nodes=2, node=node, ranks=1) for node in range(2)))
    np.testing.assert_allclose(numbers(tmp_path / "nodes"), numbers(one / "plain"), rtol=TOLERANCE, atol=2e-5)


def test_killed_runs_go_on_as_if_they_had_not_been(one: Path, two: Path, tmp_path: Path) -> None:
    """Killed in a step, while saving, and between two renamings; and with other numbers of ranks than before."""
    np.testing.assert_allclose(numbers(two / "grown"), numbers(one / "plain"), rtol=TOLERANCE, atol=2e-5)
    for place in ("saving", "renaming"):
        launch([job(tmp_path / place, "optimizer.muon=0", die=(0, 4, place))], tmp_path, dies=True)
    assert json.loads((tmp_path / "saving" / "checkpoint" / "engine.json").read_text())["done"] == 2
    assert (tmp_path / "saving" / "checkpoint.part").exists()
    assert not (tmp_path / "renaming" / "checkpoint").exists()
    assert json.loads((two / "killed" / "checkpoint" / "engine.json").read_text())["done"] == 2
    for name, zero in (("same", 3), ("other", 2)):
        shutil.copytree(two / "killed", tmp_path / name)
        assert len(list((tmp_path / name / "checkpoint" / "shards").glob("*.safetensors"))) == 2, f"for {zero}"
    jobs = [job(tmp_path / place, "optimizer.muon=0") for place in ("saving", "renaming")]
    jobs += [job(tmp_path / "same", *sharded(3)), job(tmp_path / "other", *sharded(2))]
    launch(jobs, tmp_path)
    plain = numbers(one / "plain")
    for place in ("saving", "renaming"):
        np.testing.assert_array_equal(numbers(tmp_path / place), plain)
    for name in ("same", "other"):
        np.testing.assert_allclose(numbers(tmp_path / name), plain, rtol=TOLERANCE, atol=2e-5)
    whole = load_file(one / "plain" / "checkpoint" / "ema" / "model.safetensors")
    again = load_file(tmp_path / "renaming" / "checkpoint" / "ema" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_export_gives_the_average_whichever_engine_kept_it(one: Path, two: Path, tmp_path: Path) -> None:
    expected = MMCoreModel.from_pretrained(one / "plain" / "checkpoint" / "ema")
    for run in (one / "plain", two / "zero0", two / "zero1", two / "zero3"):
        out = tmp_path / f"{run.parent.name}-{run.name}"
        assert main(["export", str(run), str(out)]) == 0
        for (name, a), b in zip(expected.named_parameters(), load(out, "cpu").model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4, msg=name)
    gathered = load_file(two / "zero3" / "averaged" / "model.safetensors")
    exported = load(tmp_path / f"{two.name}-zero3", "cpu").model.state_dict()
    assert all(torch.equal(gathered[name], exported[name]) for name in exported)
    assert main(["export", str(one / "plain"), str(out)]) == 2, "something is there already"
    assert main(["export", str(tmp_path), str(tmp_path / "none")]) == 2
