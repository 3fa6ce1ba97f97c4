"""The allocator of a training in this process: memory stays while it lasts and is returned afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of a block of 64 MB that is made, filled and freed ten times; then the memory that is resident.
_CHILD = """
import resource, torch
from contextlib import nullcontext
from pipeline.training.allocator import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(1 << 24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

torch.set_num_threads(1)
plain = faults()
before = resident()
with freed_memory_kept():
    faults()
    kept, held = faults(), resident()
print(plain, kept, (held - before) >> 20, (resident() - before) >> 20, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_stays_in_a_training_and_is_returned_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    plain, kept, held, left, later = map(int, done.stdout.split())
    assert kept < plain / 4
    assert held >= 60
    assert left < 10
    assert later > plain / 2
