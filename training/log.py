"""A run's log: a line of JSON at a time, its curves as a picture, and event files where TensorBoard is installed.

log = Log(Path("runs/tiny"), done=200)       # lines of later steps are forgotten: those steps are made again
log.write(210, {"text": 0.7, "flow": 0.02})
log.draw()                                   # curves.png
tensorboard --logdir runs/tiny/tensorboard
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmcore.training.checkpoints import writing
from mmcore.training.curves import Curve, Panel, draw
from mmcore.training.meter import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"

PANELS = {
    "text loss": {"text": "training", "valid_text": "held out"},
    "flow loss": {"flow": "training", "valid_flow": "held out"},
    "share that is right, by the ruler": {"right/words": "words", "right/stills": "stills", "right/clips": "clips"},
    "norm of the gradient": {"norm": ""},
    "tokens a second": {"tokens_per_s": ""},
    "share of time waiting for data": {"data_wait": ""},
    "share of positions that are padding": {"padding": ""},
}
"""What is drawn over steps: titles, and in each the log's keys with their names."""

LOGARITHMIC = ("text loss", "flow loss", "norm of the gradient")


def read_log(folder: Path) -> list[Report]:
    """The lines of a run's log; a last one that was not written to its end is left out."""
    path, lines = folder / LOG_FILE, []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


class Log:
    """A run's log, written by one process.

    Args:
        folder: of the run.
        done: steps that are done.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self.folder, self.board = folder, _board(folder / "tensorboard", done)
        kept = [line for line in read_log(folder) if line["step"] <= done]
        partial = folder / f"{LOG_FILE}.part"
        with writing(folder, done):
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
            partial.rename(folder / LOG_FILE)

    def write(self, step: int, report: Report) -> None:
        """Add a line.

        Raises:
            MMCoreError: there is no room for it.
        """
        with writing(self.folder / LOG_FILE, step):
            with (self.folder / LOG_FILE).open("a") as file:
                file.write(json.dumps({"step": step} | {k: round(v, 5) for k, v in report.items()}) + "\n")
            if self.board:
                for name, value in report.items():
                    self.board.add_scalar(name, value, step)
                self.board.flush()

    def draw(self) -> None:
        """Write all curves so far to `curves.png`."""
        lines, partial = read_log(self.folder), self.folder / "curves.part.png"
        panels = []
        for title, keys in PANELS.items():
            curves = [
                Curve(name, [(line["step"], line[key]) for line in lines if key in line], colour=i)
                for i, (key, name) in enumerate(keys.items())
            ]
            panels.append(Panel(title, curves, log_y=title in LOGARITHMIC))
        with writing(self.folder, int(lines[-1]["step"]) if lines else 0):
            draw(panels).save(partial)
            partial.rename(self.folder / "curves.png")

    def close(self) -> None:
        """End what TensorBoard's writer runs beside the training."""
        if self.board:
            self.board.close()


def _board(folder: Path, done: int) -> SummaryWriter | None:
    """A writer of event files, where that is installed; what it wrote of later steps is hidden."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=done + 1)
