"""Shards through a declared chain of filters, by many processes, with a report of what each filter removed.

    report = build(load_chain(Path("chain.toml")), Path("shards"), Path("filtered"), workers=8)

    # chain.toml; filters run in this order, see training/filters.py for what each can be told
    [[filter]]
    kind = "shots"
    [[filter]]
    kind = "length"
    least = 1.0
    [[filter]]
    kind = "duplicates"

What cannot be decoded is removed first. The work is done in parts of PART documents, kept in `OUT.parts` until all is
done: whoever was stopped goes on from there, and the result is the same whatever the number of processes.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from mmcore.document import Document, Text, Video
from mmcore.errors import MMCoreError
from mmcore.training.filters import FILTERS, Duplicates, Seen, Words
from mmcore.training.shards import Sample, Shards, write_shards
from mmcore.training.tables import from_table

PART = 64
"""Documents of the source that are one piece of work."""

Chain = tuple[object, ...]
"""Filters in order."""

CHAIN, REPORT = "chain.json", "report.json"


@dataclass(frozen=True)
class Report:
    """What a chain did.

    Args:
        documents: of the source.
        removed: for each step of the chain how many documents it removed.
        added: documents that splitting added.
        written: what is left.
    """

    documents: int
    removed: dict[str, int]
    added: int
    written: int

    def facts(self) -> dict[str, object]:
        """For programs."""
        return asdict(self)

    def table(self) -> str:
        """For people."""
        rows = [("documents", self.documents), ("added by shots", self.added)]
        rows += [(f"removed by {name}", -count) for name, count in self.removed.items()]
        return "\n".join(f"{name:28}{count:>10}" for name, count in [*rows, ("written", self.written)])


def load_chain(path: Path) -> Chain:
    """Read a chain.

    Raises:
        MMCoreError: the file cannot be read, names an unknown filter or option, or duplicates do not stand last.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise MMCoreError(f"{path}: cannot read the chain: {error}") from error
    tables = table.pop("filter", [])
    if table or not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise MMCoreError(f"{path}: a chain is made of [[filter]] tables, and nothing else")
    chain: list[object] = []
    for number, entry in enumerate(tables, 1):
        where, kind = f"{path}: filter {number}", entry.pop("kind", None)
        if kind not in FILTERS:
            raise MMCoreError(f"{where}: kind must be one of {', '.join(FILTERS)}, got {kind!r}")
        chain.append(from_table(FILTERS[kind], entry, where))
        _checked(chain[-1], where)
    if any(isinstance(f, Duplicates) for f in chain[:-1]):
        raise MMCoreError(f"{path}: duplicates must be the last filter: it compares what all others leave")
    return tuple(chain)


def _checked(made: object, where: str) -> None:
    """Refuse what only fails later."""
    if isinstance(made, Duplicates) and not 0 <= made.distance <= 15:
        raise MMCoreError(f"{where}: distance must be 0 to 15, got {made.distance}")
    for rule in made.without if isinstance(made, Words) else ():
        try:
            re.compile(rule)
        except re.error as error:
            raise MMCoreError(f"{where}: without: {rule!r} is no regular expression: {error}") from error


def names(chain: Chain) -> list[str]:
    """The steps of a chain, numbered where a kind comes more than once."""
    kinds = ["decode", *(type(f).__name__.lower() for f in chain)]
    return [f"{kind} {i}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]


def build(chain: Chain, source: Path, out: Path, workers: int = 1) -> Report:
    """Filter shards.

    Args:
        chain: see `load_chain`.
        source: a folder of shards.
        out: where what is left goes; must not be there yet. A `report.json` lies beside the shards.
        workers: processes.
    Raises:
        MMCoreError: the source holds no shards, `out` is there already, or nothing is left.
    """
    if out.exists():
        raise MMCoreError(f"{out}: is there already; delete it, or choose another name")
    shards, parts = Shards(source), out.with_name(f"{out.name}.parts")
    asked = json.dumps([[repr(f) for f in chain], [[str(p), p.stat().st_size] for p in shards.paths]])
    try:
        if not (parts / CHAIN).exists() or (parts / CHAIN).read_text() != asked:
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(parents=True)
            (parts / CHAIN).write_text(asked)
    except OSError as error:
        raise MMCoreError(f"{parts}: cannot work there: {error.strerror}") from error
    pieces = [range(begin, min(begin + PART, len(shards))) for begin in range(0, len(shards), PART)]
    todo = [piece for piece in pieces if not _told(parts, piece).exists()]
    with (
        tqdm(total=len(pieces), initial=len(pieces) - len(todo), disable=None, unit="part", leave=False) as bar,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        for _ in pool.map(partial(filter_part, chain, source, parts), todo):
            bar.update()
    removed, added = Counter(dict.fromkeys(names(chain), 0)), 0
    for piece in pieces:
        told = json.loads(_told(parts, piece).read_text())
        removed.update(told["removed"])
        added += told["added"]
    duplicates = chain[-1] if chain and isinstance(chain[-1], Duplicates) else None
    written = write_shards(_joined(parts, pieces, duplicates), out)
    if duplicates:
        removed[names(chain)[-1]] = len(shards) + added - removed.total() - written
    report = Report(len(shards), dict(removed), added, written)
    (out / REPORT).write_text(json.dumps(report.facts(), indent=1) + "\n")
    shutil.rmtree(parts)
    return report


def _told(parts: Path, piece: range) -> Path:
    """The file that says a piece of work is done; what is left of it lies in the folder of the same name."""
    return parts / f"{piece.start:09d}.json"


def filter_part(chain: Chain, source: Path, parts: Path, piece: range) -> None:
    """Filter some documents; what is left, and what was removed, goes into files of the part's own."""
    shards = Shards(source)
    removed, added = Counter(), 0
    left: list[Sample] = []
    signatures: list[tuple[str, list[int]]] = []
    steps = list(zip(names(chain)[1:], chain, strict=True))
    for i in piece:
        try:
            sample, whole = shards.read(i)[1], shards.document(i)
        except MMCoreError:
            removed["decode"] += 1
            continue
        documents = [whole]
        for name, step in steps:
            if isinstance(step, Duplicates):
                signatures += [step.signature(document) for document in documents]
                continue
            results = [step(document) for document in documents]  # type: ignore[operator]
            removed[name] += sum(not result for result in results)
            added += sum(max(len(result) - 1, 0) for result in results)
            documents = [document for result in results for document in result]
        left += [sample if document is whole else encoded(document) for document in documents]
    told = _told(parts, piece)
    if left:
        shutil.rmtree(told.with_suffix(""), ignore_errors=True)
        write_shards(left, told.with_suffix(""))
    unfinished = told.with_suffix(".part")
    unfinished.write_text(json.dumps({"removed": removed, "added": added, "signatures": signatures}))
    unfinished.replace(told)


def encoded(document: Document) -> Sample:
    """A document that a filter made. Clips become MP4: lossless files would be far larger than what they came from."""
    segments: list[dict[str, object]] = []
    files: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        for i, segment in enumerate(document):
            if isinstance(segment, Text):
                segments.append({"type": "text", "text": segment.text, "learn": segment.learn})
                continue
            kind, suffix = ("video", ".mp4") if isinstance(segment, Video) else ("image", ".png")
            path = segment.save(Path(folder) / f"{i:03d}{suffix}")
            segments.append({"type": kind, "file": path.name, "learn": segment.learn})
            files[path.name] = path.read_bytes()
    return Sample(segments, files)


def _joined(parts: Path, pieces: list[range], duplicates: Duplicates | None) -> Iterator[Sample]:
    """What is left of all pieces, in order, each look only once."""
    seen = Seen(duplicates.distance) if duplicates else None
    for told in (_told(parts, piece) for piece in pieces):
        if not told.with_suffix("").exists():
            continue
        shards, signatures = Shards(told.with_suffix("")), json.loads(told.read_text())["signatures"]
        for i in range(len(shards)):
            if not seen or not seen.add(*signatures[i]):
                yield shards.read(i)[1]
