"""What BAGEL and Lance learn from: documents with labels and noised media, and the losses of a batch of them.
`mmcore.families.showo2_lessons` has what Show-o2 learns from, `mmcore.families.teaching` goes from documents to losses.

    draws = iter([Draw(level, noise)])                               # one for each medium that is to be written
    losses = measure(model, [bagel_lesson(backbone, pieces, draws)])
    (losses.words.mean() + losses.media.mean()).backward()

A document is laid out as it is for writing, so that what was learnt is what is asked for. A medium that is to be
written stands there noised, seen by itself alone; where anything follows, its clean copy comes behind it. Which of the
parameters learn is the caller's choice: loaded, none does. Shapes: `N` latent tokens, `P` numbers in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore.attention import TARGET
from mmcore.families.bagel_past import BagelBackbone, BagelPast
from mmcore.families.lance_past import LanceBackbone, LancePast
from mmcore.families.lance_pieces import Sentence
from mmcore.families.lanes import Strand, lay_out
from mmcore.families.pair import Pair
from mmcore.sequence import Patches, Piece, Tokens


@dataclass(frozen=True)
class Draw:
    """How a medium is noised.

    Args:
        level: in (0, 1], 1 is noise.
        noise: (N, P).
    """

    level: float
    noise: Tensor


@dataclass(frozen=True)
class Goal:
    """What is to be said of a noised medium.

    Args:
        at: where its latent tokens begin in the last lane.
        velocity: (N, P), the way that the family counts it.
        level: as in `Draw`.
    """

    at: int
    velocity: Tensor
    level: float


@dataclass
class Lesson:
    """One document.

    Args:
        strand: its positions.
        labels: (position in the first lane, token that it is to predict).
        goals: one for each noised medium.
    """

    strand: Strand = field(default_factory=Strand)
    labels: list[tuple[int, int]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def expect(self, ids: Sequence[int]) -> None:
        """The next text tokens are to be written: the position before each predicts it."""
        at = len(self.strand.lanes[0].span) - 1
        self.labels += [(at + i, token) for i, token in enumerate(ids)]


@dataclass(frozen=True)
class Losses:
    """Of a batch, one document after another.

    Args:
        words: (n) cross-entropy of each token that is to be written.
        media: (m, P) squared error of the velocity of each latent token.
    """

    words: Tensor
    media: Tensor


def noise_level(raw: Tensor, shift: float) -> Tensor:
    """Noise levels of training from any numbers (normal ones, as a rule): a sigmoid, then a shift towards the noise."""
    level = raw.sigmoid()
    return shift * level / (1 + (shift - 1) * level)


def bagel_lesson(backbone: BagelBackbone, pieces: Sequence[Piece], draws: Iterator[Draw]) -> Lesson:
    """A document for BAGEL.

    Args:
        backbone: the model.
        pieces: `Tokens`, and `bagel_past.Picture`; those with `learn` are to be written.
        draws: one for each picture that is to be written.
    """
    past, lesson, vocabulary = BagelPast(backbone, 1), Lesson(), backbone.vocabulary
    for i, piece in enumerate(pieces):
        if isinstance(piece, Tokens):
            own = vocabulary.own(piece.ids)
            lesson.strand.tokens(past.model.words([vocabulary.begin]))
            if piece.learn:
                lesson.expect([*own, vocabulary.end])
            lesson.strand.tokens(past.model.words([*own, vocabulary.end]))
            continue
        if piece.learn:
            draw, strand = next(draws), lesson.strand
            x = _noised(lesson, piece, draw)
            latents = past.model.latents(x, x.new_tensor(draw.level), piece.grid[1:])
            place = strand.position
            strand.block((past.markers(), latents), TARGET)
            strand.position = place
        if not piece.learn or i + 1 < len(pieces):
            past.picture(lesson.strand, piece)
    return lesson


def lance_lesson(backbone: LanceBackbone, pieces: Sequence[Piece], draws: Iterator[Draw]) -> Lesson:
    """A document for Lance.

    Args:
        backbone: the model.
        pieces: a `Sentence`, then `Tokens` and `lance_pieces.Medium`; those with `learn` are to be written.
        draws: one for each medium that is to be written.
    """
    past, lesson = LancePast(backbone, 1), Lesson()
    (row,), strand = past.rows, lesson.strand
    for i, piece in enumerate(pieces):
        last = i + 1 == len(pieces)
        if not isinstance(piece, Sentence):
            past.turn(row, strand, piece.learn)
        if isinstance(piece, Tokens):
            own = past.vocabulary.own(piece.ids)
            ends = piece.learn and (last or not pieces[i + 1].learn)
            if piece.learn:
                lesson.expect([*own, past.vocabulary.end] if ends else own)
            past.piece(row, strand, piece)
            continue
        if piece.learn:
            draw = next(draws)
            x = _noised(lesson, piece, draw)
            past.target(strand, row, strand.position, piece.grid, TARGET)
            strand.lanes[1].values[-1] = past.model.latents(x, x.new_full((len(x),), draw.level), piece.grid)
        if not piece.learn or not last:
            past.piece(row, strand, piece)
    return lesson


def _noised(lesson: Lesson, piece: Patches, draw: Draw) -> Tensor:
    """A medium with its noise (N, P); the way from the one to the other is the lesson's next goal."""
    values = piece.values.to(draw.noise)
    lesson.goals.append(Goal(len(lesson.strand.lanes[1].span), draw.noise - values, draw.level))
    return (1 - draw.level) * values + draw.level * draw.noise


def word_losses(lessons: Sequence[Lesson], hidden: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """Cross-entropies (n) of the labels of a batch.

    Args:
        lessons: one for each row.
        hidden: (B, L, D), the first lane first.
        logits: (n, D) -> (n, V).
    """
    said = [(row, *label) for row, lesson in enumerate(lessons) for label in lesson.labels]
    rows, places, tokens = torch.tensor(said, dtype=torch.long, device=hidden.device).view(-1, 3).unbind(1)
    return F.cross_entropy(logits(hidden[rows, places]), tokens, reduction="none")


def measure(model: Pair, lessons: Sequence[Lesson]) -> Losses:
    """The losses of a batch, each document in a row of its own."""
    new = lay_out([lesson.strand for lesson in lessons], model.embed_tokens.weight)
    hidden, begin = model(new), new.lengths[0]
    words = word_losses(lessons, hidden, model.logits)
    errors = [hidden.new_zeros(0, model.latent_out.out_features)]
    for row, lesson in zip(hidden, lessons, strict=True):
        for goal in lesson.goals:
            first = begin + goal.at
            velocity = model.velocity(row[first : first + len(goal.velocity)])
            errors.append((velocity - goal.velocity).square())
    return Losses(words, torch.cat(errors))
