"""What this machine does: CPU, memory and GPUs, under the names of MLflow's system metrics.

MLflow's own monitor needs psutil and a thread for each run; this reads /proc when a batch of metrics is sent anyway.
With workers on other machines, it is still the machine of the driver that is measured.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.machine import gpu_utilization


class SystemMetrics:
    """Reads the machine's state; CPU time is that since the last reading."""

    def __init__(self) -> None:
        self._busy, self._total = _cpu_ticks()

    def read(self) -> dict[str, float]:
        """The metrics by name; those that this system does not tell are left out."""
        values: dict[str, float] = {}
        busy, total = _cpu_ticks()
        if total > self._total:
            values["system/cpu_utilization_percentage"] = 100.0 * (busy - self._busy) / (total - self._total)
        self._busy, self._total = busy, total
        memory = _memory_kib()
        if "MemTotal" in memory and "MemAvailable" in memory:
            used = memory["MemTotal"] - memory["MemAvailable"]
            values["system/system_memory_usage_megabytes"] = used * 1024 / 1e6
            values["system/system_memory_usage_percentage"] = 100.0 * used / memory["MemTotal"]
        for number, percent in enumerate(gpu_utilization()):
            values[f"system/gpu_{number}_utilization_percentage"] = percent
        return {name: round(value, 1) for name, value in values.items()}


def _cpu_ticks() -> tuple[int, int]:
    """The ticks in which the machine's cores were busy, and all; (0, 0) where there is no /proc."""
    try:
        ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    # user, nice, system, idle, iowait, irq, softirq, steal
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _memory_kib() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines}
    except (OSError, ValueError, IndexError):
        return {}
