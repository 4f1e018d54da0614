"""Rows of other people's datasets: JSON lines, CSV or a JSON array, each knowing where it stands.

    for row in read_rows(Path("photos.jsonl"), Path("photos")):
        row.text("caption", "text"), row.medium("image")       # or one line: photos.jsonl:17: ...

A medium that a row names must lie in the media folder: no path leads out of it, and nothing is fetched.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.errors import MMCoreError


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        fields: names to values.
        where: "FILE:LINE".
        media: the folder that media lie in.
    """

    fields: dict[str, Any]
    where: str
    media: Path

    def wrong(self, reason: str) -> MMCoreError:
        """An error that says where."""
        return MMCoreError(f"{self.where}: {reason}")

    def value(self, *names: str) -> Any:
        """What stands under the first of several names that the row has.

        Raises:
            MMCoreError: it has none of them, or nothing stands there.
        """
        for name in names:
            if name in self.fields:
                if self.fields[name] in (None, "", []):
                    raise self.wrong(f"{name} is empty")
                return self.fields[name]
        raise self.wrong(f"a field named {' or '.join(names)} is needed; there are: {', '.join(self.fields)}")

    def text(self, *names: str) -> str:
        """Words; see `value`."""
        found = self.value(*names)
        if not isinstance(found, str) or not found.strip():
            raise self.wrong(f"{' or '.join(names)}: words are expected, got {found!r}")
        return found.strip()

    def items(self, *names: str) -> list[Any]:
        """A list; see `value`."""
        found = self.value(*names)
        if not isinstance(found, list):
            raise self.wrong(f"{' or '.join(names)}: a list is expected, got {type(found).__name__}")
        return found

    def medium(self, *names: str) -> Path:
        """A medium's file; see `value`."""
        return self.file(self.value(*names))

    def file(self, name: object) -> Path:
        """The file of a name, in the media folder.

        Raises:
            MMCoreError: it is no name, leads out of the folder, or is not there.
        """
        if not isinstance(name, str) or "\0" in name:
            raise self.wrong(f"the name of a media file is expected, got {name!r}")
        if "://" in name:
            raise self.wrong(f"{name}: nothing is fetched from the net; download the media and name the files")
        path = self.media / name
        if not path.resolve().is_relative_to(self.media.resolve()):
            raise self.wrong(f"{name} leads out of {self.media}")
        if not path.is_file():
            raise self.wrong(f"there is no file {path}; say with --media where the files are")
        return path


def read_rows(source: Path, media: Path) -> Iterator[Row | MMCoreError]:
    """Rows of a .jsonl, .json or .csv file, or what is wrong with one.

    Raises:
        MMCoreError: the file cannot be read, or is of no such kind.
    """
    readers = {".jsonl": _json_lines, ".json": _json_array, ".csv": _csv_lines}
    if source.suffix.lower() not in readers:
        raise MMCoreError(f"{source}: a file that ends in {', '.join(readers)} is expected")
    try:
        for line, fields in readers[source.suffix.lower()](source):
            where = f"{source}:{line}"
            if isinstance(fields, dict):
                yield Row(fields, where, media)
            else:
                yield MMCoreError(f"{where}: {fields if isinstance(fields, ValueError) else 'an object is expected'}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MMCoreError(f"{source}: cannot read: {error}") from error


def _json_lines(source: Path) -> Iterator[tuple[int, Any]]:
    with source.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    yield number, ValueError(f"not JSON: {error}")


def _csv_lines(source: Path) -> Iterator[tuple[int, Any]]:
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        for row in rows:
            whole = None not in row and None not in row.values()
            yield rows.line_num, row if whole else ValueError(f"{len(rows.fieldnames or ())} columns are expected")


def _json_array(source: Path) -> Iterator[tuple[int, Any]]:
    """Items of an array, one by one, so that each knows its line."""
    text = source.read_text(encoding="utf-8-sig")
    decoder, at, line, counted = json.JSONDecoder(), 0, 1, 0

    def skip(signs: str) -> None:
        nonlocal at, line, counted
        while at < len(text) and (text[at].isspace() or text[at] in signs):
            at += 1
        line, counted = line + text.count("\n", counted, at), at

    skip("")
    if text[at : at + 1] != "[":
        raise MMCoreError(f"{source}: a JSON array of objects is expected")
    at += 1
    skip("")
    while text[at : at + 1] != "]":
        try:
            item, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise MMCoreError(f"{source}:{line}: not JSON: {error}") from error
        yield line, item
        skip(",")
