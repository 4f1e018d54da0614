"""What may be sent: the limits, told on the page and held to here."""

from __future__ import annotations

from pathlib import Path

from mmcore.document import Image, Video
from mmcore.errors import MMCoreError
from mmcore.parts import as_medium

MAX_BYTES = 20 * 2**20
"""Of one upload."""

MAX_SECONDS, MAX_MEDIA = 60, 8
"""Of one clip; in one conversation, those that the model wrote among them."""


def read(path: Path) -> Image | Video:
    """Read an upload.

    Raises:
        MMCoreError: it is too large or too long, or cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise MMCoreError(f"{path.name}: is larger than {MAX_BYTES // 2**20} MB; make it smaller first")
    try:
        medium = as_medium(path)
    except MMCoreError as error:
        raise MMCoreError(str(error).replace(str(path), path.name)) from error
    seconds = len(medium.frames) / medium.fps
    if isinstance(medium, Video) and seconds > MAX_SECONDS:
        raise MMCoreError(f"{path.name}: is {seconds:.0f} s long, at most {MAX_SECONDS} s are taken; cut it first")
    return medium
