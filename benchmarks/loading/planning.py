"""The cost of planning: time and memory to find the rows of a split and to plan batches, for 1 and 100 million rows.

    python benchmarks/loading/planning.py

Columns are memory-mapped like those of an index (their files are sparse here). Each size runs in a separate process.
`to a plan` is the time to the first batch; `step 10,000` is the time from a new policy to the ids of that step, for
which a resumed run waits. `resident` is the anonymous memory that planning adds to the process, which a worker pays for
each data set.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.streams import Streams

BATCH = 4096


def anonymous_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(rows: int) -> None:
    """Prints seconds to a plan, seconds to step 10,000, seconds per batch, kilobytes."""
    with tempfile.TemporaryDirectory() as name:
        splits = np.memmap(f"{name}/split", np.int8, "w+", shape=(rows,))
        labels = np.memmap(f"{name}/label", np.int32, "w+", shape=(rows,))
        before = anonymous_kilobytes()
        started = time.perf_counter()
        policy = Streams(RowRuns.where(rows, (splits, 0, True), (labels, -1, False)), BATCH, seed=0)
        policy.batch(0)
        planned = time.perf_counter() - started
        started = time.perf_counter()
        Streams(RowRuns.where(rows, (splits, 0, True), (labels, -1, False)), BATCH, seed=0).batch(10_000)
        resumed = time.perf_counter() - started
        started = time.perf_counter()
        for step in range(1, 101):
            policy.batch(step)
        step_s = (time.perf_counter() - started) / 100
        print(planned, resumed, step_s, anonymous_kilobytes() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    print(
        f"{'rows':>12}  {'to a plan':>10}  {'step 10,000':>11}  {'a batch of 4096':>15}  {'resident':>9}  bytes a row"
    )
    for rows in (1_000_000, 100_000_000):
        command = [sys.executable, __file__, "--measure", str(rows)]
        runs = [
            [float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
            for _ in range(options.rounds)
        ]
        plan, resume, step, kilobytes = (statistics.median(column) for column in zip(*runs, strict=True))
        size, a_row = f"{kilobytes / 1000:.1f} MB", kilobytes * 1000 / rows
        print(f"{rows:12,}  {plan:8.2f} s  {resume:9.2f} s  {step * 1000:12.2f} ms  {size:>9}  {a_row:.3f}")


if __name__ == "__main__":
    main()
