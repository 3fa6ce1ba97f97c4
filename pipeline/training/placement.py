"""The number of workers of a training, and the cores and GPUs of each worker."""

from __future__ import annotations

from typing import Literal

from pipeline.config import Config, unkeyed
from pipeline.counted import counted
from pipeline.errors import InputError


class RunnerConfig(Config):
    """Where a training runs, and its workers, CPUs and GPUs. These cannot change its result."""

    runner: Literal["process", "ray"] = unkeyed(
        "ray", description="Where the training runs. process: in this process; ray: on Ray Train workers."
    )
    workers: int = unkeyed(1, ge=1, le=4096, description="Number of Ray Train workers, which share each global batch.")
    cpus_per_worker: int | None = unkeyed(
        None, ge=1, description="CPU cores per worker. null: divide all cores evenly."
    )
    use_gpu: Literal["auto", "yes", "no"] = unkeyed(
        "auto", description="Whether each worker uses a GPU. auto: if there is one for each worker."
    )
    max_failures: int = unkeyed(
        2, ge=0, description="Maximum number of restarts from the latest checkpoint after workers were lost."
    )
    tracking: bool = unkeyed(True, description="Log parameters and metrics to MLflow.")


def worker_resources(runner: RunnerConfig, nodes: list[dict[str, float]]) -> dict[str, float]:
    """The resources of each worker, such that all workers fit on the nodes.

    Raises:
        InputError: they do not fit, or GPUs were requested and there are too few.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    cpus_per_worker = runner.cpus_per_worker
    with_gpu = runner.use_gpu == "yes" or (runner.use_gpu == "auto" and sum(gpus) >= runner.workers)
    if with_gpu and sum(gpus) < runner.workers:
        raise InputError(
            f"use_gpu=yes and workers={runner.workers}, but there {'is' if sum(gpus) == 1 else 'are'} "
            f"{counted(sum(gpus), 'GPU')}; set use_gpu=auto, or fewer workers"
        )

    def capacity(cpus_each: int) -> int:
        return sum(
            min(cpu // cpus_each, gpu if with_gpu else runner.workers) for cpu, gpu in zip(cpus, gpus, strict=True)
        )

    if cpus_per_worker is None:
        cpus_per_worker = next(
            (count for count in range(max(cpus, default=0), 0, -1) if capacity(count) >= runner.workers), 1
        )
    if capacity(cpus_per_worker) < runner.workers:
        raise InputError(
            f"workers={runner.workers} with {cpus_per_worker} CPU each do not fit in "
            f"{counted(sum(cpus), 'CPU')} on {counted(len(cpus), 'machine')}; set fewer workers or cpus_per_worker"
        )
    return {"CPU": float(cpus_per_worker), **({"GPU": 1.0} if with_gpu else {})}
