"""The model: embeddings, core, text head and diffusion decoder, as a `transformers` `PreTrainedModel`.

    model = MMCoreModel(MMCoreConfig(**PRESETS["debug"]))
    output = model(packed)                   # output.logits, output.patches
    losses = flow_losses(model, packed, generator)

It knows no optimizer, launcher or tokenizer. Shapes: see `packing.PackedSequence`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmcore.attention import make_mask
from mmcore.cache import Cache
from mmcore.config import MMCoreConfig
from mmcore.core import GRID_WAVES, Block, Core, PatchIn
from mmcore.decoder import DecoderBlock, DiffusionDecoder
from mmcore.eye import Eye
from mmcore.flow import MIN_REST, sample_levels, velocity_loss
from mmcore.layers import RMSNorm, ZeroLinear, rotary_angles, rotary_axes
from mmcore.linear import LinearAttention
from mmcore.packing import PackedSequence
from mmcore.pyramid import ZeroConvolution
from mmcore.quantize import quantize
from mmcore.sequence import IGNORE

PARTS = {
    "words": r"embedding\.|head\.|text_norm\.",
    "attention": r"core\.blocks\.\d+\.attention\.",
    "text": r"core\.blocks\.\d+\.text\.",
    "visual": r"core\.blocks\.\d+\.(visual\.|level$)",
    "patches": r"patch_in\.|eye\.(norm|project)\.",
    "eye": r"eye\.tower\.",
    "decoder": r"decoder\.",
}
"""What weights are for, and how their names begin: words in and out, the core's attention and feed-forwards, patches on
their way in, the vision tower, the diffusion decoder."""


def part_of(name: str) -> str:
    """The part, one of `PARTS`, that a weight of the model belongs to; "" for a weight of another kind of model."""
    return next((part for part, begins in PARTS.items() if re.match(begins, name)), "")


@dataclass(frozen=True)
class Output:
    """What one forward pass gives.

    Args:
        hidden: (B, Lt, D) normed hidden states of the text lane; `MMCoreModel.logits` turns them into logits.
        patches: (B, Lx, P) predicted clean patches of the target lane; level positions hold nothing of use.
    """

    hidden: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Losses:
    """Losses of one batch, each the mean over its own tokens, and how many there were."""

    text: Tensor
    flow: Tensor
    text_tokens: int
    flow_tokens: int


class MMCoreModel(PreTrainedModel):
    """One core for text, images and video, with a text head and a diffusion decoder.

    Args:
        config: its shape.
    """

    config_class = MMCoreConfig
    config: MMCoreConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block", "DecoderBlock"]  # noqa: RUF012

    def __init__(self, config: MMCoreConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.head = None if config.tied_head else nn.Linear(config.width, config.vocab_size, bias=False)
        self.patch_in = PatchIn(config)
        self.eye = Eye(config) if config.eye else None
        self.core = Core(config)
        self.text_norm = RMSNorm(config.width, eps=config.norm_eps)
        self.decoder = DiffusionDecoder(config)
        self.backend = "sdpa"
        self.post_init()
        self._look_up_places()
        if config.quantized:
            quantize(self, config.quantized)

    @torch.no_grad()
    def _look_up_places(self) -> None:
        """Let one head of each block of the core begin by attending to the same place, in its own span and in others.

        Its queries and keys are both the grid features of the two shortest wavelengths. As mimetic initialization
        (arXiv 2305.09828), which makes all of `query^T key` begin near the identity; see training/LOG.md for both.
        """
        config = self.config
        if self.device.type == "meta":
            return  # weights will be loaded
        read = torch.linalg.pinv(self.patch_in.grid.weight.float())  # what a position holds -> its grid features
        waves = torch.arange(len(read)) % GRID_WAVES >= GRID_WAVES - 2
        turns_with_time = (rotary_axes(config) == 0).repeat(2)
        for block in self.core.modules():
            if not isinstance(block, Block) or isinstance(block.attention, LinearAttention):
                continue
            look = nn.init.orthogonal_(torch.empty(config.head_width, int(waves.sum()))) @ read[waves]
            look /= look.norm(dim=1).mean()
            block.attention.key.weight[: config.head_width] = look
            look[turns_with_time] = 0
            block.attention.query.weight[: config.head_width] = look

    def _init_weights(self, module: nn.Module) -> None:
        """Every weight's init.

        | weight                                      | init                         |
        |---------------------------------------------|------------------------------|
        | norms                                       | 1                            |
        | norms of queries                            | 2: attention can be sharp    |
        | embedding                                   | normal, std 0.02             |
        | what each block adds to its level           | 0                            |
        | what ends a residual branch, or the decoder | 0                            |
        | every other matrix                          | normal, std 1 / sqrt(fan in) |
        | biases                                      | 0                            |
        | paces and taps of linear attention          | see `LinearAttention.begin`  |
        """
        if isinstance(module, RMSNorm):
            nn.init.constant_(module.weight, module.gain)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, (ZeroLinear, ZeroConvolution)):
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        elif isinstance(module, (Block, DecoderBlock)):
            nn.init.zeros_(module.level)
        elif isinstance(module, LinearAttention):
            module.begin()
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """The text head: (..., D) -> (..., vocabulary) float32."""
        head = self.embedding if self.head is None else self.head
        return F.linear(hidden, head.weight.to(hidden.dtype)).float()

    def forward(self, seq: PackedSequence, cache: Cache | None = None) -> Output:
        """Run the core over all positions and the decoder over the target lane.

        Args:
            seq: the positions. Target patches are taken as they are, at the noise level that `seq.level` says.
            cache: clean positions of the past. What is new is written behind it; `cache.commit(seq.marks)` keeps it.
        """
        assert seq.patches.is_floating_point(), "bytes of pixels become values by PackedSequence.to"
        lt, lc, lx = seq.lengths
        dtype = self._compute_dtype()
        config = self.config
        text = config.embedding_scale * self.embedding(seq.ids)
        visual, by_level, floors = self.patch_in(seq.patches, seq.grid, seq.level, seq.is_patch, seq.is_level)
        if self.eye is not None and (len(seq.looks) or self.training):
            visual = visual + F.pad(self.eye(seq.looks, seq.grid[:, :lc], seq.is_seen), (0, 0, 0, lx))
        x = torch.cat((text, visual), 1).to(dtype)  # (B, L, D)
        rope = rotary_angles(seq.coords, config)
        x, early = self.core(x, by_level, rope, seq.marks, lt, self.backend, cache)
        hidden = self.text_norm(x[:, :lt])
        target = slice(lt + lc, lt + lc + lx)
        if not lx:
            return Output(hidden, x.new_empty(len(x), 0, config.patch_width))
        alone = seq.marks[target].alone
        patches = self.decoder(
            x[:, target],
            [e[:, target] for e in early],
            by_level[:, lc:],
            (rope[0][:, :, target], rope[1][:, :, target]),
            make_mask(alone, alone, dtype, self.backend),
            [group.of_targets(lc, lc + lx) for group in floors],
        )
        return Output(hidden, patches)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """As in `transformers`; weights of an eye have the names that they have here, whichever tower it is."""
        super().save_pretrained(save_directory, save_original_format=False, **kwargs)

    def _compute_dtype(self) -> torch.dtype:
        """The dtype that attention will see: autocast's where it is on, else the weights'."""
        kind = self.embedding.weight.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.embedding.weight.dtype


def flow_losses(
    model: nn.Module,
    seq: PackedSequence,
    generators: torch.Generator | Sequence[torch.Generator],
    levels: tuple[float, float] = (-1.4, 1.5),
    rest: float = MIN_REST,
) -> Losses:
    """Noise the target spans, run the model, and take both losses.

    Args:
        model: an `MMCoreModel`, or what wraps one.
        seq: a packed batch, target patches clean.
        generators: draw one noise level for each span and the noise, each for its share of the rows, in order.
        levels: mean and standard deviation of the logit-normal noise levels.
        rest: see `flow.velocity_loss`.
    """
    lt, lc, _ = seq.lengths
    data = seq.target_patches
    dice = (generators,) if isinstance(generators, torch.Generator) else generators
    drawn_levels, drawn_noise = list[Tensor](), list[Tensor]()
    for generator, span in zip(dice, seq.marks.span[:, lt + lc :].clamp_min(0).chunk(len(dice)), strict=True):
        spans = int(span.max()) + 1 if span.numel() else 1
        drawn_levels.append(sample_levels((len(span), spans), *levels, generator).gather(1, span))
        drawn_noise.append(torch.randn((*span.shape, data.shape[2]), generator=generator, device=data.device))
    level, noise = torch.cat(drawn_levels), torch.cat(drawn_noise)
    output: Output = model(seq.noised(noise, level))
    learnt, is_patch = seq.labels != IGNORE, seq.is_target_patch
    logits = model.logits(output.hidden[learnt])  # type: ignore[operator]
    text = F.cross_entropy(logits, seq.labels[learnt], reduction="sum")
    flow = (velocity_loss(output.patches, data, level, rest) * is_patch).sum()
    text_tokens, flow_tokens = int(learnt.sum()), int(is_patch.sum())
    return Losses(text / max(text_tokens, 1), flow / max(flow_tokens, 1), text_tokens, flow_tokens)
