"""The command line: each command is a thin view on `mmcore.pipeline` or `mmcore.training`.

mmcore generate "a red ball slides to the left" -o out.mp4
mmcore caption out.mp4
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcore.errors import MMCoreError

if TYPE_CHECKING:
    from mmcore.pipeline import Pipeline
    from mmcore.replies import Reply


class Parser(argparse.ArgumentParser):
    """Wrong options are one line too, with exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Say what is wrong and where help is."""
        raise MMCoreError(f"{message} (see `{self.prog} --help`)")


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    main = Parser(prog="mmcore", description="One model that reads and writes text, images and video in any order.")
    main.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, example: str, model: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, epilog=f"example: {example}")
        made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if model:
            made.add_argument("--model", help="a model folder or hub id (default: the bundled model)")
            made.add_argument("--json", action="store_true", help="print the result as JSON")
        return made

    def sampling(made: argparse.ArgumentParser) -> None:
        made.add_argument("--seed", type=int, default=0, help="decides everything that is drawn (default 0)")
        made.add_argument("--steps", type=int, help="sampling steps for each medium")
        made.add_argument("--guidance", type=float, help="weight of the words; 1 is no guidance")
        made.add_argument("--sampler", help="euler or heun")

    made = command("generate", "answer words and media with words and media", 'mmcore generate "a red ball" -o out.png')
    made.add_argument("parts", nargs="+", help="words and media files, in any order")
    made.add_argument("-o", "--output", help="a picture, a clip, or a folder for the whole reply")
    made.add_argument("--frames", type=int, help="frames of a clip")
    made.add_argument("--height", type=int, help="rows of what is drawn")
    made.add_argument("--width", type=int, help="columns of what is drawn")
    sampling(made)

    made = command("caption", "say what there is to see in a picture or a clip", "mmcore caption clip.mp4")
    made.add_argument("file")

    made = command("ask", "answer a question about a picture or a clip", 'mmcore ask clip.mp4 "what moves?"')
    made.add_argument("file")
    made.add_argument("question")

    made = command("edit", "change a clip or a picture", 'mmcore edit clip.mp4 "make it blue" -o out.mp4')
    made.add_argument("file")
    made.add_argument("instruction")
    made.add_argument("-o", "--output", required=True, help="where the result goes")
    sampling(made)

    made = command("chat", "talk: words and media files in, words and media files out", "mmcore chat --out talk")
    made.add_argument("--out", default="chat", help="folder for what the model draws (default: chat)")
    sampling(made)

    made = command("train", "train a model", "mmcore train tiny --out runs/tiny steps=500", model=False)
    made.add_argument("recipe", help="a bundled recipe's name or a .toml file")
    made.add_argument("changes", nargs="*", metavar="key=value", help="lines of the recipe to change")
    made.add_argument("--out", help="the run's folder (default: runs/RECIPE); a run that has begun goes on")

    made = command("eval", "score a model on documents that it was not trained on", "mmcore eval --tasks t2v,edit")
    made.add_argument("--count", "--n", type=int, default=30, help="documents for each task (default 30)")
    made.add_argument("--quick", action="store_const", const=4, dest="count", help="the same as --count 4")
    made.add_argument(
        "--tasks", help="some tasks only, with commas between them; t2i, t2v, i2v, caption, question, edit"
    )
    made.add_argument("--out", help="a folder for replies, scores.json and sheets; goes on if it has begun")

    command("info", "say what a model is", "mmcore info --json")

    made = command("bench", "measure speed and memory", "mmcore bench")
    made.add_argument("--peer", action="store_true", help="beside transfusion-pytorch, at equal size, in one run")
    return main


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; changes to a recipe may stand before or after them."""
    options, rest = parser().parse_known_args(given)
    if options.command == "train":
        options.changes += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        raise MMCoreError(f"unrecognized arguments: {' '.join(rest)} (see `mmcore {options.command} --help`)")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, or 2 for bad input, or 130 where it was interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parse(given)
        quiet()
        COMMANDS[options.command](options)
    except MMCoreError as error:
        if "--debug" in given:
            traceback.print_exc()
        print(f"mmcore: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def quiet() -> None:
    """Keep libraries from writing on the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def say(options: argparse.Namespace, words: str, **facts: object) -> None:
    """Print for people, or with `--json` for programs."""
    print(json.dumps(facts, ensure_ascii=False) if options.json else words)


def settings(options: argparse.Namespace) -> dict[str, object]:
    """The sampling options that were given."""
    chosen = {name: getattr(options, name) for name in ("steps", "guidance", "sampler")}
    return {name: value for name, value in chosen.items() if value is not None}


def loaded(options: argparse.Namespace) -> Pipeline:
    """The model that was asked for."""
    from mmcore.pipeline import load

    return load(options.model)


def generate(options: argparse.Namespace) -> None:
    """mmcore generate"""
    from mmcore.decoders.media import MOVING, STILL, check_writable
    from mmcore.parts import user_turn
    from mmcore.pipeline import make_settings
    from mmcore.replies import Request

    output = Path(options.output) if options.output else None
    want = "any"
    if output is not None and output.suffix:
        check_writable(output)
        suffix = output.suffix.lower()
        want = "image" if suffix in STILL else "video" if suffix in MOVING else "any"
    request = Request(user_turn(options.parts), want, (options.frames, options.height, options.width), options.seed)
    chosen = make_settings(settings(options))
    reply = loaded(options).reply([request], chosen)[0]
    paths = keep(reply, output)
    words = "\n".join([*([reply.text] if reply.text else []), *map(str, paths)])
    say(options, words, text=reply.text, files=[str(p) for p in paths])


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
    from mmcore.parts import as_medium
    from mmcore.pipeline import make_settings

    check_writable(Path(options.output))
    medium, chosen = as_medium(options.file), settings(options)
    make_settings(chosen)
    path = loaded(options).edit(medium, options.instruction, seed=options.seed, **chosen).save(options.output)
    say(options, str(path), files=[str(path)])


def chat(options: argparse.Namespace) -> None:
    """mmcore chat"""
    from mmcore.parts import split_words

    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot make the folder: {error.strerror}; choose another with --out") from error
    talk = loaded(options).chat(**settings(options))
    terminal = sys.stdin.isatty()
    if terminal:
        print("Say something; name media files in it to show them. An empty line ends the chat.")
    while True:
        line = (input("> ") if terminal else sys.stdin.readline()).strip()
        if not line:
            break
        try:
            reply = talk.send(*split_words(line))
        except MMCoreError as error:
            print(f"mmcore: {error}", file=sys.stderr)
            continue
        paths = save_media(reply, folder)
        words = "\n".join([*([reply.text] if reply.text else []), *map(str, paths)])
        say(options, words, text=reply.text, files=[str(p) for p in paths])
    talk.document.save(folder)


def train(options: argparse.Namespace) -> None:
    """mmcore train"""
    from mmcore.training.recipe import load_recipe
    from mmcore.training.train import train as run

    recipe = load_recipe(options.recipe, options.changes)
    folder = Path(options.out or Path("runs") / Path(options.recipe).stem)
    run(recipe, folder)
    print(folder)


def evaluate(options: argparse.Namespace) -> None:
    """mmcore eval"""
    from mmcore.training.evaluate import evaluate as run
    from mmcore.training.evaluate import table
    from mmcore.training.world.tasks import GROUPS, MIXTURES, TASKS

    if options.count < 1:
        raise MMCoreError(f"--count must be at least 1, got {options.count}")
    named = options.tasks.split(",") if options.tasks else list(MIXTURES["all"])
    tasks = [task for name in named for task in GROUPS.get(name, (name,))]
    if unknown := [task for task in tasks if task not in TASKS]:
        raise MMCoreError(f"no task {unknown[0]!r}; known are: {', '.join(TASKS)}")
    report = run(loaded(options), options.count, tasks, folder=Path(options.out) if options.out else None)
    say(options, table(report.scores), scores=[vars(score) for score in report.scores])


def info(options: argparse.Namespace) -> None:
    """mmcore info"""
    from mmcore.pipeline import describe

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


COMMANDS = {
    "generate": generate,
    "caption": caption,
    "ask": ask,
    "edit": edit,
    "chat": chat,
    "train": train,
    "eval": evaluate,
    "info": info,
    "bench": bench,
}
