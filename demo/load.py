"""Many users at once on the page, for minutes: what goes wrong, how long they wait, what memory does.

    python -m mmcore.demo.load --users 20 --minutes 5

Each user holds conversations of its own: a clip is asked for, a picture is sent with a question, the first clip is
edited. Every reply is checked to belong to its conversation. Then a program asks about a picture and reads the stream.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlparse

import numpy as np

from mmcore.document import Image

HOW = (0, 20, 3.0, 0)
"""Frames, steps, guidance and seed of a call."""


@dataclass
class Found:
    """What the users found.

    Args:
        clips: seconds that each clip took, waiting included.
        words: seconds until each first word, waiting included.
        errors: what went wrong, one line each.
        memory: (seconds since the start, megabytes) of the server.
    """

    clips: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


def converse(address: str, picture: Path, found: Found) -> None:
    """One conversation through Gradio's client. All its media lie in one folder, and are numbered without a gap."""
    from gradio_client import Client, handle_file

    with closing(Client(address, verbose=False)) as client:
        seen: list[str] = []
        turns = (("a red ball slides to the left", "video"), ("what is this?", "text"), ("make it blue", "video"))
        for words, want in turns:
            files = [handle_file(picture)] if want == "text" else []
            began = time.perf_counter()
            _, media = client.predict(words, files, want, *HOW, api_name="/chat")
            if want == "video":
                found.clips.append(time.perf_counter() - began)
            seen += [unquote(urlparse(url).path) for url in media]
        folders = {path.rsplit("/", 3)[1] for path in seen}
        names = [path.rsplit("/", 1)[1] for path in seen]
        if names != ["clip-1.mp4", "clip-3.mp4"] or len(folders) != 1:
            found.errors.append(f"a conversation holds {names} of {len(folders)} folders")


def ask(address: str, picture: Path, found: Found) -> None:
    """One question through the route for programs; the time to its first word."""
    import openai

    part = {"type": "image_url", "image_url": {"url": Image.open(picture).data_url}}
    content = [part, {"type": "text", "text": "what is this?"}]
    client = openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0, timeout=600)
    began = time.perf_counter()
    messages = [{"role": "user", "content": content}]
    stream = client.chat.completions.create(model="mmcore", messages=messages, modalities=["text"], stream=True)  # type: ignore[call-overload]
    for chunk in stream:
        if chunk.choices[0].delta.content:
            found.words.append(time.perf_counter() - began)
            break
    for _ in stream:
        pass


def user(address: str, number: int, until: float, folder: Path, found: Found) -> None:
    """Talk until the time is over."""
    frame = np.full((1, 64, 64, 3), 12 * number % 256, np.uint8)
    picture = Image(frame).save(folder / f"{number}.png")
    while time.monotonic() < until:
        try:
            converse(address, picture, found)
            ask(address, picture, found)
        except Exception as error:  # whatever it is, it is what is being looked for
            found.errors.append(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")


def resident_megabytes(process: int) -> float:
    """Memory that a process holds, by Linux."""
    fields = Path(f"/proc/{process}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) / 1024


def load(users: int, seconds: float, model: str | None = None) -> Found:
    """Open a page in a process of its own and let users at it.

    Args:
        users: how many at once.
        seconds: for how long conversations are begun.
        model: as for `mmcore demo`.
    """
    found = Found()
    command = [sys.executable, "-u", "-m", "mmcore", "demo", *(["--model", model] if model else [])]
    with TemporaryDirectory() as folder, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            began = time.monotonic()
            threads = [
                threading.Thread(target=user, args=(address, i, began + seconds, Path(folder), found))
                for i in range(users)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                found.memory.append((time.monotonic() - began, resident_megabytes(server.pid)))
                time.sleep(min(5.0, seconds / 10))
        finally:
            server.terminate()
    return found


def main() -> None:
    """Print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--model")
    options = parser.parse_args()
    found = load(options.users, 60 * options.minutes, options.model)
    report = {
        "clips": len(found.clips),
        "median seconds to a clip": round(median(found.clips), 2),
        "answers": len(found.words),
        "median seconds to the first word": round(median(found.words), 2),
        "errors": found.errors,
        "memory, MB at seconds": ", ".join(f"{size:.0f} at {at:.0f}" for at, size in found.memory),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
