"""What is wrong with a folder of shards: every fault with file, sample and field.

for fault in check(Path("shards")): print(fault)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmcore.errors import MMCoreError
from mmcore.training.shards import Sample, Shards

FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "text": {"text": (str,), "learn": (bool,)},
    "image": {"file": (str,), "learn": (bool,), "frames": (int,), "fps": (int, float)},
    "video": {"file": (str,), "learn": (bool,), "frames": (int,), "fps": (int, float)},
}
"""What an entry of each type may hold. The first field must be there."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        place: shard and key.
        field: of the sample's JSON, "" for the sample as a whole.
        reason: what is wrong.
    """

    place: str
    field: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.field, self.reason) if part)


def check(folder: Path) -> Iterator[Fault]:
    """Read and decode everything.

    Raises:
        MMCoreError: there are no shards, or one is not a whole tar file.
    """
    shards = Shards(folder)
    for i in tqdm(range(len(shards)), disable=None, unit="document", leave=False):
        try:
            place, sample = shards.read(i)
        except MMCoreError as error:
            place, _, reason = str(error).partition(": ")
            yield Fault(place, "", reason)
            continue
        yield from (Fault(place, field, reason) for field, reason in faults(sample))


def faults(sample: Sample) -> Iterator[tuple[str, str]]:
    """Field and reason of everything that is wrong with a sample."""
    named: set[str] = set()
    for i, entry in enumerate(sample.segments):
        wrong = list(_entry_faults(entry))
        yield from ((f"segments[{i}]{field}", reason) for field, reason in wrong)
        if wrong or entry["type"] == "text":
            continue
        named.add(entry["file"])
        if entry["file"] not in sample.files:
            yield f"segments[{i}].file", f"there is no file {entry['file']!r} in the sample"
            continue
        try:
            Sample([entry], sample.files).document()
        except MMCoreError as error:
            yield f"segments[{i}].file", str(error).removeprefix("document.json: segment 0: ")
    if not any(isinstance(entry, dict) and entry.get("learn") is True for entry in sample.segments):
        yield "segments", "no segment has learn = true: there is nothing to learn from it"
    for name in sorted(sample.files.keys() - named):
        yield "", f"no segment names the file {name!r}"


def _entry_faults(entry: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with the fields of an entry."""
    kind = entry.get("type") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in FIELDS:
        yield ".type" if isinstance(entry, dict) else "", f"one of {', '.join(FIELDS)} is expected, got {kind!r}"
        return
    known = FIELDS[kind]
    if (needed := next(iter(known))) not in entry:
        yield f".{needed}", "is missing"
    for name, value in entry.items():
        if name in known and type(value) not in known[name]:
            yield f".{name}", f"{known[name][0].__name__} is expected, got {value!r}"
        elif name in ("frames", "fps") and value <= 0:
            yield f".{name}", f"must be above 0, got {value}"
        elif name not in known and name != "type":
            yield f".{name}", f"unknown; known are: {', '.join(known)}"
