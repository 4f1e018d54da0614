"""The model for programs: `POST /v1/chat/completions` as OpenAI has it, with pictures and clips both ways.

    client = openai.OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="none")
    reply = client.chat.completions.create(model="mmcore", messages=[{"role": "user", "content": "a red ball bounces"}])
    reply.choices[0].message.content   # the words
    reply.choices[0].message.parts     # words, pictures and clips in order; goes back as a message's content

A picture or a clip is a part `{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}`, or the same
with `video_url`. Other addresses are refused: nothing is fetched. In a stream, words come as `delta.content` and each
finished medium as `delta.parts`. A medium of a reply that comes back as it was sent is taken as the model made it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from mmcore.demo.uploads import MAX_BYTES, MAX_MEDIA, read
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.errors import MMCoreError
from mmcore.generate import Settings, make_settings
from mmcore.pipeline import Pipeline
from mmcore.replies import Request as Asked

MODEL = "mmcore"

MAX_BODY = 4 * MAX_BYTES
"""Of one request: media are a third longer in base64."""

MAX_WAITING = 16
"""Requests that may wait for their turn."""

SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
}

Body = dict[str, Any]


MAX_SENT = 32
"""Media of replies that are remembered."""


class Sent:
    """Media as the model made them, by the addresses that they were sent as: a clip loses in its file."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Image | Video] = OrderedDict()

    def part(self, medium: Image | Video) -> Body:
        """A medium as a part of a message's content; it is remembered, the oldest makes room."""
        kind = "image_url" if isinstance(medium, Image) else "video_url"
        part = {"type": kind, kind: {"url": medium.data_url}}
        self._kept[self._key(part[kind]["url"])] = medium
        if len(self._kept) > MAX_SENT:
            self._kept.popitem(last=False)
        return part

    def find(self, url: str) -> Image | Video | None:
        """The medium that was sent so."""
        return self._kept.get(self._key(url))

    @staticmethod
    def _key(url: str) -> bytes:
        return blake2b(url.encode(), digest_size=16).digest()


class Turnstile:
    """Lets one request through at a time, and turns away those that would wait behind too many."""

    def __init__(self) -> None:
        self._one, self._waiting = threading.Lock(), threading.BoundedSemaphore(MAX_WAITING)

    def through(self, work: Callable[[], Iterator[Body]]) -> Generator[Body]:
        """What the work yields, once it is its turn.

        Raises:
            BlockingIOError: too many are waiting.
        """
        if not self._waiting.acquire(blocking=False):
            raise BlockingIOError
        try:
            with self._one:
                yield from work()
        finally:
            self._waiting.release()


def add_completions(app: FastAPI, pipeline: Pipeline, key: str = "") -> None:
    """Give an application the routes `/v1/chat/completions` and `/v1/models`.

    Args:
        app: the page's.
        pipeline: who answers.
        key: what programs must send as their API key, or "" for none.
    """
    turnstile, sent = Turnstile(), Sent()

    def allowed(request: Request) -> bool:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        return not key or secrets.compare_digest(sent.encode(), key.encode())

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        if not allowed(request):
            return refusal(401, "the API key is wrong; send USER:PASSWORD as given with --auth")
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": MODEL}]})

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        if not allowed(request):
            return refusal(401, "the API key is wrong; send USER:PASSWORD as given with --auth")
        received = bytearray()
        async for piece in request.stream():
            received += piece
            if len(received) > MAX_BODY:
                return refusal(413, f"a request may hold {MAX_BODY // 2**20} MB")
        try:
            body = json.loads(received)
            asked, settings = await run_in_threadpool(understood, body, pipeline.suited, sent)
            deltas = turnstile.through(lambda: reply_deltas(pipeline, asked, settings, sent))
            first = await run_in_threadpool(next, deltas)
        except json.JSONDecodeError as error:
            return refusal(400, f"the body is not JSON: {error}")
        except MMCoreError as error:
            return refusal(400, str(error))
        except BlockingIOError:
            return refusal(429, f"{MAX_WAITING} requests are waiting; try again later")
        if body.get("stream"):
            return StreamingResponse(told(first, deltas), media_type="text/event-stream")
        return JSONResponse(await run_in_threadpool(completion, first, deltas))


def refusal(status: int, message: str) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 429 else "rate_limit_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


def understood(
    body: Body, suited: Callable[[Asked], Settings] = lambda _: Settings(), sent: Sent | None = None
) -> tuple[Asked, Settings]:
    """What is asked for, and how it is to be written.

    Args:
        body: as it was sent.
        suited: says what the body does not.
        sent: media of earlier replies.
    Raises:
        MMCoreError: the body is not such a request.
    """
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise MMCoreError("messages: a list of at least one message is expected")
    if body.get("n") not in (None, 1):
        raise MMCoreError(f"n: one reply is written at a time, got {body['n']!r}")
    segments: list[Segment] = []
    for i, message in enumerate(body["messages"]):
        segments += message_segments(message, f"messages[{i}]", sent or Sent())
    document = Document(tuple(segments))
    if not segments or segments[-1].learn:
        raise MMCoreError("messages: the last one must be the user's")
    if len(document.media) > MAX_MEDIA:
        raise MMCoreError(f"messages: at most {MAX_MEDIA} pictures and clips are taken, got {len(document.media)}")
    wanted = [kind for kind in body.get("modalities") or () if kind in ("text", "image", "video")]
    frames = body.get("frames")
    if frames is not None and (type(frames) is not int or frames < 1):
        raise MMCoreError(f"frames: a whole number of at least 1 is expected, got {frames!r}")
    given: dict[str, object] = {}
    for name, kinds in (("steps", (int,)), ("guidance", (int, float)), ("temperature", (int, float))):
        if (value := body.get(name)) is not None:
            if type(value) not in kinds:
                raise MMCoreError(f"{name}: a number is expected, got {value!r}")
            given[name] = value
    seed = body.get("seed")
    asked = Asked(
        document, wanted[0] if len(wanted) == 1 else "any", (frames, None, None), seed if type(seed) is int else 0
    )
    return asked, make_settings(given, suited(asked))


def message_segments(message: object, where: str, sent: Sent) -> list[Segment]:
    """One message's segments. What a system message says is left out: the model follows no standing orders.

    Raises:
        MMCoreError: it is no message, or a part of it cannot be read.
    """
    if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
        raise MMCoreError(f"{where}: a message with the role system, user or assistant is expected")
    if message["role"] in ("system", "developer"):
        return []
    content = message.get("parts") or message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise MMCoreError(f"{where}.content: words or a list of parts are expected")
    learn = message["role"] == "assistant"
    return [part_segment(part, learn, f"{where}.content[{i}]", sent) for i, part in enumerate(parts)]


def part_segment(part: object, learn: bool, where: str, sent: Sent) -> Segment:
    """One part of a message's content."""
    kind = part.get("type") if isinstance(part, dict) else None
    value = part.get(kind) if isinstance(part, dict) and isinstance(kind, str) else None
    if kind == "text" and isinstance(value, str):
        return Text(value, learn)
    if kind not in ("image_url", "video_url"):
        raise MMCoreError(f"{where}: a part of type text, image_url or video_url is expected")
    url = value.get("url") if isinstance(value, dict) else value
    found = re.fullmatch(r"data:([\w/+.-]+);base64,(.*)", url, re.DOTALL) if isinstance(url, str) else None
    if found is None or found[1] not in SUFFIXES:
        raise MMCoreError(f"{where}: a data: URL in base64 is expected, of one of: {', '.join(SUFFIXES)}")
    if (known := sent.find(found[0])) is not None:
        return replace(known, learn=learn)
    try:
        raw = base64.b64decode(found[2], validate=True)
    except binascii.Error as error:
        raise MMCoreError(f"{where}: broken base64: {error}") from error
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{SUFFIXES[found[1]]}"
        path.write_bytes(raw)
        try:
            medium = read(path)
        except MMCoreError as error:
            raise MMCoreError(f"{where}: {str(error).split(': ', 1)[-1]}") from error
    return replace(medium, learn=learn)


def reply_deltas(pipeline: Pipeline, asked: Asked, settings: Settings, sent: Sent) -> Iterator[Body]:
    """The reply, piece by piece: the role, new words, finished media.

    Raises:
        MMCoreError: before the first piece, where the request does not fit the model.
    """
    updates = pipeline.stream([asked], settings)
    held = next(updates, None)
    yield {"role": "assistant", "content": ""}
    while held is not None:
        if held.text:
            yield {"content": held.text}
        if isinstance(held.segment, Image | Video):
            yield {"parts": [sent.part(held.segment)]}
        held = next(updates, None)


def _head(kind: str) -> Body:
    return {"id": f"chatcmpl-{secrets.token_hex(8)}", "object": kind, "created": int(time.time()), "model": MODEL}


def events(first: Body, deltas: Iterator[Body]) -> Iterator[str]:
    """Server-sent events, as OpenAI's API streams a reply."""
    head = _head("chat.completion.chunk")

    def event(delta: Body, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"

    yield event(first)
    for delta in deltas:
        yield event(delta)
    yield event({}, "stop")
    yield "data: [DONE]\n\n"


async def told(first: Body, deltas: Generator[Body]) -> AsyncIterator[str]:
    """The events, until whoever reads them goes away: then the reply ends too, and the next request has its turn."""
    try:
        async for event in iterate_in_threadpool(events(first, deltas)):
            yield event
    finally:
        deltas.close()


def completion(first: Body, deltas: Iterator[Body]) -> Body:
    """A whole reply, as OpenAI's API gives it."""
    parts: list[Body] = []
    for delta in (first, *deltas):
        if delta.get("content"):
            if not parts or parts[-1]["type"] != "text":
                parts.append({"type": "text", "text": ""})
            parts[-1]["text"] += delta["content"]
        parts += delta.get("parts", [])
    words = " ".join(part["text"] for part in parts if part["type"] == "text")
    message = {"role": "assistant", "content": words, "parts": parts}
    return _head("chat.completion") | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
