"""What two-expert models of one kind share: words and features to the first expert, noisy latents to the second.

    class Bagel(Pair): ...
    hidden = model(lay_out([strand], model.embed_tokens.weight), cache)

Both experts are whole Qwen2 layers (`mmcore.families.experts`), attention is joint. t = 0 is noise and t = 1 data in
this library; these families count the other way, and `level` is their noise level, 1 - t. Shapes: `B` rows, `L`
positions, `D` width, `P` numbers in a latent token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmcore.attention import make_mask
from mmcore.cache import Cache
from mmcore.families.embedding import LevelEmbedding
from mmcore.families.experts import ExpertCore, Shape
from mmcore.families.lanes import Layout
from mmcore.families.rotary import frequencies, turns


class Pair(nn.Module):
    """Embedding, core, heads, and the way of latents in and out.

    Args:
        shape: sizes of the core.
        vocabulary: number of token ids.
        theta: base of the rotary frequencies.
        sections: how many of them turn with t, h and w.
        patch_width: `P`.
    """

    def __init__(
        self, shape: Shape, vocabulary: int, theta: float, sections: tuple[int, int, int], patch_width: int
    ) -> None:
        super().__init__()
        self.shape, self.theta, self.sections = shape, theta, sections
        self.embed_tokens = nn.Embedding(vocabulary, shape.width)
        self.core = ExpertCore(shape, experts=2)
        self.lm_head = nn.Linear(shape.width, vocabulary, bias=False)
        self.level = LevelEmbedding(shape.width)
        self.latent_in = nn.Linear(patch_width, shape.width)
        self.latent_out = nn.Linear(shape.width, patch_width)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.embed_tokens.weight.device

    def words(self, ids: Sequence[int]) -> Tensor:
        """Token ids -> (n, D)."""
        return self.embed_tokens(torch.tensor(ids, dtype=torch.long, device=self.device))

    def velocity(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) of latent tokens -> float32 velocity (..., P), from data to noise."""
        return self.latent_out(hidden).float()

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary) float32."""
        return self.lm_head(hidden).float()

    def forward(self, new: Layout, cache: Cache | None = None) -> Tensor:
        """Normed hidden states (B, L, D) of new positions; `cache.commit(new.marks)` keeps them."""
        rope = turns(new.coords, frequencies(self.shape.head_width, self.theta, new.x.device), self.sections)
        marks = new.marks if cache is None else cache.joined(new.marks)
        mask = make_mask(new.marks, marks, new.x.dtype, "sdpa")
        return self.core(new.x, new.lengths, rope, mask, cache)


RELEASED = (
    (r"^core\.norms\.0", "language_model.model.norm"),
    (r"^core\.norms\.1", "language_model.model.norm_moe_gen"),
    (r"^core\.(layers\.\d+)\.experts\.0", r"language_model.model.\1"),
    (r"^core\.(layers\.\d+)\.experts\.1\.(self_attn\.\w+|\w+)", r"language_model.model.\1.\2_moe_gen"),
    (r"^embed_tokens", "language_model.model.embed_tokens"),
    (r"^lm_head", "language_model.lm_head"),
    (r"^level\.", "time_embedder."),
    (r"^latent_in", "vae2llm"),
    (r"^latent_out", "llm2vae"),
)
"""Our names of these parameters, and the released ones."""


def renamed(ours: str, table: Sequence[tuple[str, str]]) -> str:
    """A name by the first pattern of a table that fits, or as it is."""
    for pattern, replacement in table:
        name, found = re.subn(pattern, replacement, ours)
        if found:
            return name
    return ours
