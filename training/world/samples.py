"""A page of documents of the world, as the model sees them in training.

python -m mmcore.training.world.samples demo/pictures/world.png
"""

from __future__ import annotations

import sys

from mmcore.decoders.page import page, sheet
from mmcore.training.world.tasks import TASKS, sample_document

COLUMNS = 2


def main(path: str) -> None:
    """Write one document of each task, in columns."""
    sheet([page(sample_document(seed, task), task) for seed, task in enumerate(TASKS)], COLUMNS).save(path)


if __name__ == "__main__":
    main(sys.argv[1])
