"""The model's configuration, and the table of named sizes.

    MMCoreConfig(**PRESETS["tiny"])

The config is saved as `config.json` beside the weights by `save_pretrained`, as with every `transformers` model.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class MMCoreConfig(PretrainedConfig):
    """Shape of a model.

    Args:
        vocab_size: number of text tokens, special ones included.
        width: `D`, width of the residual stream.
        depth: blocks in the core.
        decoder_depth: blocks in the diffusion decoder; at most `depth`, since each takes one long skip.
        heads: `H`, attention heads; `width / heads` must be a multiple of 8 (three rotary axes share it).
        ff_width: hidden width of each feed-forward.
        patch: (frames, rows, columns) of one spacetime patch.
        floors: channels of the convolutional pyramid within a patch, finest first (see `pyramid`); each halves rows and
            columns. () is none: patches enter through the linear bottleneck and leave through one matrix.
        bottleneck: width of the linear bottleneck through which pixel patches enter (JiT, arXiv 2511.13720).
        embedding_scale: what token embeddings are multiplied by on their way in (as Gemma, arXiv 2403.08295), so that
            what a block adds does not drown them: the head, tied to them, wants them small.
        rope_theta: base of the rotary frequencies.
        context_length: most positions that one document may take, context and the segment being written together.
        frames: frames of a clip that nobody asked another length for.
        fps: frame rate the model was trained at.
        height: rows of a picture that nobody asked another size for.
        width_px: columns of the same.
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
        context_length: int = 4096,
        frames: int = 16,
        fps: float = 8.0,
        height: int = 64,
        width_px: int = 64,
        **kwargs: Any,
    ) -> None:
        if decoder_depth > depth:
            raise ValueError(f"decoder_depth {decoder_depth} needs as many core blocks to skip from, depth is {depth}")
        if any(size % 2 ** len(floors) for size in patch[1:]):
            raise ValueError(f"{len(floors)} floors halve patches as often; {patch[1]} x {patch[2]} pixels cannot be")
        if width % heads or (width // heads) % 8:
            raise ValueError(f"width / heads must be a multiple of 8, got {width} / {heads}")
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
        self.context_length = context_length
        self.frames = frames
        self.fps = fps
        self.height = height
        self.width_px = width_px
        super().__init__(**kwargs)

    @property
    def head_width(self) -> int:
        """`K`, width of one attention head."""
        return self.width // self.heads

    @property
    def patch_width(self) -> int:
        """`P`, numbers in one RGB pixel patch."""
        t, y, x = self.patch
        return t * y * x * 3


PRESETS: dict[str, dict[str, Any]] = {
    "debug": {"width": 64, "depth": 2, "decoder_depth": 1, "heads": 2, "ff_width": 128, "floors": (16, 32)},
    "tiny": {"width": 256, "depth": 6, "decoder_depth": 3, "heads": 4, "ff_width": 704, "floors": (64, 128)},
    "peer": {"width": 256, "depth": 4, "decoder_depth": 2, "heads": 4, "ff_width": 704, "bottleneck": 128},
    "small": {"width": 768, "depth": 12, "decoder_depth": 4, "heads": 12, "ff_width": 2048},
    "1b": {"width": 1536, "depth": 16, "decoder_depth": 6, "heads": 12, "ff_width": 4224, "bottleneck": 256},
    "7b": {"width": 3072, "depth": 30, "decoder_depth": 10, "heads": 24, "ff_width": 8448, "bottleneck": 512},
}
