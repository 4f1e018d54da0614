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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from mmcore.attention import CONTEXT, PADDING, TARGET, TEXT, Marks
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


def pixels_as_bytes(values: Tensor) -> Tensor:
    """Patches of pixels in [-1, 1] as uint8, of which `bytes_as_pixels` makes the same again."""
    return ((values + 1) * 127.5).round().to(torch.uint8)


def bytes_as_pixels(values: Tensor) -> Tensor:
    """uint8 patches as float32 in [-1, 1]."""
    return values.float() / 127.5 - 1


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


@dataclass(frozen=True)
class PackedSequence:
    """B rows of positions in three lanes: what the model takes.

    Args:
        ids: (B, Lt) token ids.
        labels: (B, Lt) the token each position is to predict, IGNORE where none.
        patches: (B, Lc + Lx, P) float32, zeros at level positions and padding; or uint8 of pixels on their way to the
            model, where `to` makes floats of them.
        is_level: (B, Lc + Lx) bool, the level positions.
        level: (B, Lc + Lx) float32 noise level t of each visual position; 1 in context spans.
        grid: (B, Lc + Lx, 3) coordinates of each patch in its own grid.
        coords: (B, L, 3) rotary coordinates.
        marks: (B, L) what the mask needs.
        looks: (n, S, S, 3) uint8, what the eye is shown: one look for each plane of patches that it sees, in order.
        is_seen: (B, Lc) bool, the patches of those planes.
        lengths: (Lt, Lc, Lx).
    """

    ids: Tensor
    labels: Tensor
    patches: Tensor
    is_level: Tensor
    level: Tensor
    grid: Tensor
    coords: Tensor
    marks: Marks
    looks: Tensor
    is_seen: Tensor
    lengths: tuple[int, int, int]

    @property
    def target_patches(self) -> Tensor:
        """(B, Lx, P) the target lane's patches."""
        return self.patches[:, self.lengths[1] :]

    @property
    def is_patch(self) -> Tensor:
        """(B, Lc + Lx) bool: no level position, no padding."""
        return ~self.is_level & (self.marks.doc[:, self.lengths[0] :] != PADDING)

    @property
    def is_target_patch(self) -> Tensor:
        """(B, Lx) bool: the patches to be learnt or sampled."""
        return self.is_patch[:, self.lengths[1] :]

    def with_targets(self, patches: Tensor, level: Tensor) -> PackedSequence:
        """The same sequence with other target patches (B, Lx, P) and their noise levels (B, Lx)."""
        lc = self.lengths[1]
        return replace(
            self,
            patches=torch.cat((self.patches[:, :lc], patches), 1),
            level=torch.cat((self.level[:, :lc], level), 1),
        )

    def each(self, change: Callable[..., Tensor], *others: PackedSequence) -> PackedSequence:
        """The same sequence with every tensor changed; `change` is given those of the others at the same place too."""
        every = (self, *others)
        marks = Marks(*(change(*(getattr(s.marks, f.name) for s in every)) for f in fields(Marks)))
        names = [f.name for f in fields(self) if f.name not in ("marks", "lengths")]
        changed = {name: change(*(getattr(s, name) for s in every)) for name in names}
        return PackedSequence(**changed, marks=marks, lengths=self.lengths)

    def pin_memory(self) -> PackedSequence:
        """The same sequence in memory from which a GPU copies while it computes."""
        return self.each(lambda tensor: tensor.pin_memory() if tensor.numel() else tensor)

    def to(self, device: torch.device | str) -> PackedSequence:
        """The same sequence on a device, patches as floats."""
        moved = self.each(lambda tensor: tensor.to(device, non_blocking=True))
        if moved.patches.dtype != torch.uint8:
            return moved
        return replace(moved, patches=bytes_as_pixels(moved.patches).where(moved.is_patch[..., None], 0))

    def above(self, *others: PackedSequence) -> PackedSequence:
        """The rows of several sequences of the same lengths, as one."""
        return self.each(lambda *tensors: torch.cat(tensors), *others)


def pack(
    rows: Sequence[Sequence[Strip]],
    patch_width: int,
    lengths: tuple[int, int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> PackedSequence:
    """Lay strips out in rows; no document sees another.

    Args:
        rows: for each row its strips.
        patch_width: `P`.
        lengths: room in each lane (Lt, Lc, Lx); the longest row decides where it is None.
        dtype: of the strips' patches.
    Returns:
        The rows, padded to the room.
    """
    need = np.array([np.sum([(0, 0, 0), *(s.lengths for s in row)], 0) for row in rows]).max(0)
    room = tuple(int(n) for n in (need if lengths is None else lengths))
    assert all(n <= r for n, r in zip(need, room, strict=True)), f"rows need {need}, there is room for {room}"
    starts: dict[int, int] = {TEXT: 0, CONTEXT: room[0], TARGET: room[0] + room[1]}
    b, total = len(rows), sum(room)
    doc, span = np.full((b, total), PADDING), np.full((b, total), PADDING)
    hide = np.full((b, total), TARGET)
    coords = np.zeros((b, total, 3), int)
    ids, labels = np.full((b, room[0]), PAD), np.full((b, room[0]), IGNORE)
    visual = room[1] + room[2]
    is_level, grid = np.zeros((b, visual), bool), np.zeros((b, visual, 3), int)
    patches = torch.zeros(b, visual, patch_width, dtype=dtype)
    looks, is_seen = list[Tensor](), np.zeros((b, room[1]), bool)
    for r, row in enumerate(rows):
        at, offset = dict(starts), 0
        for d, strip in enumerate(row):
            n = strip.lengths[0]
            ids[r, at[TEXT] : at[TEXT] + n], labels[r, at[TEXT] : at[TEXT] + n] = strip.ids, strip.labels
            for kind in (CONTEXT, TARGET):
                cursor = at[kind] - room[0]
                for piece in strip.patches[kind]:
                    end = cursor + 1 + len(piece.values)
                    is_level[r, cursor] = True
                    patches[r, cursor + 1 : end] = piece.values
                    grid[r, cursor + 1 : end] = patch_coords(piece.grid)
                    if kind == CONTEXT and piece.looks is not None:
                        looks.append(piece.looks)
                        is_seen[r, cursor + 1 : end] = True
                    cursor = end
            for kind, lane in strip.lanes.items():
                if not lane.length:
                    continue
                where = slice(at[kind], at[kind] + lane.length)
                doc[r, where], span[r, where] = d, offset + np.concatenate(lane.span)
                coords[r, where], hide[r, where] = np.concatenate(lane.coords), np.concatenate(lane.hide)
                at[kind] += lane.length
            offset += strip.span
    kinds = np.repeat((TEXT, CONTEXT, TARGET), room)[None].repeat(b, 0)
    return PackedSequence(
        ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        patches=patches,
        is_level=torch.from_numpy(is_level),
        level=torch.ones(b, visual),
        grid=torch.from_numpy(grid),
        coords=torch.from_numpy(coords),
        marks=Marks(*(torch.from_numpy(a) for a in (doc, span, kinds, hide))),
        looks=torch.cat(looks) if looks else torch.empty(0, 0, 0, 3, dtype=torch.uint8),
        is_seen=torch.from_numpy(is_seen),
        lengths=(room[0], room[1], room[2]),
    )
