"""A run in many processes is the run in one: losses, averages, deaths and what comes after them.

`engine_run.py` is what each process runs; six launches in all, each with several runs, are judged by what they wrote.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmcore.cli import main
from mmcore.document import Document, Image, Text
from mmcore.errors import MMCoreError
from mmcore.loading import load
from mmcore.model import MMCoreModel, flow_losses
from mmcore.training import data
from mmcore.training.checkpoints import Shards
from mmcore.training.data import DataState, Layout, PackedBatches, step_generator
from mmcore.training.log import read_log
from mmcore.training.plain import Engine
from mmcore.training.ranks import Ranks, join
from mmcore.training.recipe import Driver, Recipe, load_recipe
from mmcore.training.shards import Sample, write_shards
from mmcore.training.train import train, train_step
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    job(tmp_path / "run")
    return tmp_path / "run"


def small(**engine: object) -> Recipe:
    changes = ["precision='fp32'", "log_every=1", "save_every=2", "steps=4", "layout.rows=1", "layout.waiting=3"]
    return replace(load_recipe("debug", changes), engine=Driver(**engine))  # type: ignore[arg-type]


def still(index: int) -> Document:
    frames = np.full((1, 32, 32, 3), index % 256, np.uint8)
    return Document((Text("a gray " * (1 + index % 4)), Image(frames, learn=True)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["engine.kind=jax"], "kind must be torch or deepspeed"),
        (["engine.zero=4"], "zero must be 0, 1, 2 or 3"),
        (["engine.zero=2"], "set engine.kind=deepspeed"),
        (["engine.batches=0"], "batches must be at least 1"),
        (["engine.offload=true"], "needs engine.zero=1, 2 or 3"),
        (["engine.kind=deepspeed", "engine.zero=1"], "Muon needs whole ones.*set optimizer.muon=0"),
    ],
)
def test_wrong_engines_are_one_clear_line(changes: list[str], message: str) -> None:
    with pytest.raises(MMCoreError, match=message):
        load_recipe("debug", changes)


def test_ranks_that_do_not_fit_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MMCoreError, match=r"2 were started; set engine\.kind=deepspeed"):
        join(Driver())
    with pytest.raises(MMCoreError, match="batches=3 cannot be dealt out to 2 ranks"):
        join(Driver("deepspeed", batches=3))


def test_a_step_averages_over_tokens_not_over_batches(folder: Path) -> None:
    """Two batches of unequal size: losses and gradient are those of the sums, divided by all tokens."""
    recipe = small(batches=2)
    engine = train(replace(recipe, steps=0), folder, still, workers=0)
    streams = [PackedBatches(still, folder / "tokenizer.model", (4, 16, 16), Layout(1, waiting=n)) for n in (3, 9)]
    batches = [next(iter(stream))[0] for stream in streams]
    found = [flow_losses(engine.model, b, step_generator(0, i, engine.device)) for i, b in enumerate(batches)]
    tokens = [(losses.text_tokens, losses.flow_tokens) for losses in found]
    assert len(set(tokens)) == 2, "or it would show nothing"
    text = torch.stack([x.text * x.text_tokens for x in found]).sum() / sum(n for n, _ in tokens)
    flow = torch.stack([x.flow * x.flow_tokens for x in found]).sum() / sum(n for _, n in tokens)
    total = torch.autograd.grad(text + recipe.flow_weight * flow, list(engine.model.parameters()), allow_unused=True)
    norm = torch.stack([g.norm() for g in total if g is not None]).norm()
    report = train_step(engine, batches)
    expected = {"text": float(text), "flow": float(flow), "norm": float(norm)}
    assert report == pytest.approx(expected, rel=1e-4)


def test_streams_share_the_documents_and_none_twice(folder: Path) -> None:
    seen: list[list[int]] = [[], [], []]

    def noted(stream: int) -> Callable[[int], Document]:
        return lambda index: (seen[stream].append(index), still(index))[1]

    for s in range(3):
        path, layout = folder / "tokenizer.model", Layout(rows=1, waiting=4)
        batches = iter(PackedBatches(noted(s), path, (4, 16, 16), layout, DataState(s), stride=3))
        _, (_, state) = next(batches), next(batches)
        assert state.next == 3 * len(seen[s]) + s
    together = sorted(i for indices in seen for i in indices)
    assert len(set(together)) == len(together) and together[:9] == list(range(9))


def broken_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Engine.losses

    def broken(engine: Engine, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        text, flow = losses(engine, *given)  # type: ignore[arg-type]
        return text * (float("nan") if engine.done + 1 == step else 1), flow

    monkeypatch.setattr(Engine, "losses", broken)


def test_what_is_not_finite_stops_the_run_with_its_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(3, monkeypatch)
    with pytest.raises(MMCoreError, match="step 3: text is nan, norm is nan; lower"):
        train(small(), folder, still, workers=0)
    assert json.loads((folder / "checkpoint" / "engine.json").read_text())["done"] == 2


def test_or_its_step_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(3, monkeypatch)
    engine = train(small(skip=True), folder, still, workers=0)
    assert all(p.isfinite().all() for p in engine.model.parameters()) and int(engine.ema.n_averaged) == 3
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [("text" in line, line.get("skipped")) for line in lines] == [(True, None)] * 2 + [(False, 1), (True, 1)]


@pytest.mark.parametrize("ends", [lambda: os._exit(1), threading.Event().wait], ids=["dies", "hangs"])
def test_a_data_worker_that_fails_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ends: Callable[[], object]
) -> None:
    monkeypatch.setattr(data, "PATIENCE", 2)
    parent = os.getpid()

    def source(index: int) -> Document:
        if index == 4:
            assert os.getpid() != parent
            ends()
        return still(index)

    with pytest.raises(MMCoreError, match=r"step \d: no batch came: .*start it again"):
        train(small(), folder, source)


def test_a_full_disk_is_one_clear_line_and_the_last_checkpoint_stays(folder: Path) -> None:
    train(replace(small(), steps=2), folder, still, workers=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MMCoreError, match=r"checkpoint: cannot write at step 4: .*make room"):
            train(small(), folder, still, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (folder / "checkpoint.part").exists()
    engine = train(small(), folder, still, workers=0)
    assert engine.done == 4


def test_a_run_goes_on_with_the_same_batches_only(folder: Path) -> None:
    train(replace(small(), steps=2), folder, still, workers=0)
    with pytest.raises(MMCoreError, match=r"written with engine\.batches=1; go on with the same, not 2"):
        train(small(batches=2), folder, still, workers=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_any_stretch_is_read_from_any_cut(
    tmp_path_factory: pytest.TempPathFactory, cut: list[int], drawn: st.DataObject
) -> None:
    """A vector cut in pieces, a file each, is read at any place; a missing file is noticed."""
    where = tmp_path_factory.mktemp("cut")
    values, starts = torch.arange(sum(cut), dtype=torch.float32), np.cumsum([0, *cut])
    for i, (start, length) in enumerate(zip(starts, cut, strict=False)):
        save_file({f"ema/a.b/{start}": values[start : start + length].clone()}, where / f"{i}.safetensors")
    a, b = sorted(drawn.draw(st.tuples(st.integers(0, sum(cut)), st.integers(0, sum(cut)))))
    with Shards(where) as shards:
        assert torch.equal(shards.read("ema/a.b", a, b), values[a:b])
    gone = drawn.draw(st.integers(0, len(cut) - 1))
    (where / f"{gone}.safetensors").unlink()
    with Shards(where) as shards, pytest.raises(MMCoreError, match="not all there"):
        shards.read("ema/a.b", 0, sum(cut))


def test_one_rank_adds_up_alone() -> None:
    assert Ranks().sum(1, 2.5) == (1, 2.5) and float(Ranks().add(torch.ones(()))) == 1
