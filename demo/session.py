"""A conversation as the page keeps it: its turns, the files of their media, and the limits on what is sent.

    session = Session(pipeline, folder)
    session.say([Text("a red ball slides to the left")])
    for turn in session.answer(Choice(steps=8)):
        print(turn.words, turn.sketch)

A session knows nothing of the page: `look.py` shows it, `page.py` lets people act on it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from mmcore.demo.turns import Choice, Shown, Turn, keep
from mmcore.demo.uploads import MAX_BYTES, MAX_MEDIA, read
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.generate import make_settings
from mmcore.pipeline import Pipeline
from mmcore.replies import Request, Update


class Session:
    """One conversation.

    Args:
        pipeline: who answers.
        folder: for the files of its media; made here, removed by `close`.

    `about` is the earlier medium that the next message is about, if one was chosen: it is sent again with it.
    """

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline, self.folder = pipeline, folder
        self.turns: list[Turn] = []
        self.about: Shown | None = None
        self._stop = threading.Event()
        folder.mkdir(parents=True)

    @property
    def writing(self) -> bool:
        """Whether a reply is awaited or being written."""
        return bool(self.turns) and self.turns[-1].writing

    @property
    def shown(self) -> list[Shown]:
        """All media, in order."""
        parts = [part for turn in self.turns for part in (*turn.asked, *turn.said)]
        return [part for part in parts if isinstance(part, Shown)]

    @property
    def document(self) -> Document:
        """The conversation so far, as the model reads it."""
        parts = [part for turn in self.turns if not turn.refused for part in (*turn.asked, *turn.said)]
        return Document(tuple(part.medium if isinstance(part, Shown) else part for part in parts))

    def say(self, parts: Sequence[Segment | Path]) -> None:
        """Take the user's message; what is wrong with it stands in the turn's note.

        Args:
            parts: words, media, files that were uploaded; the medium that the message is about comes before them.
        """
        if self.writing:
            return
        about, self.about = self.about, None
        self._stop.clear()
        turn = Turn(writing=True)
        self.turns.append(turn)
        try:
            if about is not None:
                self._show(turn.asked, about.medium)
            for part in parts:
                if isinstance(part, Text):
                    turn.asked.append(part)
                else:
                    self._show(turn.asked, read(part) if isinstance(part, Path) else part)
        except MMCoreError as error:
            turn.note, turn.refused, turn.writing = str(error), True, False

    def answer(self, choice: Choice) -> Iterator[Turn]:
        """Let the model reply to the last message.

        Args:
            choice: how.
        Yields:
            The turn, after each word, sampling step and segment. It ends soon after `stop`.
        """
        if not self.writing:
            return
        turn, document = self.turns[-1], self.document
        turn.seed = choice.seed
        request = Request(document, choice.want, (choice.frames, None, None), choice.seed)
        try:
            settings = make_settings(choice.settings, self.pipeline.suited(request))
            for update in self.pipeline.stream([request], settings):
                if self._stop.is_set():
                    turn.note = "stopped"
                    break
                if update.preview is not None and len(self.shown) >= MAX_MEDIA:
                    turn.note = "full"
                    break
                self._take(turn, update)
                yield turn
        except MMCoreError as error:
            turn.note = str(error)
        finally:
            if turn.words.strip():
                turn.said.append(Text(turn.words, True))
            turn.words, turn.sketch, turn.writing = "", None, False
        yield turn

    def stop(self) -> None:
        """End the reply at its next word or step; what is finished stays."""
        self._stop.set()

    def retry(self) -> None:
        """Take back the last reply, so that `answer` writes another."""
        if self.turns and not self.writing and not self.turns[-1].refused:
            last = self.turns[-1]
            self._stop.clear()
            self.turns[-1] = Turn(last.asked, writing=True)

    def undo(self) -> str:
        """Take back the last turn.

        Returns:
            What the user had typed in it.
        """
        if not self.turns or self.writing:
            return ""
        self.about = None
        return self.turns.pop().text

    def clear(self) -> None:
        """Begin anew."""
        self.stop()
        self.turns, self.about = [], None

    def save(self) -> Path:
        """Write the conversation as a document folder, in a ZIP file that `load` and `Document.load` read back."""
        with TemporaryDirectory() as folder:
            self.document.save(folder)
            return Path(shutil.make_archive(str(self.folder / "conversation"), "zip", folder))

    def load(self, path: Path) -> None:
        """Go on with a conversation that `save` wrote; the one before is gone.

        Raises:
            MMCoreError: it is no such file, or holds too much.
        """
        try:
            with TemporaryDirectory() as folder, ZipFile(path) as packed:
                if sum(entry.file_size for entry in packed.infolist()) > MAX_BYTES:
                    raise MMCoreError(f"{path.name}: holds more than {MAX_BYTES // 2**20} MB")
                packed.extractall(folder)
                document = Document.load(folder)
        except BadZipFile as error:
            raise MMCoreError(f"{path.name}: not a ZIP file, or broken") from error
        except MMCoreError as error:
            raise MMCoreError(f"{path.name}: not a conversation: {str(error).split(': ', 1)[-1]}") from error
        if len(document.media) > MAX_MEDIA:
            raise MMCoreError(f"{path.name}: holds {len(document.media)} pictures and clips, at most {MAX_MEDIA}")
        self.clear()
        for learn, run in groupby(document, lambda segment: segment.learn):
            if not learn or not self.turns:
                self.turns.append(Turn())
            place = self.turns[-1].said if learn else self.turns[-1].asked
            for segment in run:
                if isinstance(segment, Text):
                    place.append(segment)
                else:
                    self._show(place, segment, learn)

    def _take(self, turn: Turn, update: Update) -> None:
        """Bring a turn up to date."""
        if update.segment is None:
            turn.words += update.text
            turn.sketch = update if update.preview is not None else turn.sketch
            return
        if isinstance(update.segment, Text):
            turn.said.append(update.segment)
        else:
            self._show(turn.said, update.segment, learn=True)
        turn.words, turn.sketch = "", None

    def _show(self, place: list[Text | Shown], medium: Image | Video, learn: bool = False) -> None:
        """Add a medium, as the model sees it, with its files."""
        number = len(self.shown) + 1
        if number > MAX_MEDIA:
            raise MMCoreError(f"a conversation holds {MAX_MEDIA} pictures and clips at most; clear it to begin anew")
        seen = self.pipeline.translator.fit(medium)
        place.append(keep(replace(seen, learn=learn), number, self.folder))

    def close(self) -> None:
        """End it: a reply stops, the files go."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
