"""Sampling in a long conversation: with the cache, against the whole conversation again for every prediction.

    python -m mmcore.training.bench_history

The second is how the reference implementation of Show-o2 runs, which has no cache. The model is of that family, of
middle size, with random weights, in float32; the conversation holds ten pictures, and the eleventh is drawn as the
family draws, guided, in 49 steps. Work is counted by torch (a multiplication and an addition are two). What is counted
is a lower bound of the reference's: here the layers through which latents enter run once for each earlier picture, and
predictions without the words run at their own length, not at that of the conversation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmcore.backbone import Backbone, Guidance, Past
from mmcore.families.diffusion_head import HeadShape
from mmcore.families.experts import Shape
from mmcore.families.showo2 import Showo2
from mmcore.families.showo2_config import Showo2Config
from mmcore.families.showo2_past import DRAWING, Showo2Backbone, Showo2Words
from mmcore.flow import Model
from mmcore.generate import Order, SegmentEvent, Settings, write
from mmcore.sequence import IMAGE, Grid, Patches, Piece, Tokens

MIDDLE = Showo2Config(
    Shape(width=512, depth=8, heads=8, kv_heads=2, hidden=2048, qk_norm=False),
    vocabulary=1000,
    theta=1e6,
    context=4096,
    tied=True,
    vision={"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 7, "num_attention_heads": 6},
    places=27,
    head=HeadShape(Shape(width=512, depth=3, heads=8, kv_heads=2, hidden=2048, bias=False)),
    grid=(8, 8),
    film_grid=(8, 8),
)
"""A core of 8 layers of width 512, a head of 3, and 6 layers of SigLIP."""

SETTINGS = Settings(steps=49, guidance=DRAWING, shift=3.0)
"""As the family's page has it."""

MEDIA, WORDS = 10, 12
"""Pictures in the conversation, and text tokens before each."""


@dataclass(frozen=True)
class Cost:
    """What it takes to draw a picture.

    Args:
        work: floating-point operations.
        seconds: of one run.
        made: (N, P) its latents.
    """

    work: int
    seconds: float
    made: Tensor


class Again:
    """A backbone whose every prediction reads the document again. For one document, whose reply is one medium.

    Args:
        backbone: the model, with its cache.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.patch_width, self.limit, self.rest = backbone.patch_width, backbone.limit, backbone.rest
        self.device = backbone.device

    def read(self, prompts: Sequence[Sequence[Piece]]) -> tuple[Past, Tensor]:
        """See `mmcore.backbone.Backbone`."""
        past, logits = self.backbone.read(prompts)
        return AgainPast(self.backbone, prompts, past), logits


class AgainPast:
    """A document as its pieces and what came after them; see `mmcore.backbone.Past`."""

    def __init__(self, backbone: Backbone, prompts: Sequence[Sequence[Piece]], past: Past) -> None:
        self.backbone, self.prompts, self.past = backbone, prompts, past
        self.said: list[Sequence[Sequence[int]]] = []

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """See `Past`."""
        self.said.append(ids)
        return self.past.tokens(ids)

    def visual(self, patches: Sequence[Patches | None]) -> Tensor:
        """See `Past`: nothing comes behind the medium."""
        raise NotImplementedError

    def room(self, row: int) -> int:
        """See `Past`."""
        return self.past.room(row)

    def predictor(self, rows: Sequence[int], grid: Grid, opener: int, guidance: Guidance) -> Model:
        """See `Past`."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            past, _ = self.backbone.read(self.prompts)
            for ids in self.said:
                past.tokens(ids)
            return past.predictor(rows, grid, opener, guidance)(x, t)

        return predict


def conversation(config: Showo2Config, media: int) -> list[Piece]:
    """Words and a picture, as often as said, and words: random, but the same each time."""
    generator = torch.Generator().manual_seed(0)
    count = config.grid[0] * config.grid[1]
    pieces: list[Piece] = []
    for turn in range(media + 1):
        ids = torch.randint(20, config.vocabulary, (WORDS,), generator=generator).tolist()
        pieces.append(Tokens(tuple(ids), False))
        if turn < media:
            values = torch.randn(count, config.patch_width, generator=generator)
            pieces.append(Patches(values, (1, *config.grid), IMAGE, True))
    return pieces


def random_model(config: Showo2Config) -> Showo2Backbone:
    """A model of this size that has learnt nothing."""
    torch.manual_seed(0)
    model = Showo2(config).eval().requires_grad_(False)
    words = Showo2Words(begin=1, end=2, opener=3, closer=4, special=(1, 2, 3, 4, 5, 6), film=5, cut=6)
    return Showo2Backbone(model, words)


def work(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and the attention of a run."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def cost(backbone: Backbone, pieces: Sequence[Piece], grid: Grid, settings: Settings) -> Cost:
    """Draw a picture behind a conversation. As every step takes the same work, one is counted by itself."""
    order = Order(pieces, {IMAGE: grid}, IMAGE, foreword=0)

    def draw(steps: int) -> Tensor:
        events = write(backbone, [order], replace(settings, steps=steps))
        (made,) = (event.piece for event in events if isinstance(event, SegmentEvent))
        assert isinstance(made, Patches)
        return made.values

    one, two = (work(partial(draw, steps)) for steps in (1, 2))
    began = time.perf_counter()
    made = draw(settings.steps)
    return Cost(one + (settings.steps - 1) * (two - one), time.perf_counter() - began, made)


def main() -> dict[str, float]:
    """What the new process measures: work in GFLOP, seconds."""
    backbone, grid = random_model(MIDDLE), (1, *MIDDLE.grid)
    pieces = conversation(MIDDLE, MEDIA)
    backbone.read([pieces])  # from now on it has the tokens of the earlier pictures
    cached, again = (cost(b, pieces, grid, SETTINGS) for b in (backbone, Again(backbone)))
    return {
        "cached work": cached.work / 1e9,
        "again work": again.work / 1e9,
        "cached seconds": cached.seconds,
        "again seconds": again.seconds,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
