"""Latents of media that a model has written, so that a later turn need not encode them again.

    memory = Remembered()
    memory.keep(image, patches)
    memory.find(image)              # the patches, for any picture that shows the same

A medium is known by its pixels: it is found again after it was shown, saved without loss, and sent back. What was
encoded again would lose a little each time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from hashlib import blake2b

from mmcore.document import Clip
from mmcore.sequence import Patches

ROOM = 64
"""Media that are remembered; the one that was not used for longest is forgotten first."""


class Remembered:
    """Patches by what they show."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Patches] = OrderedDict()

    def keep(self, clip: Clip, patches: Patches) -> None:
        """Remember what a medium was made of."""
        self._kept[_key(clip)] = replace(patches, values=patches.values.cpu())
        self._kept.move_to_end(_key(clip))
        while len(self._kept) > ROOM:
            self._kept.popitem(last=False)

    def find(self, clip: Clip) -> Patches | None:
        """What a medium was made of, or None if it is not known."""
        found = self._kept.get(_key(clip))
        if found is not None:
            self._kept.move_to_end(_key(clip))
        return found


def _key(clip: Clip) -> bytes:
    return blake2b(repr(clip.frames.shape).encode() + clip.frames.tobytes(), digest_size=16).digest()
