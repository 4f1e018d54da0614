"""Words to a family's token ids and back: the `tokenizer.json` that lies beside its weights, by `transformers`.

    text = FamilyText(folder)
    text.id("<|im_end|>"), text.encode("a red ball"), text.decode(ids)

Words that look like a special token are ordinary text: nobody can write `<|im_end|>` into a prompt and be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import Qwen2Tokenizer

from mmcore.errors import MMCoreError


class FamilyText:
    """A released tokenizer of the Qwen2 kind.

    Args:
        folder: with `tokenizer.json`, or with `vocab.json` and `merges.txt`.
    Raises:
        MMCoreError: the files are missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise MMCoreError(f"{folder}: no tokenizer.json here: not a model folder, or not all of it was copied")
        try:
            self._tokenizer = Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the tokenizers library raises bare exceptions
            raise MMCoreError(f"{folder}: cannot read the tokenizer: {error}; copy the folder again") from error

    @property
    def special(self) -> tuple[int, ...]:
        """Ids that are never text."""
        added = self._tokenizer.added_tokens_decoder
        return tuple(i for i, token in added.items() if token.special)

    def id(self, token: str) -> int:
        """The id of a special token.

        Raises:
            MMCoreError: there is no such token.
        """
        found = self._tokenizer.get_added_vocab().get(token)
        if found is None:
            raise MMCoreError(f"{self.folder}: its tokenizer has no {token}; copy the folder again")
        return found

    def encode(self, words: str) -> list[int]:
        """Ids of a text; none of them is special."""
        return list(self._tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens say nothing."""
        decoded = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(decoded, str)
        return decoded
