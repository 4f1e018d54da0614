"""BAGEL's pictures and words: a released folder as a model that can be asked.

    backbone, translator, model = open_bagel(Path("BAGEL-7B-MoT"), "cpu")

The folder holds `ema.safetensors`, `ae.safetensors`, `llm_config.json`, `vit_config.json` and the tokenizer's files.
`mmcore.load(folder)` makes a pipeline of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmcore.document import Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.autoencoder import Autoencoder, load_autoencoder
from mmcore.families.bagel import Bagel, load_bagel
from mmcore.families.bagel_past import DRAWING, EDITING, BagelBackbone, Picture
from mmcore.families.canvas import canvas, from_pixels, resized, to_pixels
from mmcore.families.remembered import Remembered
from mmcore.families.spread import Where, main_device
from mmcore.families.text import FamilyText
from mmcore.families.vocabulary import Vocabulary
from mmcore.generate import Order, Settings
from mmcore.replies import Request
from mmcore.sequence import IMAGE, Patches, Piece, Tokens
from mmcore.translator import Size

LEAST_SEEN = 224
"""Pixels that the shorter side of a picture has at least for the tower."""

SETTINGS = Settings(steps=49, guidance=DRAWING, shift=3.0, temperature=0.0, tokens=512)
"""As the released notebook has it. Its 50 time steps are the points between 49."""


class BagelTranslator:
    """See `mmcore.translator.Translator`.

    Args:
        model: for its sizes.
        text: its tokenizer.
        vocabulary: its special ids.
        autoencoder: pixels to latents and back.
    """

    settings, editing, frames = SETTINGS, replace(SETTINGS, guidance=EDITING), 1

    def __init__(self, model: Bagel, text: FamilyText, vocabulary: Vocabulary, autoencoder: Autoencoder) -> None:
        self.config, self.device = model.config, model.device
        self.text, self.vocabulary, self.autoencoder = text, vocabulary, autoencoder
        self.cell = self.config.patch * self.config.downsample
        self.largest = self.config.places * self.cell
        self.memory = Remembered[Patches]()

    @property
    def facts(self) -> dict[str, object]:
        """See `Translator`."""
        shape = self.config.shape
        return {
            "family": "BAGEL",
            "core": f"{shape.depth} layers of width {shape.width}, {shape.heads} heads, 2 experts",
            "patch": f"{self.cell}x{self.cell}",
            "picture": f"at most {self.largest}x{self.largest}",
            "vocabulary": self.config.vocabulary,
            "context": self.config.context,
        }

    def fit(self, medium: Image | Video) -> Image:
        """See `Translator`. A picture that the model has drawn stays as it is.

        Raises:
            MMCoreError: a clip was sent.
        """
        if isinstance(medium, Video):
            raise MMCoreError("this model reads pictures, not clips: send a frame of it")
        if self.memory.find(medium) is not None:
            return medium
        return resized(medium, canvas(medium.size[1:], self.largest, self.largest // 2, self.cell))

    def sizes(self, request: Request) -> dict[int, Size]:
        """See `Translator`. A picture has the size of the last one before it, else the largest.

        Raises:
            MMCoreError: a clip is asked for, or a size that the model cannot draw.
        """
        if request.want == "video":
            raise MMCoreError("this model draws pictures, not clips: ask for a picture")
        _, height, width = request.size
        before = [m.size[1:] for m in request.document.media] or [(self.largest, self.largest)]
        size = (height or before[-1][0], width or before[-1][1])
        for name, n in zip(("height", "width"), size, strict=True):
            if not 1 <= n <= self.largest:
                raise MMCoreError(f"{name} must lie in [1, {self.largest}], got {n}")
        return {IMAGE: (1, *size)}

    def order(self, request: Request, sizes: dict[int, Size]) -> Order:
        """See `Translator`. Where words alone are wanted, pictures are only looked at."""
        generator = torch.Generator().manual_seed(request.seed)
        words_only = request.want == "text"
        pieces: list[Piece] = []
        for segment in request.document:
            if isinstance(segment, Text):
                pieces.append(Tokens(self.vocabulary.told(self.text.encode(segment.text)), segment.learn))
            else:
                assert isinstance(segment, Image)
                pieces.append(self._picture(segment, None if words_only else generator))
        _, height, width = sizes[IMAGE]
        return Order(
            pieces,
            {IMAGE: (1, -(-height // self.cell), -(-width // self.cell))},
            IMAGE if request.want == "image" else None,
            0 if words_only else 4,
            request.seed,
            foreword=0,
        )

    def words(self, ids: Sequence[int]) -> str:
        """See `Translator`."""
        return self.text.decode(self.vocabulary.own(ids))

    def medium(self, patches: Patches, size: Size) -> Image:
        """See `Translator`. What it was made of is remembered."""
        whole = from_pixels(self._decode(patches))
        drawn = replace(whole, frames=np.ascontiguousarray(whole.frames[:, : size[1], : size[2]]))
        self.memory.keep(drawn, replace(patches, values=patches.values.cpu()))
        return drawn

    def preview(self, patches: Patches, size: Size) -> None:
        """See `Translator`: the autoencoder takes longer than a step."""
        return

    def look(self, patches: Patches) -> Tensor:
        """What the tower sees of a picture that the model has drawn."""
        return self._seen(from_pixels(self._decode(patches)))

    def _decode(self, patches: Patches) -> Tensor:
        _, rows, columns = patches.grid
        p = self.config.patch
        return self.autoencoder.decode(
            rearrange(patches.values, "(y x) (p q c) -> c (y p) (x q)", y=rows, x=columns, p=p, q=p)
        )

    def _seen(self, image: Image) -> Tensor:
        patch = self.config.vision["patch_size"]
        largest = self.config.tower_places * patch
        return to_pixels(resized(image, canvas(image.size[1:], largest, min(LEAST_SEEN, largest), patch)))

    def _picture(self, image: Image, generator: torch.Generator | None) -> Picture:
        """A fitted picture as the model reads it; without a generator, only as the tower sees it."""
        grid, p = (1, image.size[1] // self.cell, image.size[2] // self.cell), self.config.patch
        values = torch.zeros(0, self.config.patch_width)
        known = self.memory.find(image)
        if generator is not None and known is not None:
            values, grid = known.values, known.grid
        elif generator is not None:
            latents = self.autoencoder.encode(to_pixels(image), generator)
            values = rearrange(latents, "c (y p) (x q) -> (y x) (p q c)", p=p, q=p)
        return Picture(values, grid, IMAGE, image.learn, self._seen(image))


def open_bagel(folder: Path, device: Where) -> tuple[BagelBackbone, BagelTranslator, Bagel]:
    """A released folder as backbone, translator and network, in the dtype it was saved in.

    Raises:
        MMCoreError: a file is missing or broken, tensors do not fit, or `diffusers` is not installed.
    """
    text = FamilyText(folder)
    begin, end, opener, closer = map(text.id, ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"))
    autoencoder = load_autoencoder(folder / "ae.safetensors", main_device(device))
    model = load_bagel(folder, device)
    special = tuple(i for i in text.special if i < model.config.vocabulary)
    vocabulary = Vocabulary(begin, end, opener, closer, special)
    translator = BagelTranslator(model, text, vocabulary, autoencoder)
    return BagelBackbone(model, vocabulary, translator.look), translator, model
