"""The model's configuration, and the table of named sizes.

    MMCoreConfig(**PRESETS["tiny"])

The config is saved as `config.json` beside the weights by `save_pretrained`, as with every `transformers` model.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import PretrainedConfig

PERIOD = 4
"""Blocks of the core after which the pattern of linear and full attention comes again."""


class MMCoreConfig(PretrainedConfig):
    """Shape of a model.

    Args:
        vocab_size: number of text tokens, special ones included.
        width: `D`, width of the residual stream.
        depth: blocks in the core.
        decoder_depth: blocks in the diffusion decoder; at most `depth`, since each takes one long skip.
        heads: `H`, attention heads.
        kv_heads: `G`, heads of keys and values, each shared by `H / G` of queries (arXiv 2305.13245); None is `H`.
        head_width: `K`; None is `width / heads`. A multiple of 8 where three rotary axes share it.
        ff_width: hidden width of each feed-forward.
        patch: (frames, rows, columns) of one spacetime patch.
        floors: channels of the convolutional pyramid within a patch, finest first (see `pyramid`); each halves rows and
            columns. () is none: patches enter through the linear bottleneck and leave through one matrix.
        bottleneck: width of the linear bottleneck through which pixel patches enter (JiT, arXiv 2511.13720).
        embedding_scale: what token embeddings are multiplied by on their way in (as Gemma, arXiv 2403.08295), so that
            what a block adds does not drown them: the head, tied to them, wants them small.
        rope_theta: base of the rotary frequencies, each axis having a list of its own.
        rope_rates: angles per position of a head's `K / 2` pairs of channels, dealt out to t, h and w in turn: what a
            text core from elsewhere turns by. () is our own.
        rope_scale: what the rotary cosines and sines are multiplied by.
        qk_norm: whether queries and keys are normed, head by head (arXiv 2302.05442).
        biases: which matrices of attention have one, of "query", "key", "value" and "out".
        norm_eps: what norms add to the mean square.
        tied_head: whether the text head is the embedding.
        latent_channels: channels of the latents that patches are cut from (see `autoencoder`); 0 is none: patches are
            cut from pixels.
        latent_cell: (frames, rows, columns) of pixels in one cell of latents; the first frame has a cell of its own.
        quantized: how matrices are stored (see `quantize`): "int8", "int4", or "" for as they are.
        origin: the `config.json` of the text core that this one began as; {} is none.
        eye: a vision tower that given media are looked at with (see `eye.read_eye`); {} is none.
        context_length: most positions that one document may take, context and the segment being written together.
        frames: frames of a clip that nobody asked another length for.
        fps: frame rate the model was trained at.
        height: rows of a picture that nobody asked another size for.
        width_px: columns of the same.
        sizes: (frames, rows, columns) of several sizes that media come in (see `nearest`); () is the one above.
        note: what the model is asked of each medium that it is given, before what was said of it (see `notes`); "" is
            nothing.
        linear: how many of each four blocks of the core have linear attention (see `linear`), the last ones full: 0 is
            all full, 3 a hybrid (as Qwen3-Next), 4 all linear.
    """

    model_type = "mmcore"

    def __init__(
        self,
        vocab_size: int = 1024,
        width: int = 256,
        depth: int = 6,
        decoder_depth: int = 3,
        heads: int = 4,
        ff_width: int = 704,
        patch: tuple[int, int, int] = (4, 16, 16),
        floors: tuple[int, ...] = (),
        bottleneck: int = 128,
        embedding_scale: float = 16.0,
        rope_theta: float = 100.0,
        rope_rates: tuple[float, ...] = (),
        rope_scale: float = 1.0,
        kv_heads: int | None = None,
        head_width: int | None = None,
        qk_norm: bool = True,
        biases: tuple[str, ...] = (),
        norm_eps: float = 1e-6,
        tied_head: bool = True,
        latent_channels: int = 0,
        latent_cell: tuple[int, int, int] = (1, 1, 1),
        quantized: str = "",
        origin: dict[str, Any] | None = None,
        eye: dict[str, Any] | None = None,
        context_length: int = 4096,
        frames: int = 16,
        fps: float = 8.0,
        height: int = 64,
        width_px: int = 64,
        sizes: tuple[tuple[int, int, int], ...] = (),
        note: str = "",
        linear: int = 0,
        **kwargs: Any,
    ) -> None:
        if decoder_depth > depth:
            raise ValueError(f"decoder_depth {decoder_depth} needs as many core blocks to skip from, depth is {depth}")
        if any(size % 2 ** len(floors) for size in patch[1:]):
            raise ValueError(f"{len(floors)} floors halve patches as often; {patch[1]} x {patch[2]} pixels cannot be")
        if head_width is None and (width % heads or (width // heads) % 8):
            raise ValueError(f"width / heads must be a multiple of 8, got {width} / {heads}")
        if rope_rates and 2 * len(rope_rates) != (head_width or width // heads):
            raise ValueError(f"{len(rope_rates)} rope_rates turn heads of twice that width, not {head_width}")
        if heads % (kv_heads or heads):
            raise ValueError(f"{kv_heads} heads of keys and values cannot be shared by {heads} of queries")
        if linear not in range(PERIOD + 1):
            raise ValueError(f"linear blocks are counted among each {PERIOD}: 0 to {PERIOD}, got {linear}")
        if linear and origin:
            raise ValueError(f"a released text core has full attention in every block: linear must be 0, got {linear}")
        self.vocab_size = vocab_size
        self.width = width
        self.depth = depth
        self.decoder_depth = decoder_depth
        self.heads = heads
        self.ff_width = ff_width
        self.patch = (patch[0], patch[1], patch[2])
        self.floors = tuple(floors)
        self.bottleneck = bottleneck
        self.embedding_scale = embedding_scale
        self.rope_theta = rope_theta
        self.rope_rates = tuple(rope_rates)
        self.rope_scale = rope_scale
        self.kv_heads = kv_heads or heads
        self.head_width = head_width or width // heads
        self.qk_norm = qk_norm
        self.biases = tuple(biases)
        self.norm_eps = norm_eps
        self.tied_head = tied_head
        self.latent_channels = latent_channels
        self.latent_cell = (latent_cell[0], latent_cell[1], latent_cell[2])
        self.quantized = quantized
        self.origin = origin or {}
        self.eye = eye or {}
        self.context_length = context_length
        self.frames = frames
        self.fps = fps
        self.height = height
        self.width_px = width_px
        self.sizes = tuple((size[0], size[1], size[2]) for size in sizes)
        self.note = note
        self.linear = linear
        super().__init__(**kwargs)

    def is_linear(self, layer: int) -> bool:
        """Whether a block of the core has linear attention."""
        return layer % PERIOD < self.linear

    @property
    def channels(self) -> int:
        """Numbers in what patches are cut from: the colours of a pixel, or the channels of a latent."""
        return self.latent_channels or 3

    @property
    def patch_width(self) -> int:
        """`P`, numbers in one patch."""
        t, y, x = self.patch
        return t * y * x * self.channels

    @property
    def look(self) -> int:
        """Rows and columns, in pixels, of what the eye is shown; 0 where there is none."""
        return self.eye.get("side", 0)

    def grid(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """How many patches (T, Y, X) a clip of `size` (frames, rows, columns) takes."""
        return grid_of(size, self.patch, self.latent_cell)

    def whole(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The smallest size that holds `size` (frames, rows, columns) and leaves no part of a patch empty."""
        cells = [n * p for n, p in zip(self.grid(size), self.patch, strict=True)]
        t, y, x = self.latent_cell
        return 1 + (cells[0] - 1) * t, cells[1] * y, cells[2] * x

    def nearest(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The one of `sizes` that a medium is fitted to: near in shape, then in area; the longest that it fills.

        Args:
            size: (frames, rows, columns) of the medium, at the model's frame rate.
        """
        frames, rows, columns = size

        def distance(other: tuple[int, int, int]) -> float:
            tall, wide = math.log(other[1] / rows), math.log(other[2] / columns)
            return abs(tall - wide) + abs(tall + wide) / 4

        sizes = self.sizes or ((self.frames, self.height, self.width_px),)
        near = min(map(distance, sizes))
        alike = sorted(other for other in sizes if distance(other) == near)
        return next((other for other in reversed(alike) if other[0] <= frames), alike[0])


def cells_of(size: tuple[int, int, int], cell: tuple[int, int, int]) -> tuple[int, int, int]:
    """How many cells a clip of `size` (frames, rows, columns) takes; the first frame has a cell of its own."""
    (frames, rows, columns), (t, y, x) = size, cell
    return 1 - (1 - frames) // t, -(-rows // y), -(-columns // x)


def grid_of(
    size: tuple[int, int, int], patch: tuple[int, int, int], cell: tuple[int, int, int] = (1, 1, 1)
) -> tuple[int, int, int]:
    """How many patches (T, Y, X) a clip of `size` (frames, rows, columns) takes.

    Args:
        size: in pixels.
        patch: (frames, rows, columns) of one patch, in cells.
        cell: the same of one cell, in pixels.
    """
    t, y, x = (-(-n // p) for n, p in zip(cells_of(size, cell), patch, strict=True))
    return t, y, x


PRESETS: dict[str, dict[str, Any]] = {
    "debug": {"width": 64, "depth": 2, "decoder_depth": 1, "heads": 2, "ff_width": 128, "floors": (16, 32)},
    "tiny": {"width": 256, "depth": 6, "decoder_depth": 3, "heads": 4, "ff_width": 704, "floors": (64, 128)},
    "peer": {"width": 256, "depth": 4, "decoder_depth": 2, "heads": 4, "ff_width": 704, "bottleneck": 128},
    "small": {"width": 768, "depth": 12, "decoder_depth": 4, "heads": 12, "ff_width": 2048},
    "1b": {"width": 1536, "depth": 16, "decoder_depth": 6, "heads": 12, "ff_width": 4224, "bottleneck": 256},
    "1b-480p": {
        **{"width": 1536, "depth": 16, "decoder_depth": 6, "heads": 12, "ff_width": 4224, "bottleneck": 256},
        **{"patch": (1, 2, 2), "latent_channels": 16, "latent_cell": (4, 8, 8)},
        **{"frames": 81, "height": 480, "width_px": 832, "fps": 16.0, "context_length": 131072},
    },
    "7b": {"width": 3072, "depth": 30, "decoder_depth": 10, "heads": 24, "ff_width": 8448, "bottleneck": 512},
}
