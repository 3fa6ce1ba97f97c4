"""The cores, memory and GPUs that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> float:
    """Number of CPU cores; fractional for a container with a CPU quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        # A container's quota: "QUOTA PERIOD" in microseconds, or "max PERIOD".
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return usable if quota == "max" else min(float(usable), round(int(quota) / int(period), 1))
    except (OSError, ValueError):
        return usable


def whole_cores() -> int:
    """Number of CPU cores, rounded down, at least 1: for counts of threads and of Ray's CPUs."""
    return max(1, int(usable_cores()))


def default_threads() -> int:
    """Number of threads or concurrent tasks by default: one per core, at most 8."""
    return min(8, whole_cores())


def memory_bytes() -> int:
    """Total memory in bytes, including memory in use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # Not a container, or one without a limit ("max").
        return total


def gpu_names() -> list[str]:
    """The GPUs that PyTorch can use.

    Raises:
        Exception: any error of a broken driver or a broken torch.
    """
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def gpu_memory_bytes() -> list[int]:
    """Memory of each GPU that PyTorch can use, in bytes; [] without any. Imports torch only if there may be one."""
    if not has_nvidia_gpu():
        return []
    import torch

    try:
        count = torch.cuda.device_count()
        return [torch.cuda.get_device_properties(number).total_memory for number in range(count)]
    except (RuntimeError, AssertionError):  # A broken driver, which `tutelage doctor` reports.
        return []


def gpu_utilization() -> list[float]:
    """The utilisation of each GPU that PyTorch can use, in percent; [] without any, or without NVIDIA's pynvml."""
    if not has_nvidia_gpu():
        return []
    import torch

    try:
        return [float(torch.cuda.utilization(number)) for number in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError, ImportError):
        return []


def has_nvidia_gpu() -> bool:
    """Whether the kernel shows an NVIDIA GPU, seen by PyTorch or not."""
    # A container may have only /dev/nvidia3, so any number counts; WSL shows its GPUs as /dev/dxg.
    return Path("/dev/dxg").exists() or any(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))
