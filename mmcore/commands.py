"""What the commands of `mmcore` do: each is a thin view on `mmcore.pipeline` or `mmcore.demo`.

from mmcore.cli import main

main(["caption", "out.mp4"])
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def info(options: argparse.Namespace) -> None:
    """mmcore info"""
    from mmcore.loading import describe

    facts = describe(loaded(options))
    say(options, "\n".join(f"{name:16} {value}" for name, value in facts.items()), **facts)
