"""Code that runs as the ranks of a gloo group on this machine, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

_WITHIN_S = 240
_START = """
import os, sys
import torch
import torch.distributed as dist

rank, world, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
arguments = sys.argv[4:]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
"""
# gloo's threads sometimes abort a process that ends while its peer is still running.
_END = """
sys.stdout.flush()
sys.stderr.flush()
dist.barrier()
os._exit(0)
"""


def run_ranks(folder: Path, code: str, world: int, *arguments: str, ends: tuple[int, ...] | None = None) -> list[str]:
    """Runs `code` once per rank, in processes of their own; it has `rank`, `world`, `arguments`, `torch` and `dist`.

    Args:
        folder: for the script, the rendezvous and the outputs.
        ends: the expected exit codes; None: 0 of each. After another end, the ranks that still run are killed.
    Returns:
        What each rank printed.
    """
    work = Path(mkdtemp(dir=folder))
    script, rendezvous = work / "rank.py", work / "ranks"  # a file: a free port may be taken before it is bound
    script.write_text(f"{_START}{code}\n{_END}")
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    outputs = [(work / f"{rank}.out").open("w+") for rank in range(world)]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(world), str(rendezvous), *arguments],
            stdout=output,
            env={**os.environ, **environment},
        )
        for rank, output in enumerate(outputs)
    ]
    expected = (0,) * world if ends is None else ends
    until = time.monotonic() + _WITHIN_S
    while None in (codes := [rank.poll() for rank in ranks]) and time.monotonic() < until:
        if any(code not in (None, end) for code, end in zip(codes, expected, strict=True)):
            break
        time.sleep(0.05)
    for rank in ranks:
        rank.kill()
    said = []
    for output in outputs:
        output.seek(0)
        said.append(output.read())
        output.close()
    assert [rank.wait() for rank in ranks] == list(expected), said
    return said
