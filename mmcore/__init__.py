"""mmcore: one model that reads and writes text, images and video in any order.

import mmcore
model = mmcore.load()                      # the bundled model; or a folder; or a hub id
model.generate("a red ball slides to the left").media[0].save("out.mp4")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore.document import Document, Image, Text, Video
    from mmcore.errors import MMCoreError
    from mmcore.loading import load
    from mmcore.pipeline import Pipeline

__version__ = "0.1.0"

_HOME = {
    "Document": "mmcore.document",
    "Image": "mmcore.document",
    "Text": "mmcore.document",
    "Video": "mmcore.document",
    "MMCoreError": "mmcore.errors",
    "Pipeline": "mmcore.pipeline",
    "load": "mmcore.loading",
}

__all__ = ["Document", "Image", "MMCoreError", "Pipeline", "Text", "Video", "load"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import mmcore` stays light (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'mmcore' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
