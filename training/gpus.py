"""Kinds of GPU, and what they can do by their data sheets.

known_gpu(torch.cuda.get_device_name())      # Gpu, or None
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, by its data sheet: dense bfloat16 FLOP/s, and memory in bytes."""

    peak: float
    memory: float


GPUS = {
    "a100": Gpu(312e12, 80e9),
    "h100": Gpu(989e12, 80e9),
    "h200": Gpu(989e12, 141e9),
    "b200": Gpu(2250e12, 180e9),
    "l40s": Gpu(362e12, 48e9),
    "rtx4090": Gpu(165e12, 24e9),
}
"""By name. FLOP/s without sparsity; SXM boards where there are several."""

SLOWER = ("pcie", "nvl")
"""In a device's name: a board with another peak than that of the table."""


def known_gpu(name: str) -> Gpu | None:
    """The kind of a device, by the name that its driver gives, such as "NVIDIA H100 80GB HBM3"; None if not known."""
    words = name.lower().replace(" ", "")
    if any(form in words for form in SLOWER):
        return None
    return next((gpu for kind, gpu in GPUS.items() if kind in words), None)
