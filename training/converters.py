"""Other people's datasets as documents: a function for each kind, from one row to samples.

    convert("image-text", Path("photos.jsonl"), Path("shards"))     # mmcore data convert image-text photos.jsonl shards

Media files are taken as they are; `mmcore data check` decodes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmcore.errors import MMCoreError
from mmcore.training.rows import Row, read_rows
from mmcore.training.shards import Sample, write_shards

QUESTION = "what is this?"
"""What a picture or a clip is shown with where its caption is the answer, as `Pipeline.caption` asks."""

IMAGE = ("image", "file_name", "image_path", "filepath", "file", "path")
VIDEO = ("video", "video_path", "file_name", "filepath", "file", "path")
CAPTION = ("caption", "text", "title", "name")
INSTRUCTION = ("instruction", "edit_prompt", "edit", "prompt")
BEFORE = ("source", "original_image", "source_img", "input_image", "source_video", "original_video", "input")
AFTER = ("target", "edited_image", "target_img", "output_image", "target_video", "edited_video", "output")


@dataclass
class Draft:
    """A sample that is being written, segment by segment."""

    segments: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def say(self, text: str, learn: bool = False) -> Draft:
        """Add words."""
        self.segments.append({"type": "text", "text": text, "learn": learn})
        return self

    def show(self, kind: str, path: Path, learn: bool = False) -> Draft:
        """Add a medium; `kind` is "image" or "video"."""
        name = f"{len(self.segments):03d}{path.suffix.lower()}"
        self.segments.append({"type": kind, "file": name, "learn": learn})
        self.files[name] = path.read_bytes()
        return self

    def done(self) -> Sample:
        """The sample."""
        return Sample(self.segments, self.files)


def pairs(row: Row, kind: str, names: tuple[str, ...]) -> Iterator[Sample]:
    """A medium with its caption: one document that makes it from the words, and one that describes it."""
    path, caption = row.medium(*names), row.text(*CAPTION)
    yield Draft().say(caption).show(kind, path, True).done()
    yield Draft().show(kind, path).say(QUESTION).say(caption, True).done()


def edits(row: Row, kind: str) -> Iterator[Sample]:
    """What there was, an instruction, and what it became (InstructPix2Pix, arXiv 2211.09800; MagicBrush)."""
    before, after = row.medium(*BEFORE), row.medium(*AFTER)
    yield Draft().show(kind, before).say(row.text(*INSTRUCTION)).show(kind, after, True).done()


def conversation(row: Row) -> Iterator[Sample]:
    """A conversation as LLaVA has it (arXiv 2304.08485): media stand where `<image>` or `<video>` does."""
    given = {kind: row.fields.get(kind) or [] for kind in ("image", "video")}
    media = {kind: [found] if isinstance(found, str) else list(found) for kind, found in given.items()}
    draft = Draft()
    for turn in row.items("conversations"):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise row.wrong('conversations: turns of {"from": ..., "value": ...} are expected')
        learn = turn.get("from") in ("gpt", "assistant")
        for words in re.split(r"(<image>|<video>)", turn["value"]):
            if words in ("<image>", "<video>"):
                kind = words.strip("<>")
                if not media[kind]:
                    raise row.wrong(f"conversations: there are more {words} than files under {kind!r}")
                draft.show(kind, row.file(media[kind].pop(0)), learn)
            elif words.strip():
                draft.say(words.strip(), learn)
    if left := [name for names in media.values() for name in names]:
        raise row.wrong(f"{left[0]} is shown nowhere: no <image> or <video> stands for it")
    yield draft.done()


def interleaved(row: Row) -> Iterator[Sample]:
    """A page of words and pictures, all of it to be written.

    As OBELICS has it (arXiv 2306.16527): `images` and `texts` side by side, one of each two null; or as MMC4
    (arXiv 2304.06939): `text_list`, and `image_info` whose pictures stand before the text that they match.
    """
    draft = Draft()
    if "text_list" in row.fields:
        infos = row.fields.get("image_info") or []
        for i, text in enumerate(row.items("text_list")):
            for info in (info for info in infos if info.get("matched_text_index") == i):
                draft.show("image", row.file(info.get("image_name")), True)
            draft.say(str(text), True)
    else:
        images, texts = row.items("images"), row.items("texts")
        if len(images) != len(texts):
            raise row.wrong(f"{len(images)} images stand beside {len(texts)} texts; as many are expected")
        for image, text in zip(images, texts, strict=True):
            if image is not None:
                draft.show("image", row.file(image), True)
            if text is not None:
                draft.say(str(text), True)
    yield draft.done()


KINDS: dict[str, Callable[[Row], Iterator[Sample]]] = {
    "image-text": lambda row: pairs(row, "image", IMAGE),
    "video-text": lambda row: pairs(row, "video", VIDEO),
    "image-edit": lambda row: edits(row, "image"),
    "video-edit": lambda row: edits(row, "video"),
    "conversation": conversation,
    "interleaved": interleaved,
}


def convert(
    kind: str, source: Path, folder: Path, media: Path | None = None, skip: Callable[[str], None] | None = None
) -> int:
    """Make shards of a dataset; they appear whole or not at all.

    Args:
        kind: one of KINDS.
        source: a .jsonl, .json or .csv file.
        folder: where the shards go; must not be there yet.
        media: the folder that media lie in; the source's own where it is None.
        skip: told of each row that is wrong, which is then left out; None lets the first one be an error.
    Returns:
        How many documents were written.
    Raises:
        MMCoreError: the source cannot be read, nothing is left of it, or a row is wrong: file and line are named.
    """

    def samples() -> Iterator[Sample]:
        for row in tqdm(read_rows(source, media or source.parent), disable=None, unit="row", leave=False):
            try:
                if isinstance(row, MMCoreError):
                    raise row
                made = list(KINDS[kind](row))
            except (MMCoreError, OSError, AttributeError, TypeError) as error:
                where = "" if isinstance(error, MMCoreError) else f"{getattr(row, 'where', source)}: "
                if skip is None:
                    raise MMCoreError(f"{where}{error}") from error
                skip(f"{where}{error}")
                continue
            yield from made

    return write_shards(samples(), folder)
