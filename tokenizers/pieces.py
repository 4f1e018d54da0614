"""Documents to pieces: each segment as ids or patches, ready for `mmcore.sequence`."""

from __future__ import annotations

from mmcore.autoencoder import PIXELS, Autoencoder
from mmcore.document import Document, Image, Segment, Text
from mmcore.sequence import IMAGE, VIDEO, Patches, Piece, Tokens
from mmcore.tokenizers.visual import look_at, patchify
from mmcore.tokenizers.words import Words


def segment_piece(
    segment: Segment, text: Words, patch: tuple[int, int, int], autoencoder: Autoencoder = PIXELS, look: int = 0
) -> Piece:
    """One segment.

    Args:
        segment: text, or a medium at the size and frame rate that the model is to see it.
        text: the text tokenizer.
        patch: (frames, rows, columns) of one patch, in cells.
        autoencoder: makes cells of pixels.
        look: side in pixels of what the model's eye is shown of media that it is given; 0 where it has none.
    """
    if isinstance(segment, Text):
        return Tokens(text.encode(segment.text), segment.learn)
    values, grid = patchify(segment.frames, patch, autoencoder)
    looks = look_at(segment.frames, patch[0], autoencoder.cell[0], look) if look and not segment.learn else None
    return Patches(values, grid, IMAGE if isinstance(segment, Image) else VIDEO, segment.learn, looks=looks)


def document_pieces(
    document: Document, text: Words, patch: tuple[int, int, int], autoencoder: Autoencoder = PIXELS, look: int = 0
) -> list[Piece]:
    """Every segment of a document; see `segment_piece`."""
    return [segment_piece(segment, text, patch, autoencoder, look) for segment in document]
