"""The model for programs, through OpenAI's own client and Gradio's: words, pictures and clips both ways, errors."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

openai = pytest.importorskip("openai")
gradio_client = pytest.importorskip("gradio_client")

from mmcore.demo.completions import MAX_WAITING, Turnstile, understood  # noqa: E402
from mmcore.demo.serve import running  # noqa: E402
from mmcore.document import Image, Text, Video  # noqa: E402
from mmcore.errors import MMCoreError  # noqa: E402
from mmcore.generate import Settings  # noqa: E402
from mmcore.pipeline import Pipeline  # noqa: E402
from mmcore.replies import Request, Update  # noqa: E402
from tests.conftest import noise_clip  # noqa: E402

pytestmark = pytest.mark.quick

CLIP, PICTURE = Video(noise_clip(0, 5), 8.0), Image(noise_clip(1, 1))


class Echo(Pipeline):
    """Answers with the media that it was sent, between words, and remembers what it was asked."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline.model, pipeline.tokenizer)
        self.asked: list[tuple[Request, Settings]] = []

    def stream(self, requests, settings=Settings()) -> Iterator[Update]:  # noqa: B008
        (request,) = requests
        self.asked.append((request, settings or Settings()))
        if "too long" in request.document.text:
            raise MMCoreError("the document takes 9 positions, the model holds 8")
        for word in ("here ", "it is"):
            yield Update(text=word)
        yield Update(segment=Text("here it is", True))
        for medium in request.document.media:
            yield Update(preview=medium, step=1, steps=2)
            yield Update(segment=medium)


@pytest.fixture
def echo(pipeline: Pipeline) -> Echo:
    return Echo(pipeline)


@pytest.fixture
def client(echo: Echo) -> Iterator:
    with running(echo, []) as address:
        yield openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0, timeout=30)


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def medium(clip: Image | Video) -> dict:
    kind = "image_url" if isinstance(clip, Image) else "video_url"
    return {"type": kind, kind: {"url": clip.data_url}}


def ask(client, *parts: dict, **options):
    messages = [{"role": "user", "content": [*parts]}]
    return client.chat.completions.create(model="mmcore", messages=messages, **options)


def decoded(part: dict, tmp_path: Path) -> Image | Video:
    url = part[part["type"]]["url"]
    path = tmp_path / ("made.png" if part["type"] == "image_url" else "made.mp4")
    path.write_bytes(base64.b64decode(url.split(",", 1)[1]))
    return (Image if part["type"] == "image_url" else Video).open(path)


def test_words_pictures_and_clips_go_both_ways(client, echo: Echo, tmp_path: Path) -> None:
    reply = ask(client, medium(PICTURE), text("make it blue"), medium(CLIP), seed=7)
    (request, _) = echo.asked[0]
    sent, words, clip = request.document.segments
    assert isinstance(sent, Image) and np.array_equal(sent.frames, PICTURE.frames)
    assert words == Text("make it blue") and isinstance(clip, Video) and len(clip.frames) == 5 and request.seed == 7
    message = reply.choices[0].message
    assert message.content == "here it is" and reply.choices[0].finish_reason == "stop"
    said, picture, film = message.parts
    assert said == text("here it is")
    assert np.array_equal(decoded(picture, tmp_path).frames, PICTURE.frames)
    assert decoded(film, tmp_path).frames.shape == CLIP.frames.shape


def test_what_came_back_can_be_sent_back(client, echo: Echo) -> None:
    first = ask(client, medium(PICTURE), text("make it blue")).choices[0].message
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "make it blue"},
        {"role": "assistant", "content": first.parts},
        {"role": "user", "content": "and now red"},
    ]
    client.chat.completions.create(model="mmcore", messages=messages)
    document = echo.asked[1][0].document
    assert [(type(s), s.learn) for s in document] == [(Text, False), (Text, True), (Image, True), (Text, False)]


def test_a_stream_gives_words_as_they_come_then_media(client) -> None:
    chunks = list(ask(client, medium(PICTURE), text("what is this?"), stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert [d.content for d in deltas if d.content] == ["here ", "it is"]
    (part,) = next(d.parts for d in deltas if getattr(d, "parts", None))
    assert part["image_url"]["url"].startswith("data:image/png;base64,")
    assert chunks[-1].choices[0].finish_reason == "stop" and len({chunk.id for chunk in chunks}) == 1


def test_a_stream_that_is_broken_off_does_not_hold_up_the_next(client) -> None:
    for _ in range(2):
        with ask(client, *[medium(CLIP)] * 8, text("what is this?"), stream=True, timeout=10) as stream:
            assert next(iter(stream)).choices[0].delta.role == "assistant"
    assert ask(client, text("hi"), timeout=10).choices[0].message.content == "here it is"


def test_how_it_is_written_can_be_chosen(client, echo: Echo) -> None:
    ask(client, text("a red ball"), modalities=["video"], temperature=0.5, extra_body={"steps": 3, "frames": 8})
    request, settings = echo.asked[0]
    assert request.want == "video" and request.size == (8, None, None)
    assert settings.steps == 3 and settings.temperature == 0.5


def test_what_is_not_chosen_is_what_suits_the_model(client, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    suits = Settings(steps=7, shift=2.0, tokens=11)
    monkeypatch.setattr(echo.translator, "settings", suits)
    ask(client, text("a red ball"))
    ask(client, text("a red ball"), extra_body={"guidance": 2.5})
    (_, plain), (_, guided) = echo.asked
    assert plain == suits and guided == replace(suits, guidance=replace(suits.guidance, text=2.5))


def test_it_is_listed(client) -> None:
    assert [model.id for model in client.models.list()] == ["mmcore"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "at least one message"),
        ({"messages": [{"role": "user", "content": "hi"}], "n": 2}, "one reply is written at a time"),
        ({"messages": [{"role": "king", "content": "hi"}]}, r"messages\[0\]: a message with the role"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "the last one must be the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, r"content\[0\]: a part of type"),
        ({"messages": [{"role": "user", "content": 3}]}, "words or a list of parts"),
        ({"messages": [{"role": "user", "content": "hi"}], "steps": "many"}, "steps: a number is expected"),
        ({"messages": [{"role": "user", "content": "hi"}], "steps": 0}, "steps must be at least 1"),
        ({"messages": [{"role": "user", "content": "hi"}], "frames": 0}, "frames: a whole number"),
        ({"messages": [{"role": "user", "content": [text("x"), *[medium(PICTURE)] * 9]}]}, "at most 8 pictures"),
        *(
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}, says)
            for url, says in (
                ("https://example.com/cat.png", "a data: URL in base64 is expected"),
                ("file:///etc/passwd", "a data: URL in base64 is expected"),
                ("data:text/html;base64,aGk=", "a data: URL in base64 is expected"),
                ("data:image/png;base64,***", "broken base64"),
                ("data:image/png;base64,aGVsbG8=", "not a picture or clip|cannot|broken|no "),
            )
        ),
    ],
)
def test_what_cannot_be_read_is_named(body: dict, says: str) -> None:
    with pytest.raises(MMCoreError, match=says):
        understood(body)


def test_errors_reach_the_client_as_its_own(client) -> None:
    with pytest.raises(openai.BadRequestError, match="the model holds 8"):
        ask(client, text("this is too long"))
    with pytest.raises(openai.BadRequestError, match="data: URL"):
        ask(client, {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}})
    request = urllib.request.Request(f"{client.base_url}chat/completions", b"{", {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400 and "not JSON" in json.loads(refused.value.read())["error"]["message"]


def test_a_key_is_asked_for_where_the_page_asks(echo: Echo) -> None:
    with running(echo, [], auth="ann:secret") as address:
        for key, works in (("none", False), ("ann:secret", True)):
            client = openai.OpenAI(base_url=f"{address}v1", api_key=key, max_retries=0)
            if works:
                assert ask(client, text("hi")).choices[0].message.content == "here it is"
            else:
                with pytest.raises(openai.AuthenticationError):
                    ask(client, text("hi"))


HOW = ("any", 0, 2, 3.0, 5)


def test_gradios_client_talks_on_in_one_conversation(echo: Echo, tmp_path: Path) -> None:
    sent = PICTURE.save(tmp_path / "sent.png")
    with running(echo, []) as address:
        client = gradio_client.Client(address, verbose=False)
        words, made = client.predict("make it blue", [gradio_client.handle_file(sent)], *HOW, api_name="/chat")
        assert words == "here it is" and len(made) == 1
        path, _ = urllib.request.urlretrieve(made[0], tmp_path / "made.png")
        client.predict("and now red", [], *HOW, api_name="/chat")
        with pytest.raises(gradio_client.exceptions.AppError, match="the model holds 8"):
            client.predict("this is too long", [], *HOW, api_name="/chat")
    first, second, _ = (request for request, _ in echo.asked)
    size = (echo.config.height, echo.config.width_px)
    assert Image.open(path).size == (1, *size) and first.seed == 5
    kinds = [(type(s), s.learn) for s in second.document]
    assert kinds == [(Image, False), (Text, False), (Text, True), (Image, True), (Text, False)]


def test_a_path_that_was_not_uploaded_is_not_read(echo: Echo, tmp_path: Path) -> None:
    """A picture that lies on the machine, named in a raw call as if it had been uploaded."""
    private = PICTURE.save(tmp_path / "private.png")
    with running(echo, []) as address:
        route = f"{address}gradio_api/call/chat"
        for file in ({"path": str(private)}, {"path": str(private), "meta": {"_type": "gradio.FileData"}}):
            body = json.dumps({"data": ["what is this?", [file], *HOW]}).encode()
            call = urllib.request.Request(route, body, {"content-type": "application/json"})
            number = json.loads(urllib.request.urlopen(call).read())["event_id"]
            assert "event: error" in urllib.request.urlopen(f"{route}/{number}").read().decode()
    assert echo.asked == []


def test_one_at_a_time_and_not_too_many_wait() -> None:
    turnstile, inside, most = Turnstile(), [0], [0]

    def work() -> Iterator[dict]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        yield {}
        inside[0] -= 1

    threads = [threading.Thread(target=lambda: list(turnstile.through(work))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    first = turnstile.through(work)
    next(first)
    for _ in range(MAX_WAITING - 1):
        assert turnstile._waiting.acquire(blocking=False)
    with pytest.raises(BlockingIOError):
        next(turnstile.through(work))
    first.close()
    assert turnstile._one.acquire(blocking=False), "a stream that is broken off lets the next one through"
