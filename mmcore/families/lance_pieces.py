"""What Lance's documents are made of, and how its predictions are guided.

    pieces = [Sentence(ids, False), Medium(values, grid, IMAGE, False, seen), Tokens(words, False)]
    guidance = replace(GUIDANCE, anew=True)

Shapes: `N` latent tokens, `P` numbers in each, `T Y X` their grid, `H W` pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from mmcore.backbone import Guidance
from mmcore.errors import MMCoreError
from mmcore.families.guidance import Renormed
from mmcore.sequence import Patches, Tokens


@dataclass(frozen=True)
class LanceGuidance(Renormed):
    """Guidance by words, its result bounded.

    The reference computes predictions without words in two ways that differ by a few tenths in the finished latents.
    With its cache, which its published figures were made with, the tokens behind the words keep their rotary positions,
    while the medium stands as if there had been no words; and lengths are measured over all of the medium. Without its
    cache all positions are counted anew, and lengths are measured over what is written, not over a first frame that was
    given.

    Args:
        anew: whether to follow the second way.
    """

    anew: bool = False


GUIDANCE = LanceGuidance(text=4.0, until=0.6, renorm="global")
"""As the released scripts have it, for pictures and clips, from words or by a source."""


@dataclass(frozen=True)
class Template:
    """Token ids around the turns of a conversation.

    Args:
        opening: before the sentence that sets the task.
        user: before what the user sends, behind what came before.
        reply: before a reply, behind what the user sent.
    """

    opening: tuple[int, ...]
    user: tuple[int, ...]
    reply: tuple[int, ...]


@dataclass(frozen=True)
class Sentence(Tokens):
    """What sets the task; the first piece of a document."""


@dataclass(frozen=True)
class Given(Patches):
    """The first latent frames of the medium that is to be written."""


@dataclass(frozen=True)
class Medium(Patches):
    """A picture or a clip to be read.

    Args:
        values: (N, P) its clean latent tokens, or (0, P) where it is only to be looked at.
        grid: (T, Y, X) latent tokens.
        seen: (3, T, H, W) as the tower takes it.
    """

    seen: Tensor


def as_lance(guidance: Guidance) -> LanceGuidance:
    """Any guidance as one of this family's.

    Raises:
        MMCoreError: it weighs media.
    """
    if guidance.media != 1:
        raise MMCoreError(f"this model's guidance is by words alone: media must be 1, got {guidance.media:g}")
    if isinstance(guidance, LanceGuidance):
        return guidance
    free = {} if isinstance(guidance, Renormed) else {"until": 1.0, "renorm": "none"}
    return LanceGuidance(**{**asdict(guidance), **free})
