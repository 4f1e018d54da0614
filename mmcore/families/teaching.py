"""From people's documents to what a family learns of them: one teacher for each family, all used alike.

    taught = teacher(folder, backbone, translator)
    lesson = taught.lesson(document, generator, levels=(-1.4, 1.0))
    losses = taught.measure([lesson])

A document is laid out as where it is asked for: words that are to be written make it a conversation or a question, a
medium alone makes it a command. Noise levels are logit-normal (arXiv 2403.03206), as in this library's own training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from mmcore.backbone import Backbone
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families import bagel, lance, showo2
from mmcore.families.bagel_media import BagelTranslator
from mmcore.families.bagel_past import BagelBackbone
from mmcore.families.diffusion_head import DiffusionHead
from mmcore.families.experts import ExpertCore
from mmcore.families.lance_media import LanceTranslator, task
from mmcore.families.lance_past import LanceBackbone
from mmcore.families.lance_pieces import Sentence
from mmcore.families.lessons import Draw, Lesson, Losses, bagel_lesson, lance_lesson, measure, noise_level
from mmcore.families.pair import renamed
from mmcore.families.shards import shards, weight_files
from mmcore.families.showo2_lessons import showo2_lesson, showo2_measure
from mmcore.families.showo2_media import Showo2Translator
from mmcore.families.showo2_past import Showo2Backbone
from mmcore.replies import Request
from mmcore.sequence import Patches, Piece
from mmcore.translator import Translator


@dataclass(frozen=True)
class Teacher:
    """What training knows of a family.

    Args:
        name: of the family.
        model: the network, of which nothing learns as it is loaded.
        translator: for the sizes of media.
        stacks: the parts of the network that adapters are put into.
        context: positions that a document may take.
        pieces: (fitted document, seed of what is drawn from posteriors) -> pieces.
        lay: pieces and noise -> lesson.
        measure: the losses of lessons.
        files: of weights.
        released: our name of a parameter -> the one in those files.
        beside: folders that belong to the model, in its folder or beside it.
    """

    name: str
    model: nn.Module
    translator: Translator
    stacks: Sequence[ExpertCore | DiffusionHead]
    context: int
    pieces: Callable[[Document, int], Sequence[Piece]]
    lay: Callable[[Sequence[Piece], Iterator[Draw]], Lesson]
    measure: Callable[[Sequence[Lesson]], Losses]
    files: Sequence[Path]
    released: Callable[[str], str]
    beside: tuple[str, ...] = ()

    @torch.no_grad()
    def lesson(self, document: Document, generator: torch.Generator, levels: tuple[float, float]) -> Lesson:
        """A document to learn from.

        Args:
            document: as people have it; some of it is to be learnt.
            generator: on the CPU; decides levels, noise, and what is drawn from posteriors.
            levels: mean and standard deviation of the logit of t.
        Raises:
            MMCoreError: the family cannot learn this, or it takes more positions than the model holds.
        """
        if not any(segment.learn for segment in document):
            raise MMCoreError("nothing in the document is to be learnt: mark a segment with learn")
        before: Segment | None = None
        for segment in document:
            if isinstance(segment, Video) and segment.learn and isinstance(before, Image):
                raise MMCoreError(f"{self.name} does not learn to set a picture in motion yet: leave the picture out")
            before = before if isinstance(segment, Text) else segment
        fit = self.translator.fit
        fitted = Document(tuple(s if isinstance(s, Text) else replace(fit(s), learn=s.learn) for s in document))
        pieces = self.pieces(fitted, int(torch.randint(2**31, (), generator=generator)))
        lesson = self.lay(pieces, self._draws(pieces, generator, levels))
        if len(lesson.strand) > self.context:
            raise MMCoreError(f"the document takes {len(lesson.strand)} positions, {self.name} holds {self.context}")
        return lesson

    def _draws(
        self, pieces: Sequence[Piece], generator: torch.Generator, levels: tuple[float, float]
    ) -> Iterator[Draw]:
        device = next(self.model.parameters()).device
        for piece in pieces:
            if isinstance(piece, Patches) and piece.learn:
                logit = levels[0] + levels[1] * torch.randn((), generator=generator)
                noise = torch.randn(piece.values.shape, generator=generator)
                yield Draw(float(noise_level(-logit, 1.0)), noise.to(device))


def teacher(folder: Path, backbone: Backbone, translator: Translator) -> Teacher:
    """The teacher of a released model.

    Args:
        folder: where its weights lie.
        backbone: it, loaded.
        translator: its documents.
    """
    if isinstance(backbone, BagelBackbone) and isinstance(translator, BagelTranslator):
        model = backbone.model
        return Teacher(
            "BAGEL",
            model,
            translator,
            (model.core,),
            model.config.context,
            lambda document, seed: _ordered(translator, document, "image", seed),
            lambda pieces, draws: bagel_lesson(backbone, pieces, draws),
            lambda lessons: measure(model, lessons),
            shards(folder, bagel.WEIGHTS),
            lambda ours: renamed(ours, bagel.NAMES),
        )
    if isinstance(backbone, LanceBackbone) and isinstance(translator, LanceTranslator):
        model = backbone.model
        return Teacher(
            "Lance",
            model,
            translator,
            (model.core,),
            model.config.context,
            lambda document, seed: _set(translator, document, seed),
            lambda pieces, draws: lance_lesson(backbone, pieces, draws),
            lambda lessons: measure(model, lessons),
            shards(folder, lance.WEIGHTS),
            lambda ours: renamed(ours, lance.NAMES),
            ("vae", lance.TOWER),
        )
    assert isinstance(backbone, Showo2Backbone) and isinstance(translator, Showo2Translator)
    model = backbone.model
    return Teacher(
        "Show-o2",
        model,
        translator,
        (model.core, model.head),
        model.config.context,
        lambda document, _: _by_turns(translator, document),
        lambda pieces, draws: showo2_lesson(backbone, pieces, draws),
        lambda lessons: showo2_measure(model, lessons),
        weight_files(folder),
        showo2.released_name,
    )


def _learnt(document: Document, kind: type[Text] | type[Image] | type[Video]) -> bool:
    """Whether something of a kind is to be learnt."""
    return any(isinstance(segment, kind) and segment.learn for segment in document)


def _ordered(translator: Translator, document: Document, want: str, seed: int) -> Sequence[Piece]:
    """A document as a prompt has it; where words alone are learnt, media are only looked at."""
    draws = _learnt(document, Image) or _learnt(document, Video)
    request = Request(document, want if draws else "text", seed=seed)
    return translator.order(request, translator.sizes(request)).pieces


def _set(translator: LanceTranslator, document: Document, seed: int) -> Sequence[Piece]:
    """The same behind the sentence that would set the task, had the document been asked for."""
    kinds = [kind for kind in (Text, Image, Video) if _learnt(document, kind)]
    want = {Text: "text", Image: "image", Video: "video"}[kinds[0]] if len(kinds) == 1 else "any"
    segments = list(document)
    first = next(i for i, segment in enumerate(segments) if segment.learn)
    sentence = translator.text.encode(task(Request(Document(tuple(segments[:first])), want)))
    _, *pieces = _ordered(translator, document, "any", seed)
    return [Sentence(translator.vocabulary.told(sentence), False), *pieces]


def _by_turns(translator: Showo2Translator, document: Document) -> Sequence[Piece]:
    """A conversation where words are learnt; else what stands before a medium, and the medium."""
    if not _learnt(document, Text):
        return list(translator.drawn(Request(document, "image"), {}))
    return list(translator.turns(document, asked=not (_learnt(document, Image) or _learnt(document, Video))))
