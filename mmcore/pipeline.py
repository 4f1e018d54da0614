"""The one place where everything is put together: files and words in, a document out.

model = mmcore.load()
reply = model.generate("a red ball slides to the left")
reply.media[0].save("out.mp4")
chat = model.chat()
chat.send("what is this?", "clip.mp4").text
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from mmcore.backbone import Guidance, Native
from mmcore.config import MMCoreConfig
from mmcore.decoders.visual import unpatchify
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.generate import Event, Order, Settings, StepEvent, TokenEvent, write
from mmcore.model import MMCoreModel
from mmcore.parts import Part, as_medium, user_turn
from mmcore.replies import Reply, Request, Update
from mmcore.sequence import IMAGE, VIDEO, Patches, Piece
from mmcore.tokenizers.media import fit
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer
from mmcore.tokenizers.visual import grid_of

DEFAULTS = Settings()


class Pipeline:
    """A model with its tokenizers, ready to be asked.

    Args:
        model: weights.
        text: the text tokenizer.
    """

    def __init__(self, model: MMCoreModel, text: TextTokenizer) -> None:
        self.model, self.tokenizer = model.eval(), text
        self.backbone = Native(self.model)

    @property
    def config(self) -> MMCoreConfig:
        """The model's configuration."""
        return self.model.config

    def save(self, folder: str | Path, shard: str = "15MB") -> None:
        """Write the model and its tokenizer, so that `load(folder)` gives the same.

        Args:
            folder: is made if need be.
            shard: the largest size of a weights file.
        """
        self.model.save_pretrained(folder, max_shard_size=shard)
        self.tokenizer.save(folder)

    def stream(self, requests: Sequence[Request], settings: Settings = DEFAULTS) -> Iterator[Update]:
        """Write replies to many documents at once, told as it happens.

        Args:
            requests: the documents.
            settings: steps, guidance, sampler, temperature.
        Raises:
            MMCoreError: a document does not fit into the model, or a setting makes no sense.
        """
        fitted = [replace(r, document=self._fit(r.document)) for r in requests]
        sizes = [self._sizes(r) for r in fitted]
        orders = [self._order(r, s) for r, s in zip(fitted, sizes, strict=True)]
        said: dict[int, list[int]] = {}
        for event in write(self.backbone, orders, settings):
            yield self._told(event, sizes[event.row], said)

    def reply(self, requests: Sequence[Request], settings: Settings = DEFAULTS, progress: bool = True) -> list[Reply]:
        """Write replies to many documents at once.

        Args:
            requests: the documents.
            settings: steps, guidance, sampler, temperature.
            progress: whether to show a bar on a terminal.
        """
        replies: list[list[Segment]] = [[] for _ in requests]
        with tqdm(disable=None if progress else True, leave=False, unit="step") as bar:
            for event in self.stream(requests, settings):
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
        return self.ask(medium, "what is this?", **settings)

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

    def edit(self, medium: Part, instruction: str, seed: int = 0, **settings: object) -> Image | Video:
        """Change a picture or a clip by instruction; the result has its kind, size and length."""
        given = as_medium(medium)
        want = "image" if isinstance(given, Image) else "video"
        return self._one(Request(user_turn((given, instruction)), want, seed=seed), settings).media[0]

    def chat(self, **settings: object) -> Chat:
        """Begin a conversation that remembers."""
        return Chat(self, make_settings(settings))

    def _one(self, request: Request, settings: dict[str, object]) -> Reply:
        return self.reply([request], make_settings(settings))[0]

    def _fit(self, document: Document) -> Document:
        """Media at the size and frame rate that the model sees."""
        c = self.config
        return Document(
            tuple(
                s if isinstance(s, Text) else fit(s, (c.height, c.width_px), c.fps, c.context_length) for s in document
            )
        )

    def _sizes(self, request: Request) -> dict[int, tuple[int, int, int]]:
        """Frames, rows and columns of an image and of a video that may be written."""
        c, (frames, height, width) = self.config, request.size
        clips = [m.size[0] for m in request.document.media if isinstance(m, Video)]
        length = frames or (clips[-1] if clips else c.frames)
        size = (height or c.height, width or c.width_px)
        for name, n in (("frames", length), ("height", size[0]), ("width", size[1])):
            if n < 1:
                raise MMCoreError(f"{name} must be at least 1, got {n}")
        return {IMAGE: (1, *size), VIDEO: (length, *size)}

    def _order(self, request: Request, sizes: dict[int, tuple[int, int, int]]) -> Order:
        if request.want not in ("any", "text", "image", "video"):
            raise MMCoreError(f'want must be "any", "text", "image" or "video", got {request.want!r}')
        return Order(
            document_pieces(request.document, self.tokenizer, self.config.patch),
            {opener: grid_of(size, self.config.patch) for opener, size in sizes.items()},
            {"image": IMAGE, "video": VIDEO}.get(request.want),
            0 if request.want == "text" else 4,
            request.seed,
        )

    def _told(self, event: Event, sizes: dict[int, tuple[int, int, int]], said: dict[int, list[int]]) -> Update:
        """An event in the terms of people."""
        if isinstance(event, TokenEvent):
            ids = said.setdefault(event.row, [])
            before = self.tokenizer.decode(ids)
            ids.append(event.token)
            return Update(event.row, text=self.tokenizer.decode(ids)[len(before) :])
        if isinstance(event, StepEvent):
            medium = self._medium(event.preview, sizes)
            return Update(event.row, preview=medium, step=event.step, steps=event.steps)
        said.pop(event.row, None)
        return Update(event.row, segment=self._segment(event.piece, sizes))

    def _segment(self, piece: Piece, sizes: dict[int, tuple[int, int, int]]) -> Segment:
        if isinstance(piece, Patches):
            return self._medium(piece, sizes)
        return Text(self.tokenizer.decode(piece.ids), True)

    def _medium(self, patches: Patches, sizes: dict[int, tuple[int, int, int]]) -> Image | Video:
        frames = unpatchify(patches.values, patches.grid, self.config.patch, sizes[patches.opener])
        return (Image if patches.opener == IMAGE else Video)(frames, self.config.fps, True)


@dataclass
class Chat:
    """A conversation: everything said and shown stays in it.

    Args:
        pipeline: who answers.
        settings: how.
        document: what was said and shown so far.
    """

    pipeline: Pipeline
    settings: Settings = DEFAULTS
    document: Document = field(default_factory=Document)

    def send(self, *parts: Part, want: str = "any", seed: int | None = None) -> Reply:
        """Say or show something, and get the answer.

        Args:
            parts: words, paths of media files, media.
            want: "text" for words alone, "image" or "video" for one of that, "any" to let the model decide.
            seed: decides everything that is drawn; the turn's number where it is None.
        """
        so_far = self.document + user_turn(parts)
        request = Request(so_far, want, seed=len(so_far) if seed is None else seed)
        reply = self.pipeline.reply([request], self.settings)[0]
        self.document = so_far + reply.document
        return reply


def make_settings(given: dict[str, object]) -> Settings:
    """`Settings` from keyword arguments; a number for `guidance` weighs the words.

    Raises:
        MMCoreError: an unknown name.
    """
    guidance = given.get("guidance")
    if isinstance(guidance, int | float):
        given = {**given, "guidance": Guidance(float(guidance))}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except TypeError as error:
        raise MMCoreError(f"unknown setting: {error}; known are: {', '.join(Settings.__dataclass_fields__)}") from error
