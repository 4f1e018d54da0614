"""The page: a Gradio app around `session.py`, which keeps the conversations, and `look.py`, which draws them.

    page = build(Sessions(pipeline, folder), starts)

Data flows one way: an event changes the session of the tab that it came from, and the session is drawn anew.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import themes
from gradio.events import api

from mmcore.demo.look import Look
from mmcore.demo.session import Session
from mmcore.demo.sessions import MAX_IDLE, Sessions
from mmcore.demo.turns import Choice, Shown, keep
from mmcore.demo.words import LANGUAGES, language
from mmcore.document import Document, Text
from mmcore.errors import MMCoreError

HERE = Path(__file__).parent
STYLE, SCRIPT = (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
LABELS = gr.I18n(**LANGUAGES)
THEME = themes.Default(
    primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
)

EMPTY: dict[str, Any] = {"text": "", "files": []}
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

PAUSE = 0.1
"""Seconds between two drawings of words that are being written; each sampling step is drawn."""


def build(sessions: Sessions, starts: Sequence[Document], files: Path, uploads: Path) -> gr.Blocks:
    """The page.

    Args:
        sessions: where conversations are kept.
        starts: messages that one may begin with; what they hold with `learn=True` is shown on their cards, not sent.
        files: a folder for the media of the starts.
        uploads: the folder into which Gradio puts what is sent.
    """
    translator = sessions.pipeline.translator
    longest, usual = 4 * translator.frames, translator.settings
    cards = [[s if isinstance(s, Text) else keep(s, 1, files) for s in start] for start in starts]

    def session_of(request: gr.Request) -> Session:
        return sessions.of(str(request.session_hash))

    def look_of(request: gr.Request) -> Look:
        return Look(language(request.headers.get("accept-language", "")))

    def drawn(request: gr.Request) -> tuple[str, str]:
        session, look = session_of(request), look_of(request)
        return look.talk(session, cards), look.subject(session.about)

    def opened(request: gr.Request) -> tuple[str, str, str]:
        return look_of(request).head(), *drawn(request)

    def sent(message: dict[str, Any], request: gr.Request) -> tuple[object, ...]:
        words = message["text"].strip()
        parts = [*(Path(file) for file in message["files"]), *([Text(words)] if words else [])]
        if parts:
            session_of(request).say(parts)
        return *drawn(request), box_while(session_of(request), "")

    def acted(event: gr.EventData, request: gr.Request) -> tuple[object, ...]:
        session, number = session_of(request), int(event.number)
        box: dict[str, Any] | None = None
        match event.do:
            case "start":
                session.say([part for part in starts[number] if not part.learn])
            case "again":
                session.retry()
            case "change":
                box = box_while(session, session.undo())
            case "undo":
                session.undo()
            case "edit":
                session.about = next((shown for shown in session.shown if shown.number == number), None)
            case "drop":
                session.about = None
        return *drawn(request), box or (box_while(session) if session.writing else gr.skip())

    def written(
        want: str,
        frames: float,
        steps: float,
        guidance: float,
        seed: float,
        fresh: bool,
        request: gr.Request,
    ) -> Iterator[tuple[object, ...]]:
        session, look = session_of(request), look_of(request)
        if not session.writing:
            yield (gr.skip(),) * 3
            return
        number = secrets.randbelow(10**6) if fresh else int(seed)
        choice = Choice(want, int(frames) or None, int(steps), guidance, number)
        drawn_at = 0.0
        for turn in session.answer(choice):
            if turn.sketch or time.monotonic() - drawn_at > PAUSE:
                yield look.talk(session, cards), gr.skip(), number
                drawn_at = time.monotonic()
        yield look.talk(session, cards), box_while(session), number

    def stopped(request: gr.Request) -> None:
        session_of(request).stop()

    def left(request: gr.Request) -> None:
        sessions.close(str(request.session_hash))

    def cleared(request: gr.Request) -> tuple[object, ...]:
        session_of(request).clear()
        return *drawn(request), box_while(session_of(request), "")

    def saved(request: gr.Request) -> str:
        return str(session_of(request).save())

    def loaded(file: str, request: gr.Request) -> tuple[str, str]:
        try:
            session_of(request).load(Path(file))
        except MMCoreError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return drawn(request)

    def chat(
        words: str,
        files: list[dict[str, Any]],
        want: str,
        frames: int,
        steps: int,
        guidance: float,
        seed: int,
        request: gr.Request,
    ) -> tuple[str, list[str]]:
        """Send a message and wait for the reply; the conversation goes on from call to call.

        Args:
            words: the message.
            files: pictures and clips that come before the words, as `gradio_client.handle_file` gives them.
            want: "any", "text", "image" or "video".
            frames: of a clip; 0 is as many as fit.
            steps: sampling steps of each picture or clip.
            guidance: weight of the words.
            seed: decides everything that is drawn.
        Returns:
            The words of the reply, and the addresses of its pictures and clips.
        """
        session = session_of(request)
        paths = [Path(str(file.get("path"))).resolve() for file in files]
        if not all(path.is_relative_to(uploads.resolve()) for path in paths):
            raise gr.Error("files: only what was uploaded is taken; use handle_file", print_exception=False)
        session.say([*paths, *([Text(words)] if words.strip() else [])])
        turn = session.turns[-1]
        list(session.answer(Choice(want, frames or None, steps, guidance, seed)))
        if turn.note:
            raise gr.Error(turn.note, print_exception=False)
        address = str(request.base_url).rstrip("/")
        made = [f"{address}/gradio_api/file={part.file}" for part in turn.said if isinstance(part, Shown)]
        return " ".join(part.text for part in turn.said if isinstance(part, Text)), made

    with gr.Blocks(title="mmcore", delete_cache=(600, MAX_IDLE)) as page:
        head = gr.HTML(elem_id="head")
        log = gr.HTML(elem_id="log", js_on_load=SCRIPT, autoscroll=True, apply_default_css=False)
        with gr.Column(elem_id="composer"):
            subject = gr.HTML(elem_id="subject", js_on_load=SCRIPT, apply_default_css=False)
            box = gr.MultimodalTextbox(
                value=EMPTY,
                label=label("message"),
                show_label=False,
                placeholder=label("hint"),
                file_types=["image", "video"],
                file_count="multiple",
                sources=["upload"],
                autofocus=True,
                elem_id="box",
            )
        with gr.Row(elem_id="tools"):
            clear = gr.Button(label("clear"), size="sm", min_width=80)
            save = gr.Button(label("save"), size="sm", min_width=80)
            load = gr.UploadButton(label("load"), file_types=[".zip"], size="sm", min_width=80)
            bundle = gr.DownloadButton(visible="hidden", elem_id="bundle")
        with gr.Accordion(label("settings"), open=False):
            with gr.Row():
                kinds = [(label(f"want_{kind}"), kind) for kind in ("any", "text", "image", "video")]
                want = gr.Radio(kinds, value="any", label=label("want"))
                frames = gr.Number(
                    0, label=label("length"), info=label("length_info"), precision=0, minimum=0, maximum=longest
                )
            with gr.Row():
                steps = gr.Slider(1, 100, usual.steps, step=1, label=label("steps"), info=label("steps_info"))
                guidance = gr.Slider(
                    1, 10, usual.guidance.text, step=0.5, label=label("guidance"), info=label("guidance_info")
                )
            with gr.Row():
                seed = gr.Number(0, label=label("seed_label"), info=label("seed_info"), precision=0, minimum=0)
                fresh = gr.Checkbox(True, label=label("fresh"))

        answer: dict[str, Any] = {
            "fn": written,
            "inputs": [want, frames, steps, guidance, seed, fresh],
            "outputs": [log, box, seed],
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": log,
        }
        page.load(opened, None, [head, log, subject], **PRIVATE)
        box.submit(sent, box, [log, subject, box], **PRIVATE).then(**answer)
        log.click(acted, None, [log, subject, box], **PRIVATE).then(**answer)
        subject.click(acted, None, [log, subject, box], **PRIVATE)
        box.stop(stopped, None, None, queue=False, **PRIVATE)
        clear.click(cleared, None, [log, subject, box], **PRIVATE)
        save.click(saved, None, bundle, **PRIVATE).then(None, js="() => document.getElementById('bundle').click()")
        load.upload(loaded, load, [log, subject], **PRIVATE)
        page.unload(left)
        api(chat, api_name="chat", concurrency_id="model", concurrency_limit=1)
    return page


def box_while(session: Session, words: str | None = None) -> dict[str, Any]:
    """The box for messages: it waits, with a button to stop, while a reply is written.

    Args:
        session: whose.
        words: what stands in it from now on; None leaves it as it is.
    """
    free = not session.writing
    state: dict[str, Any] = {"interactive": free, "submit_btn": free, "stop_btn": not free}
    return gr.update(**state) if words is None else gr.update(value=EMPTY | {"text": words}, **state)


def label(key: str) -> Any:
    """A label that the browser puts into its user's language. Gradio takes it wherever it takes a string."""
    return LABELS(key)
