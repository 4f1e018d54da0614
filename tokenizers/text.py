"""Text to ids and back: a sentencepiece model whose first ids are the special tokens of `mmcore.sequence`.

    tokenizer = TextTokenizer("tokenizer.model")
    assert tokenizer.decode(tokenizer.encode(words)) == words      # any words: unknown characters go in as bytes

Words that look like a special token are ordinary text: nobody can write `<end>` into a prompt and be believed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from mmcore.errors import MMCoreError
from mmcore.sequence import OWN_SIGNS, PAD, UNK, VIDEO_END

SPECIALS = ("<start>", "<reply>", "<end>", "<image>", "</image>", "<video>", "</video>")
"""Names of the special tokens from START to VIDEO_END, in order."""


class TextTokenizer:
    """A trained sentencepiece model.

    Args:
        path: a `tokenizer.model` file.
    Raises:
        MMCoreError: the file is missing, broken, or made for another set of special tokens.
    """

    signs = OWN_SIGNS

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.model_bytes = self.path.read_bytes()
            self._model = sentencepiece.SentencePieceProcessor(model_proto=self.model_bytes)
        except (OSError, RuntimeError) as error:
            raise MMCoreError(f"{path}: cannot read the text tokenizer: {error}") from error
        if tuple(self._model.IdToPiece(i) for i in range(2, min(VIDEO_END + 1, len(self)))) != SPECIALS:
            raise MMCoreError(f"{path}: not a text tokenizer of mmcore: its special tokens are others")

    def __len__(self) -> int:
        return self._model.GetPieceSize()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; none of them is special."""
        return self._model.EncodeAsIds(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens say nothing."""
        return self._model.DecodeIds([i for i in ids if i > VIDEO_END])

    def save(self, folder: str | Path) -> Path:
        """Write the model as `tokenizer.model` in a folder."""
        path = Path(folder) / "tokenizer.model"
        path.write_bytes(self.model_bytes)
        return path


def train_text_tokenizer(texts: Iterable[str], size: int, path: str | Path) -> TextTokenizer:
    """Learn byte-pair pieces, with a byte fallback for what they do not cover.

    Args:
        texts: what to learn from.
        size: number of ids, special tokens and 256 bytes included.
        path: where the model goes.
    Raises:
        MMCoreError: the texts hold too few words for so many ids, or too many characters for so few.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=-1,
            eos_id=-1,
            control_symbols=list(SPECIALS),
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2]
        raise MMCoreError(f"a vocabulary of {size} cannot be learnt from these texts: {reason}") from error
    Path(path).write_bytes(model.getvalue())
    return TextTokenizer(path)
