"""What the commands about training do, from a first model to its scores: each is a thin view on `mmcore.training`.

from mmcore.cli import main

main(["plan", "tiny", "--gpus", "8"])
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmcore.commands import loaded, say
from mmcore.errors import MMCoreError


def init(options: argparse.Namespace) -> None:
    """mmcore init"""
    from mmcore.starting import start

    size = (options.frames, options.height, options.width)
    start(options.core, options.vae, Path(options.output), size, options.fps, options.eye)
    print(options.output)


def train(options: argparse.Namespace) -> None:
    """mmcore train"""
    from mmcore.training.recipe import load_recipe
    from mmcore.training.train import train as run

    recipe = load_recipe(options.recipe, options.changes)
    folder = Path(options.out or Path("runs") / Path(options.recipe).stem)
    if options.workers < 0:
        raise MMCoreError(f"--workers must be at least 0, got {options.workers}")
    ranks = run(recipe, folder, workers=options.workers).ranks
    if ranks.rank == 0:
        print(folder)
    ranks.leave()


def export(options: argparse.Namespace) -> None:
    """mmcore export"""
    from mmcore.training.export import export as run

    run(Path(options.run), Path(options.folder), options.to)
    print(options.folder)


def convert(options: argparse.Namespace) -> None:
    """mmcore convert"""
    from mmcore.families.convert import convert as run

    files = run(Path(options.source), Path(options.folder))
    size = sum(path.stat().st_size for path in files)
    print(f"{options.folder}: {size / 1e9:.2f} GB in {len(files)} safetensors files")


def plan(options: argparse.Namespace) -> None:
    """mmcore plan"""
    from mmcore.training.gpus import GPUS
    from mmcore.training.plan import make_plan, table
    from mmcore.training.recipe import load_recipe

    if options.gpu not in GPUS:
        raise MMCoreError(f"--gpu must be one of {', '.join(GPUS)}, got {options.gpu!r}")
    if options.gpus < 1:
        raise MMCoreError(f"--gpus must be at least 1, got {options.gpus}")
    if not 0 < options.reached <= 1:
        raise MMCoreError(f"--reached must lie in (0, 1], got {options.reached:g}")
    gpu = GPUS[options.gpu]
    made = make_plan(load_recipe(options.recipe, options.changes), options.gpus, gpu, options.reached)
    words = table(made, options.gpus, gpu, options.positions, options.price)
    say(options, words, **vars(made), positions_per_second=made.per_second)


def scaling(options: argparse.Namespace) -> None:
    """mmcore scaling"""
    from mmcore.training.scaling import fit, picture, read_points, table

    points = read_points([Path(run) for run in options.runs], options.loss)
    law = fit(points)
    picture(points, law, options.loss, Path(options.out))
    say(options, table(points, law), **vars(law), points=len(points.losses), error=law.error(points))


def geneval(options: argparse.Namespace) -> None:
    """mmcore eval --suite geneval"""
    from mmcore.training.detectors import ClipColours, FolderDetector
    from mmcore.training.geneval import draw, read_prompts, score
    from mmcore.training.scores import table

    if not options.prompts or not options.out:
        raise MMCoreError("--suite geneval wants --prompts evaluation_metadata.jsonl, and --out for the pictures")
    if options.clip and not options.detector:
        raise MMCoreError("--clip tells colours of objects: it wants --detector, which finds them")
    prompts, out = read_prompts(Path(options.prompts)), Path(options.out)
    detector = FolderDetector(Path(options.detector)) if options.detector else None
    if detector is not None:
        detector.check({clause.kind for prompt in prompts for clause in (*prompt.include, *prompt.exclude)})
    colours = ClipColours(Path(options.clip)) if options.clip else None
    draw(loaded(options), prompts, out, options.count or 4)
    if detector is None:
        say(options, f"{out}: pictures, not scored: that wants --detector and --clip", pictures=str(out))
        return
    report = score(out, detector, colours)
    left = f"\nnot scored without --clip: {', '.join(report.left_out)}" if report.left_out else ""
    rows = [vars(row) for row in report.scores]
    say(options, table(report.scores) + left, pictures=str(out), scores=rows, left_out=report.left_out)


def evaluate(options: argparse.Namespace) -> None:
    """mmcore eval"""
    from mmcore.training.evaluate import evaluate as run
    from mmcore.training.scores import table
    from mmcore.training.world.tasks import GROUPS, TASKS

    if options.count is not None and options.count < 1:
        raise MMCoreError(f"--count must be at least 1, got {options.count}")
    if options.suite == "geneval":
        geneval(options)
        return
    named = options.tasks.split(",") if options.tasks else list(TASKS)
    tasks = [task for name in named for task in GROUPS.get(name, (name,))]
    if unknown := [task for task in tasks if task not in TASKS]:
        raise MMCoreError(f"no task {unknown[0]!r}; known are: {', '.join(TASKS)}")
    held_out = [] if options.quick or options.held_out == "none" else options.held_out.split(",")
    if unknown := [kind for kind in held_out if kind not in ("pairs", "phrasings")]:
        raise MMCoreError(f"--held-out takes pairs, phrasings or none, got {unknown[0]!r}")
    out = Path(options.out) if options.out else None
    count = 2 if options.quick else options.count or 12
    report = run(loaded(options), count, tasks, folder=out, held_out=held_out, workers=os.cpu_count() or 1)
    say(options, table(report.scores), scores=[vars(score) for score in report.scores])


def bench(options: argparse.Namespace) -> None:
    """mmcore bench"""
    if options.peer:
        from mmcore.training.bench_peer import bench_peer as run
    else:
        from mmcore.training.bench import bench as run
    rows = run(options.model)
    say(options, "\n".join(f"{row.name:44} {row.value}" for row in rows), rows=[vars(row) for row in rows])
