"""Speed and memory of a model as people meet it: each figure from a fresh process, the best of a few tries.

mmcore bench
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

import mmcore
from mmcore.errors import MMCoreError
from mmcore.training.meter import peak_megabytes
from mmcore.training.world.render import render
from mmcore.training.world.sampling import sample_scene

TRIES = 3


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: what was measured.
        value: for people, with its unit.
        number: for programs: seconds, megabytes, or a ratio.
    """

    name: str
    value: str
    number: float


def seconds(name: str, number: float) -> Row:
    """A row of time."""
    return Row(name, f"{number:.3f} s", number)


def best(run: Callable[[], object], tries: int = TRIES) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    run()
    times: list[float] = []
    for _ in range(tries):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def fresh(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in a new process; the JSON that it prints last."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MMCoreError(f"{module} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def bench(source: str | None = None) -> list[Row]:
    """Measure loading, reading, drawing, filming, editing, memory, the world's renderer, the tiny recipe's steps, and
    what a cache saves in a long conversation.

    Args:
        source: a model folder or hub id; None is the bundled model.
    """
    found = fresh("mmcore.training.bench", *([source] if source else []))
    peak = found.pop("peak memory")
    rows = [seconds(name, number) for name, number in found.items()]
    memory = Row("peak memory of the model", f"{peak:.0f} MB", peak)
    light = seconds("import mmcore, after torch", min(import_seconds() for _ in range(TRIES)))
    page = [seconds(name, number) for name, number in page_seconds(source).items()] if find_spec("gradio") else []
    threads = Row("threads", str(torch.get_num_threads()), 0.0)
    training = training_rows(fresh("mmcore.training.bench_train"))
    history = history_rows(fresh("mmcore.training.bench_history"))
    return [light, *rows, *page, memory, *training, *history, threads]


def training_rows(line: dict[str, float]) -> list[Row]:
    """What a line of a run's log says of speed and of what is lost."""
    return [
        Row("tiny recipe: tokens a second", f"{line['tokens_per_s']:.0f}", line["tokens_per_s"]),
        Row("tiny recipe: arithmetic", f"{line['tflops'] * 1e3:.0f} GFLOP/s", line["tflops"] * 1e3),
        Row("tiny recipe: data wait", f"{line['data_wait']:.1%} of the time", line["data_wait"]),
        Row("tiny recipe: padding", f"{line['padding']:.1%} of the positions", line["padding"]),
        Row("tiny recipe: peak memory", f"{line['memory_mb']:.0f} MB", line["memory_mb"]),
    ]


def history_rows(found: dict[str, float]) -> list[Row]:
    """What it takes to draw behind ten pictures (see `bench_history`)."""
    ways = {"with the cache": "cached", "all again for each prediction": "again"}
    rows = [
        Row(f"drawing behind ten pictures, {way}", f"{found[f'{key} seconds']:.1f} s", found[f"{key} seconds"])
        for way, key in ways.items()
    ]
    work, time = (found[f"again {of}"] / found[f"cached {of}"] for of in ("work", "seconds"))
    both = f"{found['again work']:.0f} to {found['cached work']:.0f} GFLOP"
    return [*rows, Row("arithmetic saved", f"{work:.2f} x: {both}", work), Row("time saved", f"{time:.2f} x", time)]


def import_seconds() -> float:
    """What `import mmcore` takes in a new process that has torch already."""
    code = "import time, torch; began = time.perf_counter(); import mmcore; print(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def page_seconds(source: str | None) -> dict[str, float]:
    """How soon `mmcore demo` has its page ready, from the command on, and how soon a question's first word comes."""
    command = [sys.executable, "-u", "-m", "mmcore", "demo", *(["--model", source] if source else [])]
    body = {"messages": [{"role": "user", "content": "what can you do?"}], "modalities": ["text"], "stream": True}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = next((word for word in server.stdout.readline().split() if word.startswith("http")), None)
            if address is None:
                raise MMCoreError("`mmcore demo` does not open its page; run it to see why")
            ready = time.perf_counter() - began
            request = urllib.request.Request(
                f"{address}v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            return {"page ready": ready, "first word on the page": best(lambda: first_word(request))}
        finally:
            server.terminate()


def first_word(request: urllib.request.Request) -> None:
    """Wait for the first event of a stream that holds words."""
    with urllib.request.urlopen(request) as events:
        next(line for line in events if b'"content": "' in line and b'"content": ""' not in line)


def main(source: str | None) -> dict[str, float]:
    """What the new process does."""
    began = time.perf_counter()
    model = mmcore.load(source)
    found = {"load": time.perf_counter() - began}
    clip = model.generate_video("a red ball slides to the left")
    found["caption of a clip"] = best(lambda: model.caption(clip))
    found["image"] = best(lambda: model.generate_image("a red ball"))
    found["clip of 16 frames"] = best(lambda: model.generate_video("a red ball slides to the left"))
    found["edit of a clip"] = best(lambda: model.edit(clip, "make the ball blue"))
    found["peak memory"] = peak_megabytes()
    scenes = [sample_scene(np.random.default_rng(i), moving=True) for i in range(20)]
    found["world: one clip of 16 frames"] = best(lambda: [render(scene) for scene in scenes]) / len(scenes)
    found["world: one still"] = best(lambda: [render(scene, 1) for scene in scenes]) / len(scenes)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1] if len(sys.argv) > 1 else None)))
