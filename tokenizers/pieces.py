"""Documents to pieces: each segment as ids or patches, ready for `mmcore.sequence`."""

from __future__ import annotations

from mmcore.document import Document, Image, Segment, Text
from mmcore.sequence import IMAGE, VIDEO, Patches, Piece, Tokens
from mmcore.tokenizers.text import TextTokenizer
from mmcore.tokenizers.visual import patchify


def segment_piece(segment: Segment, text: TextTokenizer, patch: tuple[int, int, int]) -> Piece:
    """One segment.

    Args:
        segment: text, or a medium at the size and frame rate that the model is to see it.
        text: the text tokenizer.
        patch: (frames, rows, columns) of one patch.
    """
    if isinstance(segment, Text):
        return Tokens(text.encode(segment.text), segment.learn)
    values, grid = patchify(segment.frames, patch)
    return Patches(values, grid, IMAGE if isinstance(segment, Image) else VIDEO, segment.learn)


def document_pieces(document: Document, text: TextTokenizer, patch: tuple[int, int, int]) -> list[Piece]:
    """Every segment of a document; see `segment_piece`."""
    return [segment_piece(segment, text, patch) for segment in document]
