"""Damaged bytes never end the process and never show memory that no decoder wrote.

The mutations run in a process of their own, so that a crash is a failed test and not a lost run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path

import numpy as np

tests, seed, mutations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, tests)
from variants import variants

from pipeline.loading.decode import Crop, decode
from pipeline.pixels.decode import decode as decode_whole
from pipeline.sharding.writing.images import UnreadableError, prepare_image

every = variants()
files = [every[number * len(every) // 40].data for number in range(40)]
rng = np.random.default_rng(seed)
shown = refused = unstable = 0
for number in range(mutations):
    data = bytearray(files[number % 40])
    kind = rng.integers(0, 6)
    at = int(rng.integers(0, len(data)))
    head = int(rng.integers(0, min(len(data), 200)))
    if kind == 0:
        data[at] ^= 1 << rng.integers(0, 8)
    elif kind == 1:
        data[head] = rng.integers(0, 256)
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        del data[at : at + int(rng.integers(1, 16))]
    elif kind == 4:
        data[head:head] = rng.bytes(int(rng.integers(1, 16)))
    else:
        for _ in range(4):
            data[int(rng.integers(0, len(data)))] = rng.integers(0, 256)
    data = bytes(data)
    crop = Crop(float(rng.uniform(0.1, 1)), float(rng.uniform(0.5, 2)), float(rng.uniform(0, 0.99)), 0.5)
    channels = 1 + 2 * int(rng.integers(0, 2))
    # The allocator hands out what was freed last: of two decodings, one finds the other's rubbish under its own.
    rubbish = np.full((64, 64, 3), number % 251, np.uint8)
    del rubbish
    results = []
    for _ in range(2):
        try:
            results.append(decode(data, size=24, channels=channels, crop=crop).tobytes())
        except ValueError:
            results.append(None)
        rubbish = np.full((41, 53, channels), 7 + number % 240, np.uint8)
        del rubbish
    unstable += results[0] != results[1]
    shown += results[0] is not None
    refused += results[0] is None
    if number % 4 == 0:
        try:
            decode_whole(data, channels)
        except ValueError:
            pass
    if number % 16 == 0:
        try:
            prepare_image(data, with_difference_hash=True)
        except UnreadableError:
            pass
print(shown, refused, unstable)
"""


def mutated(seed: int, mutations: int) -> tuple[int, int, int]:
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(Path(__file__).parent), str(seed), str(mutations)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MALLOC_PERTURB_": "165"})
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-600:]}"
    shown, refused, unstable = map(int, done.stdout.split()[-3:])
    return shown, refused, unstable


def test_no_mutation_ends_the_process_or_shows_unwritten_memory() -> None:
    shown, refused, unstable = mutated(0, 2_000)
    assert shown > 200
    assert refused > 200
    assert unstable == 0


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_thousand_mutations_end_no_process(seed: int) -> None:
    shown, refused, unstable = mutated(seed, 98_000)
    assert min(shown, refused) > 10_000
    assert unstable == 0
