"""What the commands of `mmcore` do: each is a thin view on `mmcore.pipeline`, `mmcore.training` or `mmcore.demo`.

from mmcore.cli import main

main(["caption", "out.mp4"])
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcore.data_commands import data
from mmcore.errors import MMCoreError

if TYPE_CHECKING:
    from mmcore.pipeline import Pipeline
    from mmcore.replies import Reply


def say(options: argparse.Namespace, words: str, **facts: object) -> None:
    """Print for people, or with `--json` for programs."""
    print(json.dumps(facts, ensure_ascii=False) if options.json else words)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given."""
    chosen = {name: getattr(options, name) for name in ("steps", "guidance", "sampler")}
    return {name: value for name, value in chosen.items() if value is not None}


def loaded(options: argparse.Namespace) -> Pipeline:
    """The model that was asked for."""
    from mmcore.loading import load

    return load(options.model, device_map=options.device_map, quantize=options.quantize)


def generate(options: argparse.Namespace) -> None:
    """mmcore generate"""
    from mmcore.decoders.media import MOVING, STILL, check_writable
    from mmcore.generate import make_settings
    from mmcore.parts import user_turn
    from mmcore.replies import Request

    output = Path(options.output) if options.output else None
    want = "any"
    if output is not None and output.suffix:
        check_writable(output)
        suffix = output.suffix.lower()
        want = "image" if suffix in STILL else "video" if suffix in MOVING else "any"
    if options.window is not None:
        film(options, output)
        return
    request = Request(user_turn(options.parts), want, (options.frames, options.height, options.width), options.seed)
    chosen = settings(options)
    make_settings(chosen)
    pipeline = loaded(options)
    reply = pipeline.reply([request], make_settings(chosen, pipeline.suited(request)))[0]
    paths = keep(reply, output)
    words = "\n".join([*([reply.text] if reply.text else []), *map(str, paths)])
    say(options, words, text=reply.text, files=[str(p) for p in paths])


def film(options: argparse.Namespace, output: Path | None) -> None:
    """mmcore generate --window"""
    from mmcore.decoders.media import MOVING, write_windows
    from mmcore.generate import make_settings

    if output is None or output.suffix.lower() not in MOVING or not options.frames or options.window < 1:
        raise MMCoreError(f"--window N wants N of at least 1, --frames, and -o with one of {' '.join(MOVING)}")
    chosen = settings(options)
    make_settings(chosen)
    windows = loaded(options).film(
        *options.parts,
        frames=options.frames,
        window=options.window,
        seed=options.seed,
        height=options.height,
        width=options.width,
        **chosen,
    )
    path = write_windows(windows, output)
    say(options, str(path), text="", files=[str(path)])


def keep(reply: Reply, output: Path | None) -> list[Path]:
    """Write a reply's media: to one file, to a folder with the whole document, or to new files here."""
    if output is None:
        return save_media(reply, Path())
    if not output.suffix:
        return [reply.document.save(output)]
    if len(reply.media) != 1:
        raise MMCoreError(f"{output}: the reply holds {len(reply.media)} media; give a folder to keep it all")
    return [reply.media[0].save(output)]


def save_media(reply: Reply, folder: Path) -> list[Path]:
    """Write each medium of a reply to a new file of a folder."""
    from mmcore.document import Image

    paths: list[Path] = []
    for medium in reply.media:
        suffix, number = ".png" if isinstance(medium, Image) else ".mp4", 1
        while (path := folder / f"reply_{number}{suffix}").exists():
            number += 1
        paths.append(medium.save(path))
    return paths


def caption(options: argparse.Namespace) -> None:
    """mmcore caption"""
    from mmcore.parts import as_medium

    if options.every is not None:
        for seen in loaded(options).captions(options.file, options.every):
            say(options, f"{seen.begin:8.2f} s  {seen.text}", file=options.file, begin=seen.begin, text=seen.text)
        return
    medium = as_medium(options.file)
    text = loaded(options).caption(medium)
    say(options, text, file=options.file, text=text)


def ask(options: argparse.Namespace) -> None:
    """mmcore ask"""
    from mmcore.parts import as_medium

    medium = as_medium(options.file)
    text = loaded(options).ask(medium, options.question)
    say(options, text, file=options.file, question=options.question, text=text)


def edit(options: argparse.Namespace) -> None:
    """mmcore edit"""
    from mmcore.decoders.media import check_writable
    from mmcore.generate import make_settings
    from mmcore.parts import as_medium

    check_writable(Path(options.output))
    medium, chosen = as_medium(options.file), settings(options)
    make_settings(chosen)
    path = loaded(options).edit(medium, options.instruction, seed=options.seed, **chosen).save(options.output)
    say(options, str(path), files=[str(path)])


def chat(options: argparse.Namespace) -> None:
    """mmcore chat"""
    from mmcore.parts import split_want, split_words

    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot make the folder: {error.strerror}; choose another with --out") from error
    talk = loaded(options).chat(options.seed, **settings(options))
    terminal = sys.stdin.isatty()
    if terminal:
        print("Say something; name media files in it to show them; begin with /text, /image or /video to have that.")
        print("An empty line ends the chat.")
    while True:
        line = (input("> ") if terminal else sys.stdin.readline()).strip()
        if not line:
            break
        try:
            want, words = split_want(line)
            reply = talk.send(*split_words(words), want=want)
        except MMCoreError as error:
            print(f"mmcore: {error}", file=sys.stderr)
            continue
        paths = save_media(reply, folder)
        words = "\n".join([*([reply.text] if reply.text else []), *map(str, paths)])
        say(options, words, text=reply.text, files=[str(p) for p in paths])
    talk.document.save(folder)


def demo(options: argparse.Namespace) -> None:
    """mmcore demo"""
    if find_spec("gradio") is None:
        raise MMCoreError("the page needs gradio; install it with: pip install mmcore[demo]")
    from mmcore.demo.serve import serve
    from mmcore.training.world.showcase import showcase

    serve(loaded(options), showcase(), options.host, options.port, options.auth)


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
    ranks = run(recipe, folder).ranks
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


def info(options: argparse.Namespace) -> None:
    """mmcore info"""
    from mmcore.loading import describe

    facts = describe(loaded(options))
    say(options, "\n".join(f"{name:16} {value}" for name, value in facts.items()), **facts)


def bench(options: argparse.Namespace) -> None:
    """mmcore bench"""
    if options.peer:
        from mmcore.training.bench_peer import bench_peer as run
    else:
        from mmcore.training.bench import bench as run
    rows = run(options.model)
    say(options, "\n".join(f"{row.name:44} {row.value}" for row in rows), rows=[vars(row) for row in rows])


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "generate": generate,
    "caption": caption,
    "ask": ask,
    "edit": edit,
    "chat": chat,
    "demo": demo,
    "init": init,
    "train": train,
    "export": export,
    "convert": convert,
    "plan": plan,
    "scaling": scaling,
    "data": data,
    "eval": evaluate,
    "info": info,
    "bench": bench,
}
