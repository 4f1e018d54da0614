"""GenEval (arXiv 2310.11513): pictures of objects that a sentence names, counted, coloured and placed.

    prompts = read_prompts(Path("evaluation_metadata.jsonl"))            # github.com/djghosh13/geneval has it
    draw(mmcore.load(folder), prompts, Path("pictures"))                 # 00000/metadata.jsonl, 00000/samples/0000.png
    report = score(Path("pictures"), detector, colours)                  # see training/detectors.py

Files, thresholds and rules are those of the official evaluation, and its own programs read these folders too. The
official detector is a Mask2Former (Swin-S, COCO instances) and its colour classifier OpenAI's CLIP ViT-L/14 over crops
whose background is gray; here both are functions, so figures are comparable with published ones only where these two
stand behind them. Published figures with rewritten prompts want those sentences in the file's `prompt`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from mmcore.document import Document, Image, Text
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.replies import Request
from mmcore.training.evaluate import claim
from mmcore.training.scores import Score, share

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")

SURE, SURE_TO_COUNT = 0.3, 0.9
"""An object counts if its score is above this; the second where the number matters (tag `counting`)."""

MOST = 16
"""Objects of one class that are looked at."""

SLACK = 0.1
"""Centres must be further apart than this share of both objects' sizes to stand in any relation."""

BATCH = 8

METADATA, RESULTS, SCORES = "metadata.jsonl", "results.jsonl", "scores.json"


@dataclass(frozen=True)
class Clause:
    """Objects that a picture must have, or so many that it must not have.

    Args:
        kind: their class.
        count: how many.
        colour: one of COLOURS, or None for any.
        place: (one of RELATIONS, number of the clause whose objects it is about), or None.
    """

    kind: str
    count: int
    colour: str | None = None
    place: tuple[str, int] | None = None


@dataclass(frozen=True)
class Prompt:
    """One line of the metadata.

    Args:
        tag: its task, one of TAGS.
        words: the sentence.
        include: all of these are wanted.
        exclude: none of these may be.
        line: it all, as it was read.
    """

    tag: str
    words: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...]
    line: dict[str, Any]

    @classmethod
    def read(cls, line: dict[str, Any]) -> Prompt:
        """From a line.

        Raises:
            ValueError, KeyError, TypeError: it is not one.
        """
        include, exclude = (tuple(_clause(c, i) for i, c in enumerate(line.get(k, []))) for k in ("include", "exclude"))
        if line["tag"] not in TAGS or not isinstance(line["prompt"], str) or not include:
            raise ValueError(f"tag must be one of {', '.join(TAGS)}, prompt words, and include not empty")
        return cls(line["tag"], line["prompt"], include, exclude, line)


def _clause(told: dict[str, Any], number: int) -> Clause:
    place = told.get("position")
    if place is not None and (place[0] not in RELATIONS or not 0 <= place[1] < number):
        raise ValueError(f"position must be one of {', '.join(RELATIONS)} and the number of an earlier clause")
    if told.get("color", COLOURS[0]) not in COLOURS:
        raise ValueError(f"color must be one of {', '.join(COLOURS)}")
    return Clause(told["class"], int(told["count"]), told.get("color"), place and (place[0], int(place[1])))


def read_prompts(path: Path) -> list[Prompt]:
    """A file of metadata, a JSON object in each line.

    Raises:
        MMCoreError: it cannot be read, or a line is no metadata.
    """
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MMCoreError(f"{path}: cannot read GenEval's evaluation_metadata.jsonl: {error}") from error
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, 1):
        try:
            prompts.append(Prompt.read(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise MMCoreError(f"{path}: line {number} is no metadata of GenEval: {error!r}") from error
    if not prompts:
        raise MMCoreError(f"{path}: no line in it")
    return prompts


def draw(pipeline: Pipeline, prompts: Sequence[Prompt], folder: Path, count: int = 4, progress: bool = True) -> None:
    """Draw pictures as the model does where nobody says otherwise; those that are there already stay.

    Args:
        pipeline: the model.
        prompts: what to draw.
        folder: a folder for each prompt goes into it.
        count: pictures for each prompt; the published figures have 4.
        progress: whether to show a bar on a terminal.
    Raises:
        MMCoreError: the folder holds pictures of other prompts or another model, or cannot be written.
    """
    claim(folder, pipeline)
    places = [folder / f"{i:05d}" for i in range(len(prompts))]
    try:
        for place, prompt in zip(places, prompts, strict=True):
            (place / "samples").mkdir(parents=True, exist_ok=True)
            told, kept = place / METADATA, json.dumps(prompt.line)
            if told.exists() and told.read_text() != kept:
                raise MMCoreError(f"{told}: another prompt's pictures are here; choose another folder with --out")
            told.write_text(kept)
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write there: {error.strerror}; choose another with --out") from error
    wanted = [(i, k, places[i] / "samples" / f"{k:04d}.png") for i in range(len(prompts)) for k in range(count)]
    missing = [one for one in wanted if not one[2].exists()]
    bar = tqdm(
        total=len(wanted), initial=len(wanted) - len(missing), disable=None if progress else True, unit="picture"
    )
    with bar:
        for batch in (missing[i : i + BATCH] for i in range(0, len(missing), BATCH)):
            asked = [Request(Document((Text(prompts[i].words),)), "image", seed=1000 * i + k) for i, k, _ in batch]
            made = pipeline.reply(asked, pipeline.suited(asked[0]), progress=False)
            for reply, (_, _, path) in zip(made, batch, strict=True):
                reply.media[0].save(path)
            bar.update(len(batch))


@dataclass(frozen=True)
class Found:
    """An object that a detector has found.

    Args:
        kind: its class, as the metadata calls it.
        score: how sure it is, in [0, 1].
        box: left, top, right, bottom in pixels.
        mask: (H, W) bool, where it is, if the detector says so.
    """

    kind: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = field(default=None, repr=False, compare=False)


Detector = Callable[[np.ndarray], list[Found]]
"""(H, W, 3) uint8 -> what is in it."""

Colours = Callable[[np.ndarray, Sequence[Found], str], list[str]]
"""((H, W, 3) uint8, objects in it, their class) -> the colour of each, one of COLOURS."""


def relations(a: Found, b: Found) -> set[str]:
    """How one object stands to another: none, one or two of RELATIONS.

    Its centre's offset is shortened, in each direction, by SLACK of both sizes; what is left of it counts where it is
    more than half the whole offset's length.
    """
    box_a, box_b = (np.array(o.box).reshape(2, 2) for o in (a, b))
    offset = box_a.mean(0) - box_b.mean(0)
    sizes = np.abs(box_a[1] - box_a[0]) + np.abs(box_b[1] - box_b[0])
    rest = np.sign(offset) * np.maximum(np.abs(offset) - SLACK * sizes, 0)
    if np.abs(rest).max() < 1e-3:
        return set()
    x, y = rest / np.linalg.norm(offset)
    held = zip(RELATIONS, (x < -0.5, x > 0.5, y < -0.5, y > 0.5), strict=True)
    return {name for name, holds in held if holds}


def judge(prompt: Prompt, picture: np.ndarray, found: Sequence[Found], colours: Colours | None) -> list[str]:
    """What is wrong with a picture; nothing, if it is right.

    Of each class the surest objects are taken, as many as are wanted: they must have the colour, and each of them must
    stand as wanted to each of those of the other clause.

    Args:
        prompt: what was asked for.
        picture: (H, W, 3) uint8.
        found: what a detector sees in it.
        colours: tells colours; may be None where no clause has one.
    """
    sure = SURE_TO_COUNT if prompt.tag == "counting" else SURE
    surest = sorted((o for o in found if o.score > sure), key=lambda o: -o.score)
    of_kind = {o.kind: [p for p in surest if p.kind == o.kind][:MOST] for o in surest}
    wrong: list[str] = []
    groups: list[list[Found] | None] = []
    for clause in prompt.include:
        taken = of_kind.get(clause.kind, [])[: clause.count]
        faults: list[str] = []
        if len(taken) < clause.count:
            faults.append(f"{len(taken)} {clause.kind}, not {clause.count}")
        elif clause.colour is not None:
            assert colours is not None
            told = colours(picture, taken, clause.kind)
            if told.count(clause.colour) < clause.count:
                faults.append(f"{clause.kind}: {', '.join(told)}, not {clause.colour}")
        if clause.place is not None and not faults:
            relation, other = clause.place
            if (group := groups[other]) is None:
                faults.append(f"nothing for {clause.kind} to be {relation}")
            elif not all(relation in relations(a, b) for a in taken for b in group):
                faults.append(f"{clause.kind} not {relation} {prompt.include[other].kind}")
        groups.append(None if faults else taken)
        wrong += faults
    for clause in prompt.exclude:
        if (n := len(of_kind.get(clause.kind, []))) >= clause.count:
            wrong.append(f"{n} {clause.kind}, not fewer than {clause.count}")
    return wrong


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        scores: a row for each tag; the last is their mean, unless one was not scored.
        left_out: tags that want colours, where nothing tells them.
    """

    scores: tuple[Score, ...]
    left_out: tuple[str, ...]


def overall(rows: Sequence[Score]) -> Score:
    """The mean of rows; its 95 % interval is the normal one, of independent rows."""
    value = fmean(row.value for row in rows)
    half = 1.96 * math.sqrt(sum(row.value * (1 - row.value) / row.count for row in rows)) / len(rows)
    count = sum(row.count for row in rows)
    return Score("overall", "right", value, max(value - half, 0.0), min(value + half, 1.0), None, None, count)


def score(folder: Path, detector: Detector, colours: Colours | None, progress: bool = True) -> Report:
    """Judge the pictures of a folder; `results.jsonl` and `scores.json` are written into it.

    Args:
        folder: as `draw`, or the official program, lays it out.
        detector: finds objects.
        colours: tells their colours; without it, tags that want them are left out.
        progress: whether to show a bar on a terminal.
    Raises:
        MMCoreError: no picture is there, or a file is broken.
    """
    places = sorted(place for place in folder.glob("*") if place.name.isdigit() and place.is_dir())
    prompts = {place: read_prompts(place / METADATA)[0] for place in places}
    coloured = {p.tag for p in prompts.values() for c in p.include if c.colour is not None}
    left_out = tuple(tag for tag in TAGS if tag in coloured) if colours is None else ()
    paths = [path for place, p in prompts.items() if p.tag not in left_out for path in _pictures(place)]
    if not paths:
        raise MMCoreError(f"{folder}: no picture here that can be scored: NUMBER/samples/NUMBER.png is looked for")
    lines: list[dict[str, Any]] = []
    for path in tqdm(paths, disable=None if progress else True, unit="picture"):
        prompt, picture = prompts[path.parent.parent], Image.open(path).frames[0]
        found = detector(picture)
        wrong = judge(prompt, picture, found, colours)
        details = [{"class": o.kind, "score": o.score, "box": o.box} for o in found if o.score > SURE]
        line = {"filename": str(path.relative_to(folder)), "tag": prompt.tag, "prompt": prompt.words}
        line |= {"correct": not wrong, "reason": "\n".join(wrong), "metadata": json.dumps(prompt.line)}
        lines.append(line | {"details": json.dumps(details)})
    verdicts = {tag: [line["correct"] for line in lines if line["tag"] == tag] for tag in TAGS}
    rows = [share(tag, "right", right, None, None) for tag, right in verdicts.items() if right]
    report = Report((*rows, *(() if left_out else (overall(rows),))), left_out)
    try:
        (folder / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / SCORES).write_text(json.dumps([vars(row) for row in report.scores], indent=1) + "\n")
    except OSError as error:
        raise MMCoreError(f"{folder}: cannot write there: {error.strerror}") from error
    return report


def _pictures(place: Path) -> list[Path]:
    return sorted(path for path in (place / "samples").glob("*.png") if path.stem.isdigit())
