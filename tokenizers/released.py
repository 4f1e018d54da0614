"""The text tokenizer of a released text core, by `AutoTokenizer`, with the tokens of media added at its end.

    text = add_media(Path("Qwen3-1.7B"), rows=151936)    # old ids stay; `signs` follow its chat template
    text.save("model")                                   # its own files, and signs.json
    text = ReleasedText(Path("model"))

Words that look like a special token are ordinary text: nobody can write `<|im_end|>` into a prompt and be believed.
What stands between turns is read off the chat template once and kept in `signs.json`: a template may hold the date.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AddedToken, AutoTokenizer

from mmcore.errors import MMCoreError
from mmcore.sequence import Signs
from mmcore.tokenizers.text import SPECIALS

SIGNS = "signs.json"
"""File that says how documents are told in a released vocabulary."""

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What `AutoTokenizer` writes."""

MEDIA, TURNS = SPECIALS[3:], SPECIALS[:3]
"""Tokens that are added: of media, and of turns where there is no chat template."""

TURN = ("mmcoreone", "mmcoretwo", "mmcorethree")
"""What three turns say while the chat template is read."""


class ReleasedText:
    """A released tokenizer with the tokens of media.

    Args:
        folder: where `save` wrote one.
    Raises:
        MMCoreError: a file is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        try:
            table = json.loads((folder / SIGNS).read_text())
            signs = Signs(**{name: tuple(map(int, ids)) for name, ids in table.items()})  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MMCoreError(f"{folder / SIGNS}: cannot read it: {error}; copy the folder again") from error
        self._tokenizer, self.signs = _open(folder), signs

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; none of them is special."""
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens say nothing."""
        silent = set(self.signs.special)
        return self._tokenizer.decode([i for i in ids if i not in silent], clean_up_tokenization_spaces=False)

    def save(self, folder: str | Path) -> Path:
        """Write its files and `signs.json` in a folder."""
        self.save_released(folder)
        path = Path(folder) / SIGNS
        path.write_text(json.dumps(asdict(self.signs)))
        return path

    def save_released(self, folder: str | Path) -> None:
        """Write its own files alone, for `AutoTokenizer`."""
        self._tokenizer.save_pretrained(folder)


def _open(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare exceptions
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{folder}: cannot read the tokenizer: {reason}; copy the folder again") from error


def add_media(folder: Path, rows: int, into: Path) -> ReleasedText:
    """A released tokenizer with tokens for images and videos behind all others.

    Args:
        folder: of the text core.
        rows: of its table of words; ids below that but beyond the tokenizer's are never written.
        into: a folder where the result is saved.
    Raises:
        MMCoreError: the tokenizer cannot be read, or its chat template does not keep turns apart.
    """
    tokenizer = _open(folder)
    turns = None if tokenizer.chat_template is None else _turns(tokenizer, folder)
    new = (*MEDIA, *(() if turns else TURNS))
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in new], special_tokens=True)
    ids = dict(zip(new, tokenizer.convert_tokens_to_ids(list(new)), strict=True))
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    start, reply, end = turns or ((*first, ids[TURNS[0]]), (ids[TURNS[1]],), (ids[TURNS[2]],))
    image, image_end, video, video_end = (ids[name] for name in MEDIA)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | {*tokenizer.all_special_ids}
    unused = set(range(len(tokenizer), rows))
    signs = Signs(start, reply, end, (image, image_end), (video, video_end), tuple(sorted(special | unused)))
    tokenizer.save_pretrained(into)
    (into / SIGNS).write_text(json.dumps(asdict(signs)))
    return ReleasedText(into)


def _turns(tokenizer: Any, folder: Path) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What a chat template puts before a first turn, before the reply to it, and before the turn after that."""
    says = [{"role": role, "content": words} for role, words in zip(("user", "assistant", "user"), TURN, strict=True)]
    try:
        told = tokenizer.apply_chat_template(says, tokenize=False)
        places = [told.index(words) for words in TURN]
    except Exception as error:  # a template is a program, and may fail in any way
        raise MMCoreError(f"{folder}: its chat template cannot be followed: {error}") from error
    begins = [0, *(place + len(words) for place, words in zip(places, TURN, strict=True))]
    between = [told[begin:place] for begin, place in zip(begins, places, strict=False)]
    start, reply, end = (tuple(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in between)
    if not (start or reply) or not end or places != sorted(places):
        raise MMCoreError(f"{folder}: its chat template does not keep turns apart")
    return start, reply, end
