"""The page of `mmcore demo`, served with its routes for programs: where, for whom, and with which limits.

    with running(pipeline, starts) as address:
        ...

No request leaves the machine, and no file is served but the media of conversations.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmcore.demo.sessions import Sessions
from mmcore.demo.uploads import MAX_BYTES
from mmcore.document import Document
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline

MAX_WAITING = 40
"""Replies that may wait for their turn."""

M_ARENA_MAX = -8
"""As in glibc's malloc.h."""


def serve(
    pipeline: Pipeline, starts: Sequence[Document], host: str = "127.0.0.1", port: int | None = None, auth: str = ""
) -> None:
    """Keep the page open until the process is told to end.

    Args:
        pipeline: who answers.
        starts: messages that one may begin with.
        host: address to listen on.
        port: to listen on; None is the first free one from 7860.
        auth: "user:password" to ask for, or nothing.
    Raises:
        MMCoreError: the port is taken, or `auth` is no pair.
    """
    few_arenas()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running(pipeline, starts, host, port, auth) as address:
        print(f"The page is at {address} (Ctrl+C ends it)", flush=True)
        threading.Event().wait()


def few_arenas() -> None:
    """Let all threads share two arenas of glibc's: what is freed in an arena of a thread's own never goes back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)


@contextmanager
def running(
    pipeline: Pipeline, starts: Sequence[Document], host: str = "127.0.0.1", port: int | None = None, auth: str = ""
) -> Iterator[str]:
    """The page, open for as long as the context lasts; gives its address. See `serve`."""
    user, _, password = auth.partition(":")
    if auth and not (user and password):
        raise MMCoreError(f"--auth takes USER:PASSWORD, got {auth!r}")
    ended = threading.Event()
    with TemporaryDirectory(prefix="mmcore-demo-") as folder:
        root, uploads = Path(folder), Path(folder) / "uploads"
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "GRADIO_TEMP_DIR": str(uploads),
        }
        from mmcore.demo.completions import add_completions
        from mmcore.demo.page import LABELS, STYLE, THEME, build

        media = root / "media"
        media.mkdir()
        sessions = Sessions(pipeline, media)
        page = build(sessions, starts, media, uploads).queue(max_size=MAX_WAITING)

        def sweep() -> None:
            while not ended.wait(60):
                sessions.sweep()

        try:
            app, address, _ = page.launch(
                server_name=host,
                server_port=port,
                auth=(user, password) if auth else None,
                allowed_paths=[str(media)],
                max_file_size=MAX_BYTES,
                theme=THEME,
                css=STYLE,
                i18n=LABELS,
                footer_links=[],
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            where = f"{host}:{port}" if port else host
            raise MMCoreError(
                f"cannot listen on {where}: taken, or not allowed; choose another --port or --host"
            ) from error
        add_completions(app, pipeline, auth)
        threading.Thread(target=sweep, daemon=True).start()
        try:
            yield address
        finally:
            ended.set()
            page.close(verbose=False)
