"""The command line: its commands with their options, and what a mistake looks like. Others carry them out.

mmcore generate "a red ball slides to the left" -o out.mp4
mmcore caption out.mp4
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from mmcore.commands import ask, caption, chat, demo, edit, generate, info
from mmcore.data_commands import add_data_commands, data
from mmcore.errors import MMCoreError
from mmcore.training_commands import bench, convert, evaluate, export, init, plan, scaling, train

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

    def command(
        name: str, about: str, example: str, model: bool = True, json: bool = True, whole: bool = True
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, epilog=f"example: {example}")
        made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if model:
            made.add_argument("--model", help="a model folder or hub id (default: the bundled model)")
        if model and whole:
            made.add_argument(
                "--device-map",
                choices=("auto",),
                help="auto: a large model of another family over all GPUs, memory and its files",
            )
            made.add_argument("--quantize", metavar="KIND", help="hold its weights in int8 or int4")
        if model and json:
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
    made.add_argument("--window", type=int, help="film a clip of any length in windows of so many frames")
    made.add_argument("--height", type=int, help="rows of what is drawn")
    made.add_argument("--width", type=int, help="columns of what is drawn")
    sampling(made)

    made = command("caption", "say what there is to see in a picture or a clip", "mmcore caption clip.mp4")
    made.add_argument("file")
    made.add_argument("--every", type=float, metavar="SECONDS", help="of a clip of any length, so many at a time")

    made = command("ask", "answer a question about a picture or a clip", 'mmcore ask clip.mp4 "what moves?"')
    made.add_argument("file")
    made.add_argument("question")

    made = command("edit", "change a clip or a picture", 'mmcore edit clip.mp4 "make it blue" -o out.mp4')
    made.add_argument("file")
    made.add_argument("instruction")
    made.add_argument("-o", "--output", required=True, help="where the result goes")
    sampling(made)

    about = "talk: words and media files in and out; a line may begin with /text, /image or /video"
    made = command("chat", about, "mmcore chat --out talk")
    made.add_argument("--out", default="chat", help="folder for what the model draws (default: chat)")
    sampling(made)

    made = command("demo", "open a page to talk with the model", "mmcore demo --port 7860", json=False)
    made.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)"
    )
    made.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    made.add_argument("--auth", default="", metavar="USER:PASSWORD", help="ask for a name and a password")

    example = "mmcore init --core Qwen/Qwen3-1.7B --vae Wan-AI/Wan2.1-T2V-1.3B-Diffusers -o start"
    made = command("init", "make a model to train of released parts", example, model=False)
    made.add_argument("--core", required=True, help="a folder or hub id of a Qwen2, Qwen3 or Llama model")
    made.add_argument("--vae", help="a folder or hub id of an AutoencoderKLWan or AutoencoderKL (default: pixels)")
    made.add_argument("--eye", help="a folder or hub id of a vision tower: SigLIP 2, CLIP, DINOv2 (default: none)")
    made.add_argument("-o", "--output", required=True, help="where the model goes")
    made.add_argument("--height", type=int, default=256, help="rows of its media (default 256)")
    made.add_argument("--width", type=int, default=256, help="columns of its media (default 256)")
    made.add_argument("--frames", type=int, default=17, help="frames of a clip (default 17)")
    made.add_argument("--fps", type=float, default=8.0, help="their rate (default 8)")

    made = command("train", "train a model", "mmcore train tiny start=mmcore/bundled steps=500", model=False)
    made.add_argument("recipe", help="a bundled recipe's name or a .toml file")
    made.add_argument("changes", nargs="*", metavar="key=value", help="lines of the recipe to change")
    made.add_argument("--out", help="the run's folder (default: runs/RECIPE); a run that has begun goes on")
    made.add_argument("--workers", type=int, default=1, help="processes that make batches (default 1)")

    made = command("export", "make a model folder of a run", "mmcore export runs/tiny folder", model=False)
    made.add_argument("run", help="the run's folder; with another --to than mmcore a model's folder, too")
    made.add_argument("folder", help="where the model goes, for --model and mmcore.load")
    made.add_argument(
        "--to",
        choices=("mmcore", "int8", "int4", "hf"),
        default="mmcore",
        help="int8, int4: in few bits, for small devices; hf: the text part alone, for transformers",
    )

    made = command(
        "convert",
        "make safetensors of the pickled weights of a released folder",
        "mmcore convert show-o2-1.5B show-o2-1.5B-safetensors",
        model=False,
    )
    made.add_argument("source", help="a folder with pytorch_model*.bin")
    made.add_argument("folder", help="where the model goes, for --model and mmcore.load; must not be there yet")

    made = command(
        "plan",
        "say what a training run will take: memory, speed, days, cost",
        "mmcore plan tiny preset=1b layout.rows=32 --gpus 64 --gpu h100 --positions 1e12",
        model=False,
    )
    made.add_argument("recipe", help="a bundled recipe's name or a .toml file")
    made.add_argument("changes", nargs="*", metavar="key=value", help="lines of the recipe to change")
    made.add_argument("--gpus", type=int, default=1, help="how many GPUs (default 1)")
    made.add_argument("--gpu", default="h100", help="their kind: a100, h100, h200, b200, l40s, rtx4090 (default h100)")
    made.add_argument(
        "--reached", type=float, default=0.4, help="share of their peak that is reached (default 0.4, a guess)"
    )
    made.add_argument("--positions", type=float, help="positions to train on in all, for days")
    made.add_argument("--price", type=float, help="of a GPU for an hour, for cost")
    made.add_argument("--json", action="store_true", help="print the result as JSON")

    example = "mmcore scaling runs/a runs/b runs/c --loss valid_text"
    made = command("scaling", "fit and draw how the loss falls with size and data", example, model=False)
    made.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs of several sizes")
    made.add_argument("--loss", default="valid_text", help="key of their logs: valid_text (default), valid_flow, ...")
    made.add_argument("--out", default="scaling.png", help="where the picture goes (default: scaling.png)")
    made.add_argument("--json", action="store_true", help="print the result as JSON")

    example = "mmcore data convert image-text photos.jsonl shards"
    add_data_commands(command("data", "make, check and filter shards of documents", example, model=False))

    made = command("eval", "score a model on documents that it was not trained on", "mmcore eval --tasks t2v,edit")
    made.add_argument(
        "--suite", choices=("world", "geneval"), default="world", help="documents of the world, or GenEval's prompts"
    )
    made.add_argument(
        "--count", "--n", type=int, help="documents for each task (default 12); pictures for each prompt (default 4)"
    )
    made.add_argument("--quick", action="store_true", help="two documents for each task, nothing that is held out")
    made.add_argument(
        "--tasks", help="some tasks only, with commas between them; t2i, t2v, i2v, caption, question, edit, shots"
    )
    made.add_argument(
        "--held-out",
        default="pairs",
        metavar="KIND",
        help="what training never sees and is scored in rows of its own: pairs (default), phrasings, both with a comma "
        "between them, or none",
    )
    made.add_argument("--out", help="a folder for replies, scores.json and sheets; goes on if it has begun")
    made.add_argument("--prompts", metavar="FILE", help="geneval: its evaluation_metadata.jsonl")
    made.add_argument(
        "--detector",
        metavar="FOLDER",
        help="geneval: finds objects; the official one is mask2former-swin-small-coco-instance",
    )
    made.add_argument(
        "--clip", metavar="FOLDER", help="geneval: tells colours; the official one is clip-vit-large-patch14"
    )

    command("info", "say what a model is", "mmcore info --json")

    made = command("bench", "measure speed and memory", "mmcore bench", whole=False)
    made.add_argument("--peer", action="store_true", help="beside transfusion-pytorch, at equal size, in one run")
    return main


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; changes to a recipe may stand before or after them."""
    options, rest = parser().parse_known_args(given)
    if options.command in ("train", "plan"):
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
