"""What media were made of, so that a later turn need not encode them again.

    memory = Remembered[Patches]()
    memory.keep(image, patches)
    memory.find(image)              # the patches, for any picture that shows the same

A medium is known by its pixels: it is found again after it was shown, saved without loss, and sent back. What was
encoded again would lose a little each time.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Generic, TypeVar

from mmcore.document import Clip

ROOM = 64
"""Media that are remembered; the one that was not used for longest is forgotten first."""

Made = TypeVar("Made")


class Remembered(Generic[Made]):
    """Latents by what they show."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Made] = OrderedDict()

    def keep(self, clip: Clip, made: Made, apart: bool = False) -> Made:
        """Remember what a medium was made of; `apart` if each of its frames is a picture by itself."""
        key = fingerprint(clip, apart)
        self._kept[key] = made
        self._kept.move_to_end(key)
        while len(self._kept) > ROOM:
            self._kept.popitem(last=False)
        return made

    def find(self, clip: Clip, apart: bool = False) -> Made | None:
        """What a medium was made of, or None if it is not known."""
        key = fingerprint(clip, apart)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)


def fingerprint(clip: Clip, apart: bool = False) -> bytes:
    """16 bytes, the same for media of the same frames. A single frame is the same together and apart."""
    kind = repr((clip.frames.shape, apart and len(clip.frames) > 1))
    return blake2b(kind.encode() + clip.frames.tobytes(), digest_size=16).digest()
