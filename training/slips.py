"""Slips: words of replies that are read as other words, while what they are to be followed by stays true.

    slips = Slips(strips)                    # learns what may stand where from some documents
    slips.put(strip, share=0.1, rng=rng)     # changes what is read, not what is to be written

A model that describes what it sees also learns what is usual to say, and a pair of words that it never read together
it does not say, whatever it sees. Where the word before may be a slip it has to look (data noising as smoothing,
arXiv 1703.02573, whose words are drawn by how many others they follow; here, from those that follow the same one).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from mmcore.sequence import Signs, Strip


class Slips:
    """Which tokens follow which in replies.

    Args:
        strips: documents that it is learnt from.
        signs: of the vocabulary; what is none of its text never slips.
    """

    def __init__(self, strips: Iterable[Strip], signs: Signs) -> None:
        self.special = frozenset(signs.special)
        followers = defaultdict[int, set[int]](set)
        for strip in strips:
            for i in self.places(strip):
                followers[strip.ids[i - 1]].add(strip.ids[i])
        self.followers = {before: sorted(after) for before, after in followers.items()}

    def put(self, strip: Strip, share: float, rng: np.random.Generator) -> None:
        """Change words of a document's replies, as they are read, each to one that followed the same word somewhere.

        Args:
            strip: the document; its `ids` are changed in place, its `labels` not.
            share: of the words, in [0, 1]. The first of a reply, which says of what kind it is, stays as it is.
            rng: decides which, and what they become: what they were, too.
        """
        truly = list(strip.ids)
        for i in self.places(strip):
            others = self.followers.get(truly[i - 1])
            if others and rng.random() < share:
                strip.ids[i] = int(rng.choice(others))

    def places(self, strip: Strip) -> list[int]:
        """Where words stand that are to be written behind others."""
        ids, labels = strip.ids, strip.labels
        words = [i for i in range(1, len(ids)) if self.special.isdisjoint(ids[i - 1 : i + 1])]
        return [i for i in words if labels[i - 1] == ids[i]]
