"""All conversations that are open on the page, each with a folder of its own that goes with it.

sessions = Sessions(pipeline, Path("folder"))
sessions.of("a tab").say([Text("a red ball bounces")])
sessions.sweep()                                      # those that nobody has touched for an hour
"""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path

from mmcore.demo.session import Session
from mmcore.pipeline import Pipeline

MAX_IDLE = 3600
"""Seconds after which a conversation that nobody touches ends."""


class Sessions:
    """All conversations that are open, each with a folder of its own.

    Args:
        pipeline: who answers.
        root: for the folders.
    """

    def __init__(self, pipeline: Pipeline, root: Path) -> None:
        self.pipeline, self.root = pipeline, root
        self._open: dict[str, tuple[Session, float]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, key: str) -> Session:
        """The conversation of a browser's tab; a new one the first time."""
        with self._lock:
            session, _ = self._open.get(key) or (Session(self.pipeline, self.root / secrets.token_urlsafe(16)), 0)
            self._open[key] = session, time.monotonic()
            return session

    def close(self, key: str) -> None:
        """End the conversation of a tab, if there is one."""
        with self._lock:
            found = self._open.pop(key, None)
        if found:
            found[0].close()

    def sweep(self, idle: float = MAX_IDLE) -> None:
        """End the conversations that nobody has touched for so many seconds."""
        now = time.monotonic()
        for key in [key for key, (_, used) in self._open.copy().items() if now - used >= idle]:
            self.close(key)
