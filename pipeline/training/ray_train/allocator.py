"""glibc's allocator in the workers of a training on CPUs: freed activations are kept for the next step.

By default glibc maps each block of more than 32 MB on its own and returns it when it is freed, and returns the memory
of threads other than the main one, in which Ray runs the train function, in pieces of 64 MB. The kernel then clears
the pages of the activations again at every step: 47 of 156 ms CPU time an image for an EfficientNet-Lite0 at 224
pixels in batches of 16, and 8 ms with these settings, for 10 to 20% more memory.

glibc reads the variables once, when a process starts (mallopt(3)); other C libraries ignore them.
"""

from __future__ import annotations

import os

_SETTINGS = {
    "MALLOC_ARENA_MAX": "1",  # all threads use the main heap, the only one without the pieces
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),  # bytes that are free at the end of the heap and not returned
}


def allocator_variables() -> dict[str, str]:
    """The variables for a worker's environment; those that this process has keep its values."""
    return {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}
