"""Documents in webdataset shards: tar files that anybody can open, read here at random access.

    write_shards(samples, Path("photos"))
    shards = Shards(Path("photos"))
    shards[7].document()

    photos/documents-000000.tar   00000000.json  00000000.000.jpg  00000001.json  00000001.000.mp4 ...
    photos/documents-000000.npy   where each document begins in it

A sample is a document folder (see `mmcore.document`) in a tar: `KEY.json` is its `document.json`, and the file that it
calls `000.jpg` is `KEY.000.jpg`. Media stay as they came: nothing is decoded on the way in. Shards that another program
wrote need no `.npy`; their headers are read instead. Plain `tarfile` does it: importing webdataset imports torch, which
takes longer than filtering a part of a dataset does. The tests hold both to the same format.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmcore.document import DOCUMENT_FILE, Document
from mmcore.errors import MMCoreError

SHARD_BYTES = 2**28
"""A shard is closed when it has grown to this."""

MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""webdataset's rule: the key ends at the first dot of a file's name."""


@dataclass(frozen=True)
class Sample:
    """A document as files, not decoded.

    Args:
        segments: entries as in `document.json`.
        files: what they name, each by a plain file name.
    """

    segments: list[dict[str, Any]]
    files: dict[str, bytes]

    @classmethod
    def of(cls, document: Document) -> Sample:
        """A document with its media in lossless files."""
        with TemporaryDirectory() as folder:
            document.save(folder)
            files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
        return cls(json.loads(files.pop(DOCUMENT_FILE))["segments"], files)

    def document(self) -> Document:
        """The document, decoded.

        Raises:
            MMCoreError: an entry is malformed, or a file is missing or broken.
        """
        with TemporaryDirectory() as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            (Path(folder) / DOCUMENT_FILE).write_text(json.dumps({"segments": self.segments}))
            try:
                return Document.load(folder)
            except MMCoreError as error:
                raise MMCoreError(str(error).replace(f"{folder}/", "")) from error


def write_shards(samples: Iterable[Sample], folder: Path, size: int = SHARD_BYTES) -> int:
    """Write shards; the folder appears whole or not at all.

    Args:
        samples: what to write; drawn one by one.
        folder: must not be there yet.
        size: bytes at which a shard is closed.
    Returns:
        How many samples were written.
    Raises:
        MMCoreError: the folder is there already or cannot be written, or there are no samples.
    """
    if folder.exists():
        raise MMCoreError(f"{folder}: is there already; delete it, or choose another name")
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    numbered, written = enumerate(samples), 0
    try:
        partial.mkdir(parents=True)
        for number in itertools.count():
            path = partial / f"documents-{number:06d}.tar"
            if not (count := _write_shard(numbered, path, size)):
                path.unlink()
                break
            written += count
        if not written:
            raise MMCoreError(f"{folder}: there is nothing to write: no document is left")
        partial.rename(folder)
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write the shards: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def _write_shard(samples: Iterator[tuple[int, Sample]], path: Path, size: int) -> int:
    """Move samples into a shard until it is full, and write its index."""
    begins: list[int] = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, sample in samples:
            begins.append(tar.offset)
            words = json.dumps({"segments": sample.segments}, ensure_ascii=False).encode()
            for name, content in {"json": words, **sample.files}.items():
                member = tarfile.TarInfo(f"{number:08d}.{name}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
            if tar.offset >= size:
                break
        end = tar.offset
    np.save(path.with_suffix(".npy"), np.array([*begins, end, path.stat().st_size]))
    return len(begins)


class Shards:
    """A folder of shards as a sequence of samples.

    Args:
        folder: holds `.tar` files.
    Raises:
        MMCoreError: there are none, or one is broken or empty.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.tar"))
        if not self.paths:
            raise MMCoreError(f"{folder}: no .tar shards here; make some with: mmcore data convert")
        self._begins = [_index(path) for path in self.paths]
        self._first = np.cumsum([0, *(len(begins) - 1 for begins in self._begins)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def place(self, i: int) -> tuple[Path, int, int]:
        """Of sample `i` the shard, and the bytes at which it begins and ends there."""
        shard = int(np.searchsorted(self._first, i, side="right")) - 1
        begin, end = self._begins[shard][i - self._first[shard] :][:2]
        return self.paths[shard], int(begin), int(end)

    def read(self, i: int) -> tuple[str, Sample]:
        """A sample with its name, "SHARD: KEY".

        Raises:
            MMCoreError: the tar or the sample's JSON is broken; the line names shard and key.
        """
        path, begin, end = self.place(i)
        try:
            with path.open("rb") as file:
                file.seek(begin)
                content = BytesIO(file.read(end - begin))
            with tarfile.open(fileobj=content, mode="r:") as tar:
                named = [(MEMBER.fullmatch(m.name), tar.extractfile(m)) for m in tar if m.isfile()]
            files = {name[2]: file.read() for name, file in named if name and file}
            key = next(name[1] for name, _ in named if name)
        except (OSError, tarfile.TarError, StopIteration) as error:
            raise MMCoreError(f"{path}: cannot read what is at byte {begin}: {error}") from error
        try:
            segments = json.loads(files.pop("json"))["segments"]
            if not isinstance(segments, list):
                raise TypeError("segments is not a list")
        except (ValueError, KeyError, TypeError) as error:
            raise MMCoreError(f'{path}: {key}: no JSON of {{"segments": [...]}}: {error!r}') from error
        return f"{path}: {key}", Sample(segments, files)

    def document(self, i: int) -> Document:
        """A sample, decoded.

        Raises:
            MMCoreError: something of it is broken; the line names shard, key and segment.
        """
        name, sample = self.read(i)
        try:
            return sample.document()
        except MMCoreError as error:
            raise MMCoreError(f"{name}: {error}") from error

    def texts(self, i: int) -> list[str]:
        """Texts of a sample, media left aside; nothing where it is broken."""
        try:
            entries = self.read(i)[1].segments
        except MMCoreError:
            return []
        return [str(e["text"]) for e in entries if isinstance(e, dict) and "text" in e]


def _index(path: Path) -> np.ndarray:
    """(documents + 1,) bytes at which the documents of a shard begin, and where the last one ends."""
    try:
        *begins, size = np.load(path.with_suffix(".npy"), allow_pickle=False).tolist()
        if size == path.stat().st_size:
            return np.array(begins)
    except (OSError, ValueError, TypeError):
        pass  # not ours, or not whole: the shard itself says it
    return _scan(path)


def _scan(path: Path) -> np.ndarray:
    """The index of a shard, from its headers."""
    begins: list[int] = []
    last = None
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                name = MEMBER.fullmatch(member.name)
                if name and member.isfile() and name[1] != last:
                    begins.append(member.offset)
                    last = name[1]
            end = tar.offset
    except (OSError, tarfile.TarError) as error:
        raise MMCoreError(f"{path}: not a whole tar file: {error}; copy it again") from error
    return np.array([*begins, end])
