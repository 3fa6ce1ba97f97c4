"""What a process may use of its machine, not what the machine has."""

import os
import subprocess
import sys

import pytest

from pipeline.machine import gpu_names, memory_bytes

ON_ONE_CORE = """
import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pipeline.machine import usable_cores, whole_cores
from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.sharding.config import ShardingConfig
from pipeline.training.ray_train.driver import machines

cpus = {whole_cores(), LeakCheckConfig().threads, ShardingConfig().writers, int(machines()[0]["CPU"])}
print(usable_cores(), cpus)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_that_the_process_is_bound_to():
    answer = subprocess.run([sys.executable, "-c", ON_ONE_CORE], capture_output=True, text=True, check=True)
    cores, counts = answer.stdout.split()
    assert 0 < float(cores) <= 1
    assert counts == "{1}", "threads, tasks and Ray's CPUs"


def test_memory_is_no_more_than_the_machine_has():
    assert 64 << 20 < memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_gpus_are_named_where_torch_sees_some():
    import torch

    assert len(gpu_names()) == torch.cuda.device_count()
    assert all(gpu_names())
