"""What Show-o2 learns from: documents with labels and noised media, and the losses of a batch of them.

    lessons = [showo2_lesson(backbone, pieces, iter([Draw(level, noise)]))]
    losses = showo2_measure(model, lessons)

As `mmcore.families.lessons`, for a model of one lane with a head of its own. Where the model speaks, it also learns to
open a medium and to end behind it, as it is asked to where it decides itself. Shapes: `N` latent tokens, `P` numbers in
each, in raster order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmcore.attention import TARGET
from mmcore.families.lanes import lay_out
from mmcore.families.lessons import Draw, Goal, Lesson, Losses, word_losses
from mmcore.families.line import Line
from mmcore.families.showo2 import Showo2
from mmcore.families.showo2_past import Showo2Backbone, Showo2Past
from mmcore.sequence import Patches, Piece, Tokens


def showo2_lesson(backbone: Showo2Backbone, pieces: Sequence[Piece], draws: Iterator[Draw]) -> Lesson:
    """A document for Show-o2.

    Args:
        backbone: the model.
        pieces: `Tokens`, `Patches` and `showo2_past.Asked`; those with `learn` are to be written.
        draws: one for each medium that is to be written.
    """
    past, model, words, line = Showo2Past(backbone, 1), backbone.model, backbone.words, Line()
    lesson = Lesson(line)
    speaks = any(isinstance(piece, Tokens) and piece.learn for piece in pieces)
    line.tokens(model.words([words.begin]))
    for i, piece in enumerate(pieces):
        last = i + 1 == len(pieces)
        ends = last or not pieces[i + 1].learn
        if isinstance(piece, Tokens):
            own = words.own(piece.ids)
            if piece.learn:
                lesson.expect([*own, words.end] if ends else own)
            line.tokens(model.words(own))
            continue
        if piece.learn and speaks:
            lesson.expect(words.markers(piece.opener)[:1])
        line.tokens(past.markers(piece)[:1])
        if piece.learn:
            place = line.position
            line.block((_noised(model, lesson, piece, next(draws)),), TARGET)
            line.position = place
        if not piece.learn or speaks or not last:
            past.medium(line, piece)
        if piece.learn and speaks and ends:
            lesson.expect([words.end])
    return lesson


def _noised(model: Showo2, lesson: Lesson, piece: Patches, draw: Draw) -> Tensor:
    """The time token and the tokens (1 + N, D) of a medium with its noise; where that leads is the next goal."""
    values = piece.values.to(draw.noise)
    lesson.goals.append(Goal(len(lesson.strand.lanes[0].span) + 1, values - draw.noise, draw.level))
    x = (1 - draw.level) * values + draw.level * draw.noise
    return torch.cat((model.time(x.new_tensor([1 - draw.level])), model.features(x[None], piece.grid)[0]))


def showo2_measure(model: Showo2, lessons: Sequence[Lesson]) -> Losses:
    """The losses of a batch, each document in a row of its own."""
    new = lay_out([lesson.strand for lesson in lessons], model.embed_tokens.weight)
    hidden = model(new)
    words = word_losses(lessons, hidden, model.logits)
    level = torch.ones(hidden.shape[:2], device=hidden.device)
    for row, lesson in zip(level, lessons, strict=True):
        for goal in lesson.goals:
            row[goal.at - 1 : goal.at + len(goal.velocity)] = 1 - goal.level
    errors = [hidden.new_zeros(0, model.config.patch_width)]
    if any(lesson.goals for lesson in lessons):
        for row, lesson in zip(model.velocity(hidden, level, new), lessons, strict=True):
            for goal in lesson.goals:
                errors.append((row[goal.at : goal.at + len(goal.velocity)] - goal.velocity).square())
    return Losses(words, torch.cat(errors))
