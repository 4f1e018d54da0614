"""Any text tokenizer: what is asked of one, and the one that lies in a folder.

    text = open_words(folder)
    assert text.decode(text.encode("a red ball")) == "a red ball"
    document_strip(pieces, signs=text.signs)

A folder holds `tokenizer.model`, which was trained with the model, or the files of a released one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mmcore.errors import MMCoreError
from mmcore.sequence import Signs
from mmcore.tokenizers.released import FILES, SIGNS, ReleasedText
from mmcore.tokenizers.text import TextTokenizer

OWN = "tokenizer.model"
"""File of a tokenizer that was trained with its model."""


class Words(Protocol):
    """A text tokenizer."""

    @property
    def signs(self) -> Signs:
        """How its vocabulary tells what a document is made of."""
        ...

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; none of them is special."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens say nothing."""
        ...

    def save(self, folder: str | Path) -> Path:
        """Write it into a folder, for `open_words`."""
        ...


def words_file(folder: Path) -> Path | None:
    """The file by which a folder's tokenizer is known, if it has one; released ones may have an `OWN`, too."""
    return next((path for name in (SIGNS, OWN) if (path := folder / name).is_file()), None)


def open_words(folder: Path) -> Words:
    """The text tokenizer of a folder.

    Raises:
        MMCoreError: there is none, or it is broken.
    """
    file = words_file(folder)
    if file is None:
        raise MMCoreError(f"{folder}: no {OWN} here: not a model folder, or not all of it was copied")
    return TextTokenizer(file) if file.name == OWN else ReleasedText(folder)


def copy_words(source: Path, folder: Path) -> None:
    """Copy a folder's text tokenizer into another folder.

    Raises:
        OSError: there is none, or it cannot be copied.
    """
    for name in (OWN, SIGNS, *FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if words_file(folder) is None:
        raise FileNotFoundError(f"no {OWN} in {source}")
