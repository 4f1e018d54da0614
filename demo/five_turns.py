"""One conversation of five turns, had with any model: from Python, on the page, by a program, or at the command line.

    python -m mmcore.demo.five_turns BAGEL-7B-MoT talk       # a model folder or hub id, and where the conversation goes
    mmcore chat --model BAGEL-7B-MoT --out talk < lines      # the same; `lines` writes them

A picture is drawn, asked about and edited; a clip is filmed (or a picture drawn, by a model that does not film); then
the first picture is shown again and asked about. With the same settings each way gives the same document.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcore
from mmcore.chat import Chat
from mmcore.demo.session import Session
from mmcore.demo.turns import Choice
from mmcore.document import Document, Text
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.replies import Reply

Body = dict[str, Any]


@dataclass(frozen=True)
class Saying:
    """What the user sends in one turn.

    Args:
        words: of the message.
        want: "text", "image" or "video".
        again: whether the first medium of the conversation is shown with it.
    """

    words: str
    want: str
    again: bool = False


def sayings(model: Pipeline) -> tuple[Saying, ...]:
    """The five turns."""
    return (
        Saying("draw a large red ball", "image"),
        Saying("what is this?", "text"),
        Saying("make the ball blue", "image"),
        Saying("now it slides to the left", "video" if model.translator.frames > 1 else "image"),
        Saying("what was this?", "text", again=True),
    )


def lines(model: Pipeline, out: Path) -> str:
    """The conversation as `mmcore chat --out OUT` reads it, where OUT holds nothing yet."""
    first = f"{out / 'reply_1.png'} "
    return "".join(f"/{s.want} {first if s.again else ''}{s.words}\n" for s in sayings(model))


def converse(chat: Chat) -> Iterator[Reply]:
    """Have the conversation from Python; the replies as they come."""
    for saying in sayings(chat.pipeline):
        shown = chat.document.media[:1] if saying.again else ()
        yield chat.send(*shown, saying.words, want=saying.want)


def by_page(model: Pipeline, folder: Path) -> Document:
    """Have the conversation as the page does.

    Args:
        model: who answers.
        folder: for the session's files; removed again.
    Raises:
        MMCoreError: a turn did not come to its end.
    """
    session = Session(model, folder)
    try:
        for saying in sayings(model):
            session.about = session.shown[0] if saying.again else None
            session.say([Text(saying.words)])
            for turn in session.answer(Choice(saying.want, seed=len(session.document))):
                if turn.note:
                    raise MMCoreError(f"{saying.words}: {turn.note}")
        return session.document
    finally:
        session.close()


def by_program(model: Pipeline, post: Callable[[Body], Body]) -> list[Body]:
    """Have the conversation as a program does, which holds it itself and sends all of it each time.

    Args:
        model: who answers.
        post: sends a body to `/v1/chat/completions` and gives what comes back.
    Returns:
        The messages.
    """
    messages: list[Body] = []
    for saying in sayings(model):
        shown = [part for message in messages for part in message["content"] if part["type"] != "text"]
        first = shown[:1] if saying.again else []
        messages.append({"role": "user", "content": [*first, {"type": "text", "text": saying.words}]})
        seed = sum(len(message["content"]) for message in messages)
        reply = post({"messages": messages, "modalities": [saying.want], "seed": seed})
        messages.append({"role": "assistant", "content": reply["choices"][0]["message"]["parts"]})
    return messages


def main(source: str, folder: Path) -> None:
    """Have the conversation, tell what came and how long it took, and keep it."""
    chat = mmcore.load(source).chat()
    began = time.perf_counter()
    for reply in converse(chat):
        made = [f"{type(m).__name__.lower()} {'x'.join(map(str, m.size))}" for m in reply.media]
        now = time.perf_counter()
        print(f"{now - began:7.1f} s  {reply.text} {' '.join(made)}".rstrip(), flush=True)
        began = now
    print(chat.document.save(folder))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m mmcore.demo.five_turns MODEL FOLDER")
    main(sys.argv[1], Path(sys.argv[2]))
