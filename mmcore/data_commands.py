"""The commands of `mmcore data`: datasets of others to shards, and what is wrong with them.

from mmcore.cli import main

main(["data", "convert", "image-text", "photos.jsonl", "shards"])
main(["data", "check", "shards"])
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mmcore.errors import MMCoreError


def add_data_commands(data: argparse.ArgumentParser) -> None:
    """Give `mmcore data` its commands with their options."""
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, about: str, example: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=about, description=about, epilog=f"example: mmcore data {name} {example}")
        made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        made.add_argument("--json", action="store_true", help="print the result as JSON")
        return made

    made = action("convert", "make shards of a dataset", "image-text photos.jsonl shards --media photos")
    made.add_argument(
        "kind", help="image-text, video-text, image-edit, video-edit, conversation (LLaVA), interleaved (OBELICS, MMC4)"
    )
    made.add_argument("source", help="a .jsonl, .json or .csv file")
    made.add_argument("out", help="folder for the shards; must not be there yet")
    made.add_argument("--media", help="folder that the media lie in (default: the source's own)")
    made.add_argument("--skip", action="store_true", help="leave out rows that are wrong, with a line for each")

    made = action("check", "read and decode all shards, and name every fault", "shards --json")
    made.add_argument("folder", help="a folder of shards")

    made = action("build", "filter shards by a declared chain", "chain.toml shards filtered")
    made.add_argument("chain", help="a .toml file of [[filter]] tables")
    made.add_argument("source", help="a folder of shards")
    made.add_argument("out", help="folder for what is left; must not be there yet; goes on where it was stopped")
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")


def say(options: argparse.Namespace, words: str, facts: object) -> None:
    """Print for people, or with `--json` for programs."""
    print(json.dumps(facts, ensure_ascii=False) if options.json else words)


def convert(options: argparse.Namespace) -> None:
    """mmcore data convert"""
    from mmcore.training.converters import KINDS
    from mmcore.training.converters import convert as run

    if options.kind not in KINDS:
        raise MMCoreError(f"kind must be one of {', '.join(KINDS)}, got {options.kind!r}")
    skipped: list[str] = []

    def skip(reason: str) -> None:
        skipped.append(reason)
        print(f"mmcore: left out: {reason}", file=sys.stderr)

    media = Path(options.media) if options.media else None
    count = run(options.kind, Path(options.source), Path(options.out), media, skip if options.skip else None)
    words = f"{options.out}: {count} documents" + (f", {len(skipped)} rows left out" if skipped else "")
    say(options, words, {"folder": options.out, "documents": count, "left_out": skipped})


def check(options: argparse.Namespace) -> None:
    """mmcore data check"""
    from mmcore.training.check import check as run

    faults = list(run(Path(options.folder)))
    say(options, "\n".join(map(str, faults)) or f"{options.folder}: no faults", [vars(fault) for fault in faults])
    if faults:
        raise MMCoreError(f"{options.folder}: {len(faults)} faults; they are named above")


def build(options: argparse.Namespace) -> None:
    """mmcore data build"""
    from mmcore.training.build import build as run
    from mmcore.training.build import load_chain

    if options.workers < 1:
        raise MMCoreError(f"--workers must be at least 1, got {options.workers}")
    report = run(load_chain(Path(options.chain)), Path(options.source), Path(options.out), options.workers)
    say(options, report.table(), report.facts())


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {"convert": convert, "check": check, "build": build}


def data(options: argparse.Namespace) -> None:
    """mmcore data"""
    ACTIONS[options.action](options)
