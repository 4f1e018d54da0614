"""Documents as the core sees them: positions with ids or patches, spans, and (t, h, w) coordinates.

    pieces --Strip--> one document's positions, by lane --pack--> PackedSequence (B rows of several documents)

A row is laid out in three *lanes*, text | context | target, whatever order the document is read in: order is
carried by the span numbers (`attention.Marks`) and the coordinates, and attention does not care where in memory a
position lies. So the feed-forward of each modality and the decoder work on plain slices, with static shapes.

    reading order   <start> a red ball <reply> <video> [target][context] </video> <end>
    text lane       <start> a red ball <reply> <video> </video> <end>
    context lane                                                [context]
    target lane                                         [target]

The last segment's context copy is left out of training where nothing is learnt from it. A visual span opens with one
*level* position, which holds its noise level t; its patches follow. Lengths: `Lt`, `Lc`, `Lx` per lane, `L` in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from mmcore.attention import CONTEXT, TARGET, TEXT
from mmcore.lane import Lane

IGNORE = -100
"""Label of a position at which nothing is learnt (the index that torch's cross-entropy ignores)."""

PAD, UNK, START, REPLY, END, IMAGE, IMAGE_END, VIDEO, VIDEO_END = range(9)
"""Ids of the special tokens; every vocabulary begins with them."""

CLOSER = {IMAGE: IMAGE_END, VIDEO: VIDEO_END}


@dataclass(frozen=True)
class Signs:
    """How a vocabulary tells what a document is made of. By default: a token for each thing, the first nine ids.

    Args:
        start: opens a document, before the user's turn.
        reply: stands between the user's turn and the model's.
        end: stands between the model's turn and the user's next; its first token ends a reply.
        image: opens and closes an image.
        video: opens and closes a video.
        special: ids that are never text, these among them.
    """

    start: tuple[int, ...] = (START,)
    reply: tuple[int, ...] = (REPLY,)
    end: tuple[int, ...] = (END,)
    image: tuple[int, int] = (IMAGE, IMAGE_END)
    video: tuple[int, int] = (VIDEO, VIDEO_END)
    special: tuple[int, ...] = tuple(range(VIDEO_END + 1))

    def around(self, opener: int) -> tuple[int, int]:
        """The tokens that open and close a medium of a kind, IMAGE or VIDEO."""
        return self.image if opener == IMAGE else self.video

    def opens(self, token: int) -> int | None:
        """IMAGE or VIDEO if a token opens one, else None."""
        return {self.image[0]: IMAGE, self.video[0]: VIDEO}.get(token)


OWN_SIGNS = Signs()
"""Of the tokenizer that is trained with a model."""

STRIDE = 3
"""Neighbouring patches lie so far apart, so that the fastest rotary wave (6.3 positions) tells them from each other."""

Grid = tuple[int, int, int]
"""(T, Y, X): patches along time, height and width."""


@dataclass(frozen=True)
class Tokens:
    """A text segment as ids."""

    ids: Sequence[int]
    learn: bool


@dataclass(frozen=True)
class Patches:
    """A visual segment as patches.

    Args:
        values: (N, P) float32, N = T * Y * X in that order.
        grid: (T, Y, X).
        opener: IMAGE or VIDEO, in every vocabulary.
        learn: whether the model is to write it.
        looks: (T, S, S, 3) uint8, what the model's eye is shown of each step in time; None where it does not look.
    """

    values: Tensor
    grid: Grid
    opener: int
    learn: bool
    looks: Tensor | None = field(default=None, kw_only=True)


Piece = Tokens | Patches


def patch_coords(grid: Grid) -> np.ndarray:
    """(N, 3) integer (t, y, x) of a grid's patches."""
    return np.indices(grid).reshape(3, -1).T


class Strip:
    """One document's positions, by lane, written from left to right. Training and generation both build it.

    A strip may go on from where another ended (`Strip(span, position)`): so a reply is written chunk by chunk.
    """

    def __init__(self, span: int = 0, position: int = 0) -> None:
        self.span, self.position = span, position
        self.lanes: dict[int, Lane] = {TEXT: Lane(), CONTEXT: Lane(), TARGET: Lane()}
        self.ids: list[int] = []
        self.labels: list[int] = []
        self.patches: dict[int, list[Patches]] = {CONTEXT: [], TARGET: []}

    @property
    def lengths(self) -> tuple[int, int, int]:
        """(Lt, Lc, Lx)."""
        return self.lanes[TEXT].length, self.lanes[CONTEXT].length, self.lanes[TARGET].length

    def text(self, ids: Sequence[int], labels: Sequence[int] | None = None) -> None:
        """Append text tokens, each a span of its own, with what each is to predict."""
        n = len(ids)
        steps = np.arange(n)
        self.lanes[TEXT].extend(self.span + steps, (self.position + steps)[:, None].repeat(3, 1), TARGET)
        self.ids.extend(ids)
        self.labels.extend([IGNORE] * n if labels is None else labels)
        self.span += n
        self.position += n

    def visual(self, patches: Patches, kind: int, hide: int = TARGET) -> None:
        """Append a visual span (level position, then patches) without moving on: its other copy may follow.

        Time goes on from the text; rows and columns are those of the grid, so that the same place in two media is at
        distance 0 whatever stands between them.
        """
        coords = np.concatenate((np.zeros((1, 3), int), 1 + patch_coords(patches.grid)))
        coords = coords * STRIDE + (self.position, 0, 0)
        self.lanes[kind].extend(np.full(len(coords), self.span), coords, hide | TARGET)
        self.patches[kind].append(patches)
        self.span += 1

    def advance(self, grid: Grid) -> None:
        """Move on past a visual span: the next text goes on from its last frame."""
        self.position += STRIDE * grid[0] + 1


def document_strip(
    pieces: Sequence[Piece],
    last_context: bool = True,
    hides: Sequence[Sequence[int]] = (),
    open_reply: bool = False,
    signs: Signs = OWN_SIGNS,
) -> Strip:
    """A whole document as a strip, with labels.

    Replies (runs of learnt pieces) stand between signs; the position before each learnt token predicts it, what ends a
    reply and what opens a medium included.

    Args:
        pieces: the segments.
        last_context: whether a learnt visual piece that ends the document is followed by its clean copy and the end.
        hides: for each learnt visual piece, for each of its target spans (one, where nothing is said), the kinds that
            it does not see (condition dropout). Several spans learn from the same words and source at several levels.
        open_reply: whether this is a prompt: nothing of it is to be written (any more), and a reply begins at its end.
        signs: of the vocabulary.
    Raises:
        ValueError: a visual piece's values do not fit its grid.
    """
    strip = Strip()
    strip.text(signs.start)
    replying, hide = False, iter(hides)
    end, *onward = signs.end

    def write(ids: Sequence[int], learn: bool) -> None:
        if learn and ids:
            strip.labels[-1] = ids[0]
        strip.text(ids, [*ids[1:], IGNORE] if learn and ids else None)

    for i, piece in enumerate(pieces):
        if piece.learn != replying:
            write(signs.reply if piece.learn else [end], learn=replying)
            write(() if piece.learn else onward, learn=False)
            replying = piece.learn
        if isinstance(piece, Tokens):
            write(piece.ids, piece.learn)
            continue
        if len(piece.values) != np.prod(piece.grid):
            raise ValueError(f"piece {i}: {len(piece.values)} patches do not fill the grid {piece.grid}")
        write([signs.around(piece.opener)[0]], piece.learn)
        if piece.learn and not open_reply:
            for hidden in next(hide, (0,)):
                strip.visual(piece, TARGET, hidden)
            if i + 1 == len(pieces) and not last_context:
                return strip
        strip.visual(piece, CONTEXT)
        strip.advance(piece.grid)
        strip.text([signs.around(piece.opener)[1]])
    if replying:
        write([end], learn=True)
    if open_reply:
        write(signs.reply, learn=False)
    return strip
