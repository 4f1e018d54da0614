"""A page of documents of the world, as the model sees them in training.

python -m mmcore.training.world.samples demo/pictures/world.png
"""

from __future__ import annotations

import sys

from mmcore.decoders.page import page, sheet
from mmcore.training.world.mixtures import MIXTURES
from mmcore.training.world.tasks import sample_document

COLUMNS = 2
SHOWN = (*MIXTURES["all"], "text to shots", "continuation", "story")


def main(path: str) -> None:
    """Write one document of each of some tasks, in columns."""
    pages = [page(sample_document(seed, task), task) for seed, task in enumerate(SHOWN)]
    sheet(pages, COLUMNS).save(path)


if __name__ == "__main__":
    main(sys.argv[1])
