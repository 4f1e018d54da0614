"""Documents to pieces and back for `MMCoreModel`: the `Translator` of our own model.

translator = NativeTranslator(model.config, tokenizer)
order = translator.order(request, translator.sizes(request))
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcore.autoencoder import PIXELS, Autoencoder
from mmcore.config import MMCoreConfig
from mmcore.decoders.visual import unpatchify
from mmcore.document import Image, Video
from mmcore.errors import MMCoreError
from mmcore.generate import Order, Settings
from mmcore.replies import Request
from mmcore.sequence import IMAGE, VIDEO, Patches
from mmcore.tokenizers.media import fit
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.words import Words
from mmcore.translator import Size


class NativeTranslator:
    """See `mmcore.translator.Translator`.

    Args:
        config: of the model.
        text: its text tokenizer.
        autoencoder: makes cells of pixels, and pixels of cells.
    """

    settings = editing = Settings()

    def __init__(self, config: MMCoreConfig, text: Words, autoencoder: Autoencoder = PIXELS) -> None:
        self.config, self.text, self.autoencoder = config, text, autoencoder

    @property
    def frames(self) -> int:
        """See `Translator`."""
        return self.config.frames

    @property
    def facts(self) -> dict[str, object]:
        """See `Translator`."""
        c = self.config
        return {
            "core": f"{c.depth} blocks of width {c.width}, {c.heads} heads",
            "decoder": f"{c.decoder_depth} blocks",
            "patch": "x".join(str(n * cell) for n, cell in zip(c.patch, c.latent_cell, strict=True)),
            "picture": f"{c.height}x{c.width_px}",
            "clip": f"{c.frames} frames at {c.fps:g} fps",
            "vocabulary": c.vocab_size,
            "context": c.context_length,
        }

    def fit(self, medium: Image | Video) -> Image | Video:
        """See `Translator`."""
        c = self.config
        _, rows, columns = c.nearest(medium.size)
        return fit(medium, (rows, columns), c.fps, c.context_length)

    def sizes(self, request: Request) -> dict[int, Size]:
        """See `Translator`."""
        c, (frames, height, width) = self.config, request.size
        media = request.document.media
        clips = [m.size[0] for m in media if isinstance(m, Video)]
        length = frames or (clips[-1] if clips else c.frames)
        like = media[-1].size[1:] if media else (c.height, c.width_px)
        size = (height or like[0], width or like[1])
        for name, n in (("frames", length), ("height", size[0]), ("width", size[1])):
            if n < 1:
                raise MMCoreError(f"{name} must be at least 1, got {n}")
        return {IMAGE: (1, *size), VIDEO: (length, *size)}

    def order(self, request: Request, sizes: dict[int, Size]) -> Order:
        """See `Translator`."""
        return Order(
            document_pieces(request.document, self.text, self.config.patch, self.autoencoder, self.config.look),
            {opener: self.config.grid(size) for opener, size in sizes.items()},
            {"image": IMAGE, "video": VIDEO}.get(request.want),
            0 if request.want == "text" else 4,
            request.seed,
            signs=self.text.signs,
        )

    def words(self, ids: Sequence[int]) -> str:
        """See `Translator`."""
        return self.text.decode(ids)

    def medium(self, patches: Patches, size: Size) -> Image | Video:
        """See `Translator`."""
        frames = unpatchify(patches.values, patches.grid, self.config.patch, size, self.autoencoder)
        return (Image if patches.opener == IMAGE else Video)(frames, self.config.fps, True)

    def preview(self, patches: Patches, size: Size) -> Image | Video | None:
        """See `Translator`: an autoencoder takes longer than a step."""
        return None if self.config.latent_channels else self.medium(patches, size)
