"""How many cores and GPUs each worker takes, so that all of them fit on the machines there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.training.runner import RunnerConfig


def worker_resources(runner: RunnerConfig, nodes: list[dict[str, float]]) -> dict[str, float]:
    """What each worker takes, such that all of them fit on the nodes.

    Raises:
        InputError: they do not fit, or GPUs were asked for and there are too few.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    wanted = runner.cpus_per_worker
    with_gpu = runner.use_gpu == "yes" or (runner.use_gpu == "auto" and sum(gpus) >= runner.workers)
    if with_gpu and sum(gpus) < runner.workers:
        raise InputError(
            f"use_gpu=yes and workers={runner.workers}, but there are {sum(gpus)} GPUs; "
            "set use_gpu=auto, or fewer workers"
        )

    def fit(each: int) -> int:
        return sum(min(cpu // each, gpu if with_gpu else runner.workers) for cpu, gpu in zip(cpus, gpus, strict=True))

    if wanted is None:
        wanted = next((each for each in range(max(cpus, default=0), 0, -1) if fit(each) >= runner.workers), 1)
    if fit(wanted) < runner.workers:
        raise InputError(
            f"workers={runner.workers} with {wanted} CPU each do not fit: there are {sum(cpus)} CPUs on "
            f"{len(cpus)} machine{'s' if len(cpus) > 1 else ''}; set fewer workers or cpus_per_worker"
        )
    return {"CPU": float(wanted), **({"GPU": 1.0} if with_gpu else {})}
