"""How much arithmetic a training step is, by formula (a multiplication and an addition count as two).

    load = Load.of(seq); 3 * forward_flops(config, load)        # backward takes twice as much as forward

Matrix products, convolutions and attention are counted, as `torch.utils.flop_counter` does; nothing else matters, but
for an eye (see `eye`), which is not counted yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmcore.chains import CHUNK
from mmcore.config import MMCoreConfig
from mmcore.core import GRID_WAVES, LEVEL_WAVES
from mmcore.packing import PackedSequence
from mmcore.sequence import IGNORE


@dataclass(frozen=True)
class Load:
    """What a packed batch asks of a model.

    Args:
        rows: `B`.
        lengths: positions of a row in each lane (Lt, Lc, Lx), padding included.
        patches: patches in the context and the target lane of all rows; they alone go through the pyramid.
        targets: those of them in the target lane.
        words: text positions whose next token is learnt.
    """

    rows: int
    lengths: tuple[int, int, int]
    patches: int
    targets: int
    words: int

    @staticmethod
    def of(seq: PackedSequence) -> Load:
        """The load of a batch."""
        counts = (seq.is_patch.sum(), seq.is_target_patch.sum(), (seq.labels != IGNORE).sum())
        patches, targets, words = (int(count) for count in counts)
        return Load(len(seq.ids), seq.lengths, patches, targets, words)

    @staticmethod
    def full(rows: int, lengths: tuple[int, int, int], words: float = 0.5) -> Load:
        """A batch without padding, of whose text this share is learnt."""
        patches, targets = rows * (lengths[1] + lengths[2]), rows * lengths[2]
        return Load(rows, lengths, patches, targets, round(rows * lengths[0] * words))


def attention_flops(config: MMCoreConfig, rows: int, length: int) -> int:
    """Four matrices, and scores of every position with every other one (masks save nothing in dense attention)."""
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    return rows * length * (4 * config.width * (queries + keys) + 4 * length * queries)


def linear_flops(config: MMCoreConfig, rows: int, length: int) -> int:
    """Five matrices and two narrow ones, and the rule over chunks and states; chunks are taken to be full."""
    inner = config.heads * config.head_width
    matrices = 2 * config.width * (5 * inner + 2 * config.heads)
    return rows * length * (matrices + 6 * inner * (CHUNK + config.head_width))


def forward_flops(config: MMCoreConfig, load: Load) -> int:
    """Floating-point operations of one forward pass with both losses.

    Args:
        config: the model's shape; planes (see `pyramid`) are taken to be of its picture size.
        load: the batch.
    """
    d, ff, patch = config.width, config.ff_width, config.patch_width
    lt, lc, lx = load.lengths
    visual = load.rows * (lc + lx)
    length, linear = lt + lc + lx, sum(map(config.is_linear, range(config.depth)))
    full = (config.depth - linear) * attention_flops(config, load.rows, length)
    core = full + linear * linear_flops(config, load.rows, length) + config.depth * load.rows * length * 6 * d * ff
    decoder = attention_flops(config, load.rows, lx) + load.rows * lx * (6 * d * ff + 4 * d**2)
    entry = visual * 2 * (6 * GRID_WAVES * d + 2 * LEVEL_WAVES * d + 4 * d**2)
    if config.floors:
        ends = pyramid_flops(config, load.patches, up=False) + pyramid_flops(config, load.targets, up=True)
    else:
        ends = visual * 2 * config.bottleneck * (patch + d) + load.rows * lx * 2 * d * patch
    head = load.words * 2 * d * config.vocab_size
    return core + config.decoder_depth * decoder + entry + ends + head


def pyramid_flops(config: MMCoreConfig, patches: int, up: bool) -> int:
    """The pyramid within patches, one way: per patch, and for the noise level per plane."""
    floors, d = config.floors, config.width
    planes = patches // ((config.height // config.patch[1]) * (config.width_px // config.patch[2]))
    pixels = [4 ** (len(floors) - i) for i in range(len(floors))]  # of each floor in a patch
    total = patches * 2 * config.patch_width * floors[0]
    for c, above, n in zip(floors, (*floors[1:], d), pixels, strict=True):
        block = patches * n * 2 * 2 * 9 * c**2 + planes * 2 * d * 2 * c
        between = patches * n * 2 * c * above
        total += block + between + (patches * n * 2 * 2 * c**2 if up else 0)
    return total
