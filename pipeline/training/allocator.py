"""glibc's allocator in a training on CPUs in this process: freed activations are kept for the next step.

The same as ray_train/allocator.py does through the environment of a worker, whose numbers apply; a process that already
runs is changed by mallopt(3). The heap of other threads than the main one is not reached.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h's numbers of the parameters, and glibc's own values in a process that has freed a block of 32 MB.
_M_TRIM_THRESHOLD, _TRIM = -1, 1 << 26
_M_MMAP_MAX, _MAPPED = -4, 1 << 16
_KEPT = 1 << 30  # bytes that are free at the end of the heap and not returned


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within the block, free memory stays with the process; afterwards it is returned. Nothing without glibc."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _MAPPED)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM)
        libc.malloc_trim(0)
