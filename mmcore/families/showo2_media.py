"""Show-o2's pictures, clips and words: a released folder as a model that can be asked.

    backbone, translator, model = open_showo2(Path("show-o2-1.5B"), "cpu")

The folder holds what was released (`config.json`, the weights) and, beside it, two things that the family takes from
elsewhere: the tokenizer's files of its language model (`tokenizer.json` of Qwen/Qwen2.5-1.5B-Instruct or 7B) and
`Wan2.1_VAE.pth` (of Wan-AI/Wan2.1-T2V-1.3B). `mmcore.load(folder)` makes a pipeline of it.

What is written, as the reference's scripts have it: where a medium is asked for, the words as they are; else a
conversation by turns of user and assistant. The scripts have no editing, nor clips: a picture is drawn by earlier media
as mixed replies are, and of the weights released so far none was trained to film.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageOps
from torch import Tensor

from mmcore.document import Clip, Document, Image, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.canvas import from_pixels, to_pixels
from mmcore.families.remembered import Remembered, fingerprint
from mmcore.families.showo2 import Showo2, load_showo2
from mmcore.families.showo2_autoencoder import SHRINK, STRETCH, load_wan
from mmcore.families.showo2_past import DRAWING, Asked, Begun, Showo2Backbone, Showo2Words
from mmcore.families.spread import Where, main_device
from mmcore.families.text import FamilyText
from mmcore.families.wan import ClipAutoencoder
from mmcore.generate import Order, Settings
from mmcore.replies import Request
from mmcore.sequence import IMAGE, VIDEO, Grid, Patches, Piece, Tokens
from mmcore.translator import Size

AUTOENCODERS = ("Wan2.1_VAE.safetensors", "Wan2.1_VAE.pth")
"""The file of the autoencoder; the first that is there is taken."""

BESIDE = (
    (("tokenizer.json", "vocab.json"), "Qwen/Qwen2.5-1.5B-Instruct, or 7B,"),
    (AUTOENCODERS, "Wan-AI/Wan2.1-T2V-1.3B"),
)
"""What the family takes from elsewhere, one of these files each."""

SETTINGS = Settings(steps=49, guidance=DRAWING, shift=3.0, temperature=0.0, tokens=300)
"""As the family's page has it. Its 50 time steps are the points between 49; for GenEval it takes 100."""

LARGEST = 1024
"""Pixels along a side of the largest pictures that released weights draw."""

FILMED = 17
"""Frames of a clip in training."""

SEEN_FRAMES = 32
"""So many frames of a clip are looked at where it is asked about, evenly taken."""


class Showo2Translator:
    """See `mmcore.translator.Translator`.

    Args:
        model: for its sizes.
        text: its tokenizer.
        vocabulary: its special ids.
        autoencoder: pixels to latents and back.
    """

    settings = editing = SETTINGS
    frames = FILMED

    def __init__(self, model: Showo2, text: FamilyText, vocabulary: Showo2Words, autoencoder: ClipAutoencoder) -> None:
        self.config = model.config
        self.text, self.vocabulary, self.autoencoder = text, vocabulary, autoencoder
        self.cell = self.config.patch * SHRINK
        self.memory = Remembered[Tensor]()

    @property
    def facts(self) -> dict[str, object]:
        """See `Translator`."""
        shape, head = self.config.shape, self.config.head.shape
        return {
            "family": "Show-o2",
            "core": f"{shape.depth} layers of width {shape.width}, {shape.heads} heads",
            "head": f"{head.depth} blocks of width {head.width}",
            "patch": f"{self.cell}x{self.cell}",
            "picture": "x".join(str(n * self.cell) for n in self.config.grid),
            "clip": f"{FILMED} frames of " + "x".join(str(n * self.cell) for n in self.config.film_grid),
            "vocabulary": self.config.vocabulary,
            "context": self.config.context,
        }

    def fit(self, medium: Image | Video) -> Image | Video:
        """See `Translator`. As the scripts do, the middle of a picture is taken, and a clip is put on black."""
        still = isinstance(medium, Image)
        rows, columns = (n * self.cell for n in (self.config.grid if still else self.config.film_grid))
        if medium.size[1:] == (rows, columns):
            return medium
        place, method = ImageOps.fit if still else ImageOps.pad, PILImage.Resampling.BICUBIC
        frames = [np.asarray(place(PILImage.fromarray(frame), (columns, rows), method)) for frame in medium.frames]
        return replace(medium, frames=np.stack(frames))

    def sizes(self, request: Request) -> dict[int, Size]:
        """See `Translator`. A clip is as long as the last one before it; media have the size of the last before them.

        Raises:
            MMCoreError: a size that makes no sense is asked for.
        """
        media, (frames, height, width) = request.document.media, request.size
        clips = [medium.size[0] for medium in media if isinstance(medium, Video)]
        length = frames or (clips[-1] if clips else FILMED)
        if length < 1:
            raise MMCoreError(f"frames must be at least 1, got {length}")
        for name, n in (("height", height), ("width", width)):
            if n is not None and not 1 <= n <= LARGEST:
                raise MMCoreError(f"{name} must lie in [1, {LARGEST}], got {n}")
        sizes: dict[int, Size] = {}
        for opener, count, grid in ((IMAGE, 1, self.config.grid), (VIDEO, length, self.config.film_grid)):
            rows, columns = media[-1].size[1:] if media else (n * self.cell for n in grid)
            sizes[opener] = (count, height or rows, width or columns)
        return sizes

    def order(self, request: Request, sizes: dict[int, Size]) -> Order:
        """See `Translator`. Unasked, the model may open pictures, but no clips."""
        forced = {"image": IMAGE, "video": VIDEO}.get(request.want)
        pieces = list(self.drawn(request, sizes) if forced else self._spoken(request))
        return Order(
            pieces,
            {opener: self._grid(sizes[opener]) for opener in (forced or IMAGE,)},
            forced,
            0 if request.want == "text" else 4,
            request.seed,
            foreword=0,
        )

    def words(self, ids: Sequence[int]) -> str:
        """See `Translator`."""
        return self.text.decode(self.vocabulary.own(ids))

    def medium(self, patches: Patches, size: Size) -> Image | Video:
        """See `Translator`. What is to be seen of it brings its latents back to mind, if it comes up again."""
        pixels = self.autoencoder.decode(self._latents(patches))
        shown = [from_pixels(frame).frames[0, : size[1], : size[2]] for frame in pixels.transpose(0, 1)[: size[0]]]
        made = (Image if patches.opener == IMAGE else Video)(np.stack(shown), learn=True)
        if made.size == (pixels.shape[1], *pixels.shape[2:]):
            self.memory.keep(made, patches.values.cpu())
        return made

    def preview(self, patches: Patches, size: Size) -> None:
        """See `Translator`: the autoencoder takes longer than a step."""
        return

    def _grid(self, size: Size) -> Grid:
        """Tokens of a medium: the first frame, then each four."""
        return 1 - (1 - size[0]) // STRETCH, -(-size[1] // self.cell), -(-size[2] // self.cell)

    def drawn(self, request: Request, sizes: dict[int, Size]) -> Iterator[Piece]:
        """What stands before a medium that is asked for. A clip that follows a picture begins with it."""
        segments = list(request.document)
        pictures = [s for s in segments if not isinstance(s, Text)]
        begun = pictures[-1] if request.want == "video" and pictures and isinstance(pictures[-1], Image) else None
        for segment in segments:
            if isinstance(segment, Text):
                yield Tokens(self.vocabulary.told(self.text.encode(segment.text)), segment.learn)
            elif segment is not begun:
                yield self._medium(segment)
            elif segment.size[1:] == sizes[VIDEO][1:]:
                first = self._medium(segment)
                yield Begun(first.values, first.grid, IMAGE, False)
            else:
                raise MMCoreError(
                    f"a clip that begins with a picture has its size, {segment.size[1]}x{segment.size[2]}: "
                    "leave height and width out"
                )

    def _spoken(self, request: Request) -> Iterator[Piece]:
        """A conversation, in which the assistant's turn comes next. Where it will be words alone, media are read as the
        scripts that answer questions read them."""
        yield from self.turns(request.document, asked=request.want == "text")
        v, segments = self.vocabulary, list(request.document)
        ended = [v.end] if segments and segments[-1].learn else []
        yield Tokens(v.told([*ended, *self._opened("assistant")]), False)

    def _opened(self, who: str) -> list[int]:
        return [*self.text.encode("\n"), self.vocabulary.begin, *self.text.encode(f"{who}\n")]

    def turns(self, document: Document, asked: bool) -> Iterator[Piece]:
        """The turns of a conversation, with their markers; what the assistant said are pieces of their own.

        Args:
            document: fitted.
            asked: whether media are read as the scripts that answer questions read them.
        """
        v = self.vocabulary
        said, speaks = [*self.text.encode("system\nYou are a helpful assistant."), v.end], None
        for segment in document:
            if segment.learn != speaks:
                said += [*([v.end] if speaks else []), *self._opened("assistant" if segment.learn else "user")]
                speaks = segment.learn
            if isinstance(segment, Text) and not segment.learn:
                said += self.text.encode(segment.text)
                continue
            yield Tokens(v.told(said), False)
            said = []
            if isinstance(segment, Text):
                yield Tokens(v.told(self.text.encode(segment.text)), True)
            else:
                yield self._asked(segment) if asked else self._medium(segment)
        yield Tokens(v.told(said), False)

    def _medium(self, medium: Image | Video) -> Patches:
        """A fitted medium as something to go by: as many whole steps of the autoencoder as there are in it."""
        frames = medium.frames[: 1 + (len(medium.frames) - 1) // STRETCH * STRETCH]
        taken = replace(medium, frames=frames)
        opener = IMAGE if isinstance(medium, Image) else VIDEO
        return Patches(self._values(taken), self._grid(taken.size), opener, medium.learn)

    def _asked(self, medium: Image | Video) -> Asked:
        """A fitted medium as something to speak about: each frame by itself."""
        opener = IMAGE if isinstance(medium, Image) else VIDEO
        count = min(len(medium.frames), SEEN_FRAMES)
        chosen = np.linspace(0, len(medium.frames) - 1, count).round().astype(int)
        values = self._values(replace(medium, frames=medium.frames[chosen]), apart=True)
        return Asked(values, (count, *self._grid(medium.size)[1:]), opener, False)

    def _values(self, medium: Clip, apart: bool = False) -> Tensor:
        """Latents (N, P) in raster order, of 1 + 4 n frames, or of each frame by itself. What the posterior gives is
        decided by the frames."""
        if (kept := self.memory.find(medium, apart)) is not None:
            return kept
        pixels = torch.stack([to_pixels(Image(frame[None])) for frame in medium.frames], 1)
        generator = torch.Generator().manual_seed(int.from_bytes(fingerprint(medium, apart)[:7]))
        parts = pixels.split(1 if apart else pixels.shape[1], 1)
        latents = torch.cat([self.autoencoder.encode(part, generator) for part in parts], 1)
        values = latents.permute(1, 2, 3, 0).reshape(-1, self.config.patch_width)
        return self.memory.keep(medium, values.cpu(), apart)

    def _latents(self, patches: Patches) -> Tensor:
        """(C, T, H, W) of raster tokens."""
        frames, rows, columns = patches.grid
        p = self.config.patch
        return patches.values.reshape(frames, rows * p, columns * p, self.config.channels).permute(3, 0, 1, 2)


def open_showo2(folder: Path, device: Where) -> tuple[Showo2Backbone, Showo2Translator, Showo2]:
    """A released folder as backbone, translator and network, in the dtype it was saved in.

    Raises:
        MMCoreError: a file is missing or broken, tensors do not fit, or `diffusers` is not installed.
    """
    for names, whose in BESIDE:
        if not any((folder / name).is_file() for name in names):
            raise MMCoreError(f"{folder}: no {' or '.join(names)} here; put that of {whose} beside the weights")
    text = FamilyText(folder)
    begin, end, opener, closer = map(text.id, ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"))
    weights = next(folder / name for name in AUTOENCODERS if (folder / name).is_file())
    autoencoder = load_wan(weights, main_device(device))
    model = load_showo2(folder, device)
    pad, image, film, cut = range(model.config.vocabulary - 4, model.config.vocabulary)
    special = tuple(i for i in {*text.special, pad, image, film, cut} if i < model.config.vocabulary)
    words = Showo2Words(begin, end, opener, closer, special, film, cut)
    return Showo2Backbone(model, words), Showo2Translator(model, text, words, autoencoder), model
