"""Word noise: words of replies that are read as others of their kind, while what is to follow them stays true.

    noise = learn_noise(strips, words)       # from some documents: which words are alike
    noise.put(strip, share=0.2, rng=rng)     # changes what is read, not what is to be written

A model that describes what it sees also learns what is usual to say, and a pair of words that it never read together
it does not say, whatever it sees. Where the word before may be wrong it has to look (data noising as smoothing,
arXiv 1703.02573, where a word may become any; here, only one that stands between the same words).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from mmcore.errors import MMCoreError
from mmcore.sequence import Signs, Strip
from mmcore.tokenizers.words import Words

ALIKE = 1 / 3
"""Words are alike that share so much of what they follow, and so much of what follows them (intersection by union)."""


class WordNoise:
    """Which words of replies are alike.

    Args:
        strips: documents that it is learnt from.
        signs: of the vocabulary; what is none of its text is never changed.
        examples: ids of words, one or more of each kind that is to be changed; () is all kinds.
    """

    def __init__(self, strips: Iterable[Strip], signs: Signs, examples: Sequence[int] = ()) -> None:
        self.special = frozenset(signs.special)
        before, after = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
        for strip in strips:
            for i in self.places(strip):
                before[strip.ids[i]].add(strip.ids[i - 1])
                after[strip.ids[i]].add(strip.ids[i + 1])
        sides = before, after
        self.alike = {
            word: [other for other in sorted(before) if all(_shared(s[word], s[other]) >= ALIKE for s in sides)]
            for word in before
        }
        if examples:
            kinds = {word for example in examples for word in self.alike.get(example, ())}
            self.alike = {word: sorted(kinds.intersection(self.alike[word])) for word in kinds}

    def put(self, strip: Strip, share: float, rng: np.random.Generator) -> None:
        """Change words of a document's reply, as they are read, each to one that is like it.

        Where there are several nothing is changed: what was said before is to be relied on.

        Args:
            strip: the document; its `ids` are changed in place, its `labels` not.
            share: of the words, in [0, 1]. The first of a reply, which says of what kind it is, stays as it is.
            rng: decides which, and what they become: perhaps what they were.
        """
        places = self.places(strip)
        if any(after - before > 1 for before, after in pairwise(places)):
            return
        for i in places:
            if rng.random() < share:
                strip.ids[i] = int(rng.choice(self.alike.get(strip.ids[i], [strip.ids[i]])))

    def places(self, strip: Strip) -> list[int]:
        """Where words stand that are to be written behind others."""
        ids, labels = strip.ids, strip.labels
        words = [i for i in range(1, len(ids)) if self.special.isdisjoint(ids[i - 1 : i + 1])]
        return [i for i in words if labels[i - 1] == ids[i]]


def learn_noise(strips: Iterable[Strip], words: Words, noisy: Sequence[str] = ()) -> WordNoise:
    """Word noise by some documents.

    Args:
        strips: the documents.
        words: the tokenizer that they were made with.
        noisy: words, one or more of each kind that is to be changed; () is all kinds.
    Raises:
        MMCoreError: one of `noisy` is more than one token, or in no reply of the documents.
    """
    examples = [words.encode(word) for word in noisy]
    noise = WordNoise(strips, words.signs, [i for ids in examples for i in ids[-1:]])
    for word, ids in zip(noisy, examples, strict=True):
        if len(ids) != 1 or ids[0] not in noise.alike:
            raise MMCoreError(f"layout.noisy: {word!r} is no word of the replies, or more than one token")
    return noise


def _shared(some: set[int], others: set[int]) -> float:
    return len(some & others) / len(some | others)
