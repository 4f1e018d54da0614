"""Memory that is freed is kept for the next tensors, where the C library is glibc.

By default glibc maps every large tensor anew and unmaps it when it is freed; the kernel then clears each page again,
which cost 12 % of sampling on a CPU. `mallopt(3)` says what the two settings mean.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from glibc's malloc.h."""

LARGEST = 32 << 20
"""Bytes: larger tensors are still mapped; glibc allows no more."""

KEPT = (2 << 30) - 1
"""Bytes at the heap's end that are not given back."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees; elsewhere than on glibc nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
