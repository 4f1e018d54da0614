"""The one place where everything is put together: files and words in, a document out.

model = mmcore.load()
reply = model.generate("a red ball slides to the left")
reply.media[0].save("out.mp4")
chat = model.chat()
chat.send("what is this?", "clip.mp4").text
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn
from tqdm import tqdm

from mmcore.autoencoder import PIXELS, Autoencoder, Latents
from mmcore.backbone import Backbone, Native
from mmcore.chat import Chat
from mmcore.config import MMCoreConfig
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.generate import Event, SegmentEvent, Settings, StepEvent, TokenEvent, make_settings, write
from mmcore.model import MMCoreModel
from mmcore.native import NativeTranslator
from mmcore.notes import given_media, with_notes
from mmcore.parts import Part, as_medium, user_turn
from mmcore.quantize import kind_of
from mmcore.replies import Glimpse, Reply, Request, Update
from mmcore.sequence import Patches, Piece, Tokens
from mmcore.tokenizers.media import read_windows
from mmcore.tokenizers.words import Words
from mmcore.translator import Size, Translator

WANTS = ("any", "text", "image", "video")

WHAT = "what is this?"
"""What is asked for a caption."""

GO_ON = "go on"
"""What is said after a window of a long clip, to have the next one."""


class Pipeline:
    """A model with its tokenizers, ready to be asked.

    Args:
        model: weights.
        text: the text tokenizer.
        autoencoder: what patches are cut from: pixels, or latents.
    """

    def __init__(self, model: MMCoreModel, text: Words, autoencoder: Autoencoder = PIXELS) -> None:
        self.model, self.tokenizer, self.autoencoder = model.eval(), text, autoencoder
        self.weights: nn.Module = self.model
        self.backbone: Backbone = Native(self.model, text.signs)
        self.translator: Translator = NativeTranslator(model.config, text, autoencoder)

    @property
    def config(self) -> MMCoreConfig:
        """The model's configuration."""
        return self.model.config

    def save(self, folder: str | Path, shard: str = "15MB") -> None:
        """Write the model and its tokenizers, so that `load(folder)` gives the same.

        Args:
            folder: is made if need be.
            shard: the largest size of a weights file.
        """
        self.config.quantized = kind_of(self.model)
        self.model.save_pretrained(folder, max_shard_size=shard)
        self.tokenizer.save(folder)
        if isinstance(self.autoencoder, Latents):
            self.autoencoder.save(Path(folder))

    def stream(self, requests: Sequence[Request], settings: Settings | None = None) -> Iterator[Update]:
        """Write replies to many documents at once, told as it happens.

        Args:
            requests: the documents.
            settings: steps, guidance, sampler, temperature; what suits the model where it is None.
        Raises:
            MMCoreError: a document does not fit into the model, or a setting makes no sense.
        """
        fitted = self._noted([self._fitted(r) for r in requests])
        sizes = [self.translator.sizes(r) for r in fitted]
        orders = [self.translator.order(r, s) for r, s in zip(fitted, sizes, strict=True)]
        said: dict[int, list[int]] = {}
        for event in write(self.backbone, orders, settings or self.translator.settings):
            yield self._told(event, sizes[event.row], said)

    def reply(
        self, requests: Sequence[Request], settings: Settings | None = None, progress: bool = True
    ) -> list[Reply]:
        """Write replies to many documents at once.

        Args:
            requests: the documents.
            settings: steps, guidance, sampler, temperature; what suits the model where it is None.
            progress: whether to show a bar on a terminal.
        """
        replies: list[list[Segment]] = [[] for _ in requests]
        with tqdm(disable=None if progress else True, leave=False, unit="step") as bar:
            for event in self.stream(requests, settings or self.translator.settings):
                if event.steps:
                    bar.total = event.steps
                    bar.n = event.step
                    bar.refresh()
                if event.segment is not None:
                    replies[event.row].append(event.segment)
        return [Reply(Document(tuple(segments))) for segments in replies]

    def generate(self, *parts: Part, seed: int = 0, **settings: object) -> Reply:
        """Answer words and media with words and media.

        Args:
            parts: words, paths of media files, media; in any order.
            seed: decides everything that is drawn.
            settings: fields of `Settings`; `guidance` may be a number.
        """
        return self._one(Request(user_turn(parts), seed=seed), settings)

    def caption(self, medium: Part, **settings: object) -> str:
        """Say what there is to see in a picture or a clip."""
        return self.ask(medium, WHAT, **settings)

    def captions(self, path: str | Path, every: float = 2.0, **settings: object) -> Iterator[Glimpse]:
        """Say what there is to see in a clip of any length, window by window, each by itself, in flat memory.

        Args:
            path: of the file.
            every: seconds that a window lasts.
            settings: fields of `Settings`.
        """
        for begin, clip in read_windows(Path(path), every):
            yield Glimpse(begin, clip, self.caption(clip, **settings))

    def ask(self, medium: Part, question: str, **settings: object) -> str:
        """Answer a question about a picture or a clip, with the likeliest words unless a temperature is given."""
        request = Request(user_turn((as_medium(medium), question)), want="text")
        return self._one(request, {"temperature": 0.0, **settings}).text

    def generate_image(
        self, *parts: Part, seed: int = 0, height: int | None = None, width: int | None = None, **settings: object
    ) -> Image:
        """Draw what the words say.

        Args:
            parts: words, and media to go by.
            seed: decides the noise.
            height: rows; a multiple of nothing.
            width: columns.
            settings: fields of `Settings`.
        """
        made = self._one(Request(user_turn(parts), "image", (1, height, width), seed), settings).media[0]
        assert isinstance(made, Image)
        return made

    def generate_video(
        self,
        *parts: Part,
        frames: int | None = None,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        **settings: object,
    ) -> Video:
        """Film what the words say.

        Args:
            parts: words, and media to go by: a picture is set in motion.
            frames: how many.
            seed: decides the noise.
            height: rows.
            width: columns.
            settings: fields of `Settings`.
        """
        made = self._one(Request(user_turn(parts), "video", (frames, height, width), seed), settings).media[0]
        assert isinstance(made, Video)
        return made

    def film(
        self,
        *parts: Part,
        frames: int,
        window: int | None = None,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        **settings: object,
    ) -> Iterator[Video]:
        """Film what the words say at any length, window by window: each is asked for behind the request and the window
        before, begins with the sentence that the model said to the request, and sees nothing else.

        So time grows with the length, and memory does not; and what was asked for is not forgotten on the way.

        Args:
            parts: words, and media to go by.
            frames: how many in all.
            window: frames of one window; those of a usual clip where it is None.
            seed: decides the noise.
            height: rows.
            width: columns.
            settings: fields of `Settings`.
        Yields:
            The windows, in order; the last one is cut where the clip ends.
        """
        chosen, told, made = make_settings(settings, self.translator.settings), user_turn(parts), 0
        turn, said = told, Document()
        length = window or self.translator.frames
        while made < frames:
            request = Request(turn, "video", (length, height, width), seed + made)
            reply = self.reply([request], chosen)[0]
            if not made:
                said = Document(tuple(segment for segment in reply.document if isinstance(segment, Text)))
            clip = reply.media[0]
            turn = told + said + Document((clip, Text(GO_ON))) + said
            yield Video(clip.frames[: frames - made], clip.fps, True)
            made += length

    def edit(self, medium: Part, instruction: str, seed: int = 0, **settings: object) -> Image | Video:
        """Change a picture or a clip by instruction; the result has its kind, size and length."""
        given = as_medium(medium)
        want = "image" if isinstance(given, Image) else "video"
        request = Request(user_turn((given, instruction)), want, seed=seed)
        return self._one(request, settings).media[0]

    def chat(self, seed: int = 0, **settings: object) -> Chat:
        """Begin a conversation that remembers.

        Args:
            seed: decides everything that is drawn, in each turn anew.
            settings: fields of `Settings`.
        """
        make_settings(settings)
        return Chat(self, settings, seed=seed)

    def suited(self, request: Request) -> Settings:
        """How to answer where nobody says otherwise: a medium that is asked for behind another is an edit."""
        edits = request.want in ("image", "video") and request.document.media
        return self.translator.editing if edits else self.translator.settings

    def _one(self, request: Request, settings: dict[str, object]) -> Reply:
        return self.reply([request], make_settings(settings, self.suited(request)))[0]

    def _fitted(self, request: Request) -> Request:
        """A request with media as the model sees them."""
        if request.want not in WANTS:
            raise MMCoreError(f'want must be "any", "text", "image" or "video", got {request.want!r}')
        segments = (s if isinstance(s, Text) else self.translator.fit(s) for s in request.document)
        return replace(request, document=Document(tuple(segments)))

    def _noted(self, requests: list[Request]) -> list[Request]:
        """Fitted requests with the model's notes on what it was given, where it makes any."""
        question = self.config.note
        media = [medium for request in requests for medium in given_media(request.document.segments)]
        if not question or not media:
            return requests
        orders = [self.translator.order(Request(user_turn((medium, question)), "text"), {}) for medium in media]
        written = [""] * len(media)
        for event in write(self.backbone, orders, replace(self.translator.settings, temperature=0.0)):
            if isinstance(event, SegmentEvent) and isinstance(event.piece, Tokens):
                written[event.row] += self.translator.words(event.piece.ids)
        notes = iter(written)
        documents = [Document(with_notes(r.document.segments, question, lambda _: next(notes))) for r in requests]
        return [replace(request, document=document) for request, document in zip(requests, documents, strict=True)]

    def _told(self, event: Event, sizes: dict[int, Size], said: dict[int, list[int]]) -> Update:
        """An event in the terms of people."""
        if isinstance(event, TokenEvent):
            ids = said.setdefault(event.row, [])
            before = self.translator.words(ids)
            ids.append(event.token)
            return Update(event.row, text=self.translator.words(ids)[len(before) :])
        if isinstance(event, StepEvent):
            medium = self.translator.preview(event.preview, sizes[event.preview.opener])
            return Update(event.row, preview=medium, step=event.step, steps=event.steps)
        said.pop(event.row, None)
        return Update(event.row, segment=self._segment(event.piece, sizes))

    def _segment(self, piece: Piece, sizes: dict[int, Size]) -> Segment:
        if isinstance(piece, Patches):
            return self.translator.medium(piece, sizes[piece.opener])
        return Text(self.translator.words(piece.ids), True)


class FamilyPipeline(Pipeline):
    """A released model of another family (`mmcore.families`), asked in the same way.

    Args:
        backbone: the model as the writing loop knows it.
        translator: documents to pieces and back.
        model: its weights.
    """

    def __init__(self, backbone: Backbone, translator: Translator, model: nn.Module) -> None:
        self.backbone, self.translator, self.weights = backbone, translator, model

    def _noted(self, requests: list[Request]) -> list[Request]:
        """Requests as they are: these models make no notes."""
        return requests

    def save(self, folder: str | Path, shard: str = "15MB") -> None:
        """Not for these models: their own folder is what `load` takes.

        Raises:
            MMCoreError: always.
        """
        raise MMCoreError(f"{folder}: a released model of another family is not written anew: copy its folder")
