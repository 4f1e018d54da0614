"""Guidance whose strength is kept in bounds: the guided velocity is made no longer than the conditional one.

    guidance = Renormed(text=4.0, media=1.0, until=0.6, renorm="global")
    v = guidance.combine(full, without_text, without_media)

Pushing a prediction away from the unconditional one makes it long, and pictures garish; BAGEL (arXiv 2505.14683,
`generate_image` of its code) scales it back. Shapes: `R` documents, `N` positions, `P` numbers in each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcore.backbone import Guidance
from mmcore.errors import MMCoreError

RENORMS = ("global", "channel", "text_channel", "none")


@dataclass(frozen=True)
class Renormed(Guidance):
    """Guidance by words, then by media, with the length of the result bounded.

    Args:
        text: weight of the words. Nothing at all happens unless it is above 1.
        media: weight of the earlier media; counts only above 1.
        since: level t from which on predictions are pushed.
        until: level t from which on they are not any more.
        renorm: over what lengths are measured: "global", the whole medium; "channel", each position by itself;
            "text_channel", each position, after the step by words and before that by media; "none".
        least: the guided prediction is never scaled by less than this, in [0, 1].
    """

    text: float = 4.0
    since: float = 0.0
    until: float = 0.6
    renorm: str = "global"
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.renorm not in RENORMS:
            raise MMCoreError(f"renorm must be one of {', '.join(RENORMS)}, got {self.renorm!r}")

    def acts(self, t: Tensor) -> bool:
        """Whether predictions at these levels (R,) are pushed."""
        return self.text > 1 and bool(((t >= self.since) & (t < self.until)).all())

    def combine(self, full: Tensor, without_text: Tensor, without_media: Tensor | None = None) -> Tensor:
        """The guided prediction, (R, N, P) each.

        Args:
            full: prediction with all of the condition.
            without_text: prediction without the words.
            without_media: prediction with the words alone; `full` where it is None.
        """
        guided = without_text + self.text * (full - without_text)
        if self.renorm == "text_channel":
            guided = self._bounded(guided, full, (-1,))
        if self.media > 1:
            base = full if without_media is None else without_media
            guided = base + self.media * (guided - base)
        if self.renorm in ("global", "channel"):
            guided = self._bounded(guided, full, (-2, -1) if self.renorm == "global" else (-1,))
        return guided

    def _bounded(self, guided: Tensor, full: Tensor, dims: tuple[int, ...]) -> Tensor:
        length, goal = (torch.linalg.vector_norm(v, dim=dims, keepdim=True) for v in (guided, full))
        return guided * (goal / (length + 1e-8)).clamp(self.least, 1.0)
