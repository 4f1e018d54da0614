"""Lance's pictures, clips and words: a released folder as a model that can be asked.

    backbone, translator, model = open_lance(Path("downloads/Lance_3B_Video"), "cpu")

The folder holds `model.safetensors` or `ema.safetensors`, `llm_config.json` and the tokenizer's files. Inside it or
beside it lie `Qwen2.5-VL-ViT`, as released, and `vae`, the autoencoder's folder of Wan-AI/Wan2.2-TI2V-5B-Diffusers:
what is released as `Wan2.2_VAE.pth` is a pickle, and those are not read. `mmcore.load(folder)` makes a pipeline of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.families.buckets import bucket, middle, sampled, shaped
from mmcore.families.lance import Lance, companion, load_lance
from mmcore.families.lance_past import LanceBackbone
from mmcore.families.lance_pieces import GUIDANCE, Given, Medium, Sentence, Template
from mmcore.families.qwen_tower import MEAN, SPREAD
from mmcore.families.remembered import Remembered
from mmcore.families.spread import Where, main_device
from mmcore.families.text import FamilyText
from mmcore.families.vocabulary import Vocabulary
from mmcore.families.wan import ClipAutoencoder, load_clip_autoencoder
from mmcore.generate import Order, Settings
from mmcore.replies import Request
from mmcore.sequence import IMAGE, VIDEO, Grid, Patches, Piece, Tokens
from mmcore.translator import Size

SETTINGS = Settings(steps=30, guidance=GUIDANCE, shift=3.5, temperature=0.0, tokens=256)
"""As the released script has it."""

FRAMES, FPS, SECONDS = 49, 12.0, 6.0
"""Frames of a clip that nobody asked another length for, frames per second, and seconds that are read of a clip."""

HELP = "You are a helpful assistant."
LOOK = {IMAGE: "Look at the image carefully and answer the question."}
LOOK[VIDEO] = "Watch the video carefully and answer the question."
DRAW = {
    IMAGE: "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships of "
    "the objects and background:",
    VIDEO: "Describe the video by detailing the color, quantity, visible text, shape, size, texture, spatial "
    "relationships and motion/camera movements of the objects and background:",
}
EDIT = (
    "Describe the key features of the input {0} (color, shape, size, texture, objects, background), then explain how "
    "the user’s text instruction should alter or modify the {0}. Generate a new {0} that meets the user’s requirements "
    "while maintaining consistency with the original input where appropriate."
)
"""Sentences that set the task, word for word as the model was trained with them."""


@dataclass(frozen=True)
class Sides:
    """A medium has about so many pixels, as the side of a square: in latents, and as the tower sees it."""

    picture: int = 768
    clip: int = 640
    seen_picture: int = 672
    seen_clip: int = 616


class LanceTranslator:
    """See `mmcore.translator.Translator`.

    Args:
        model: for its sizes.
        text: its tokenizer.
        vocabulary: its special ids.
        autoencoder: pixels to latents and back.
        sides: at which sizes media are read.
    """

    settings = editing = SETTINGS
    frames = FRAMES

    def __init__(
        self,
        model: Lance,
        text: FamilyText,
        vocabulary: Vocabulary,
        autoencoder: ClipAutoencoder,
        sides: Sides | None = None,
    ) -> None:
        self.config, self.seen_side = model.config, model.tower.side
        self.text, self.vocabulary, self.autoencoder = text, vocabulary, autoencoder
        self.sides, self.memory = sides or Sides(), Remembered[Patches]()
        self.steps = autoencoder.steps

    @property
    def facts(self) -> dict[str, object]:
        """See `Translator`."""
        shape, side = self.config.shape, self.config.largest * self.steps[1]
        return {
            "family": "Lance",
            "core": f"{shape.depth} layers of width {shape.width}, {shape.heads} heads, 2 experts",
            "patch": "x".join(map(str, self.steps)),
            "clip": f"at most {self.config.longest} frames of {side}x{side}",
            "vocabulary": self.config.vocabulary,
            "context": self.config.context,
        }

    def fit(self, medium: Image | Video) -> Image | Video:
        """See `Translator`. A medium that the model has written stays as it is."""
        if self.memory.find(medium) is not None:
            return medium
        side = self.sides.picture if isinstance(medium, Image) else self.sides.clip
        size = bucket(medium.size[1:], side, self.steps[1])
        if isinstance(medium, Image):
            return replace(medium, frames=shaped(medium.frames, size))
        return replace(medium, frames=shaped(sampled(medium.frames, medium.fps, FPS, SECONDS), size), fps=FPS)

    def sizes(self, request: Request) -> dict[int, Size]:
        """See `Translator`. A medium has the size, and a clip the length, of the last one before it.

        Raises:
            MMCoreError: a size that the model cannot make.
        """
        opener, media = wanted(request), request.document.media
        side = self.sides.picture if opener == IMAGE else self.sides.clip
        rows, columns = media[-1].size[1:] if media else bucket((1, 1) if opener == IMAGE else (9, 16), side)
        frames = 1 if opener == IMAGE else len(media[-1].frames) if last_is(media, Video) else FRAMES
        asked = (1 if opener == IMAGE else request.size[0], *request.size[1:])
        size = (asked[0] or frames, asked[1] or rows, asked[2] or columns)
        side = self.config.largest * self.steps[1]
        for name, n, most in zip(("frames", "height", "width"), size, (self.config.longest, side, side), strict=True):
            if not 1 <= n <= most:
                raise MMCoreError(f"{name} must lie in [1, {most}], got {n}")
        return {opener: size}

    def order(self, request: Request, sizes: dict[int, Size]) -> Order:
        """See `Translator`. Where words alone are wanted, media are only looked at. A picture that is the last medium
        before a clip is that clip's first frame."""
        generator = torch.Generator().manual_seed(request.seed)
        ((opener, size),) = sizes.items()
        frame, rows, columns = self.steps
        grid = (-(-(size[0] - 1) // frame) + 1, -(-size[1] // rows), -(-size[2] // columns))
        document, pieces = request.document, [self._tokens(task(request), Sentence)]
        start = document.media[-1] if request.want == "video" and last_is(document.media, Image) else None
        for segment in in_turns(document):
            if isinstance(segment, Text):
                pieces.append(self._tokens(segment.text, Tokens, segment.learn))
            elif segment is start:
                pieces.append(self._given(segment, grid, generator))
            else:
                pieces.append(self._medium(segment, None if request.want == "text" else generator))
        return Order(
            pieces,
            {opener: grid},
            opener if request.want in ("image", "video") else None,
            0 if request.want == "text" else 4,
            request.seed,
            foreword=0,
        )

    def words(self, ids: Sequence[int]) -> str:
        """See `Translator`."""
        return self.text.decode(self.vocabulary.own(ids))

    def medium(self, patches: Patches, size: Size) -> Image | Video:
        """See `Translator`. What it was made of is remembered."""
        frames = np.ascontiguousarray(self._decode(patches)[: size[0], : size[1], : size[2]])
        made = Image(frames, learn=True) if patches.opener == IMAGE else Video(frames, FPS, True)
        self.memory.keep(made, replace(patches, values=patches.values.cpu()))
        return made

    def preview(self, patches: Patches, size: Size) -> None:
        """See `Translator`: the autoencoder takes longer than a step."""
        return

    def look(self, patches: Patches) -> Tensor:
        """What the tower sees of a medium that the model has written."""
        return self._seen(self._decode(patches))

    def _tokens(self, words: str, kind: type[Tokens], learn: bool = False) -> Piece:
        return kind(self.vocabulary.told(self.text.encode(words)), learn)

    def _decode(self, patches: Patches) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        t, y, x = patches.grid
        pixels = self.autoencoder.decode(rearrange(patches.values, "(t y x) c -> c t y x", t=t, y=y, x=x))
        return ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 3, 0).cpu().numpy()

    def _encode(self, frames: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Grid]:
        """Frames (4 n + 1, H, W, 3) of any size -> latent tokens and their grid; the last row and column fill up."""
        missing = [(0, -n % step) for n, step in zip(frames.shape[1:3], self.steps[1:], strict=True)]
        full = np.pad(frames, ((0, -(len(frames) - 1) % self.steps[0]), *missing, (0, 0)), mode="edge")
        pixels = torch.from_numpy(full.astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)
        latents = self.autoencoder.encode(pixels, generator)
        t, y, x = latents.shape[1:]
        return rearrange(latents, "c t y x -> (t y x) c"), (t, y, x)

    def _seen(self, frames: np.ndarray) -> Tensor:
        """Frames (T, H, W, 3) as the tower takes them: a picture, and the last frame of an odd number, twice.

        They are shrunk from the medium as it was fitted; the reference shrinks what was sent.
        """
        side = self.sides.seen_picture if len(frames) == 1 else self.sides.seen_clip
        small = middle(shaped(frames, bucket(frames.shape[1:3], side)), self.seen_side)
        even = np.concatenate((small, small[-1:])) if len(small) % 2 else small
        pixels = (torch.from_numpy(even.astype(np.float32)) / 255 - torch.tensor(MEAN)) / torch.tensor(SPREAD)
        return pixels.permute(3, 0, 1, 2)

    def _medium(self, medium: Image | Video, generator: torch.Generator | None) -> Medium:
        """A fitted medium as the model reads it; without a generator, only as the tower sees it."""
        opener, known = IMAGE if isinstance(medium, Image) else VIDEO, self.memory.find(medium)
        values, grid = torch.zeros(0, self.config.channels), (1, 1, 1)
        if generator is not None:
            values, grid = (known.values, known.grid) if known else self._encode(medium.frames, generator)
        return Medium(values, grid, opener, medium.learn, self._seen(medium.frames))

    def _given(self, picture: Image | Video, grid: Grid, generator: torch.Generator) -> Given:
        """A picture as the first frame of a clip."""
        known = self.memory.find(picture)
        if known is not None and known.grid == (1, *grid[1:]):
            return Given(known.values, known.grid, VIDEO, False)
        frames = shaped(picture.frames, (grid[1] * self.steps[1], grid[2] * self.steps[2]))
        values, first = self._encode(frames, generator)
        return Given(values, first, VIDEO, False)


def last_is(media: Sequence[Image | Video], kind: type) -> bool:
    """Whether the last medium is of a kind."""
    return bool(media) and isinstance(media[-1], kind)


def wanted(request: Request) -> int:
    """The kind of medium that a reply may hold: what is asked for, else that of the last one before it."""
    clip = request.want == "video" or (request.want != "image" and last_is(request.document.media, Video))
    return VIDEO if clip else IMAGE


def task(request: Request) -> str:
    """The sentence that sets the task of a request."""
    opener, media = wanted(request), request.document.media
    if request.want == "any" or (request.want == "text" and not media):
        return HELP
    if request.want == "text":
        return LOOK[opener]
    if not media or (opener == VIDEO and last_is(media, Image)):
        return DRAW[opener]
    return EDIT.format("image" if opener == IMAGE else "video")


def in_turns(document: Document) -> list[Segment]:
    """Segments, the words that open one of the user's turns moved behind its media, as the model was trained."""
    ordered: list[Segment] = []
    for learn, group in groupby(document, key=lambda segment: segment.learn):
        turn = list(group)
        shown = any(not isinstance(segment, Text) for segment in turn)
        ordered += turn[1:] + turn[:1] if not learn and shown and isinstance(turn[0], Text) else turn
    return ordered


def open_lance(folder: Path, device: Where) -> tuple[LanceBackbone, LanceTranslator, Lance]:
    """A released folder as backbone, translator and network, in the dtype it was saved in.

    Raises:
        MMCoreError: a file is missing or broken, tensors do not fit, or `diffusers` is not installed.
    """
    text = FamilyText(folder)
    begin, end, opener, closer = map(text.id, ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"))
    parts = companion(folder, "vae")
    if not parts.is_dir():
        raise MMCoreError(
            f"{folder}: no vae folder here or beside it: copy that of Wan-AI/Wan2.2-TI2V-5B-Diffusers there "
            "(Wan2.2_VAE.pth is a pickle, and those are not read)"
        )
    autoencoder = load_clip_autoencoder(parts, main_device(device))
    model = load_lance(folder, device)
    special = tuple(i for i in text.special if i < model.config.vocabulary)
    vocabulary = Vocabulary(begin, end, opener, closer, special)
    system, user, reply, line = (text.encode(words) for words in ("system\n", "user\n", "assistant\n", "\n"))
    template = Template((begin, *system), (end, *line, begin, *user), (end, *line, begin, *reply))
    translator = LanceTranslator(model, text, vocabulary, autoencoder)
    return LanceBackbone(model, vocabulary, template, translator.look), translator, model
