"""Rendezvous of the workers of one machine: through a file, and on loopback only.

Ray's default is a TCPStore, which listens on every address without authentication.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

# Each of these libraries opens its own ports, on the interface named here.
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "TP_SOCKET_IFNAME": "lo"}


@dataclass
class LoopbackConfig(TorchConfig):
    """A process group for workers that share a machine; a single worker gets none.

    Args:
        folder: folder of this machine for the rendezvous files.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_set_torch_distributed_env_vars)
        world = len(worker_group)
        if world == 1:
            return
        on_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        group = {
            "backend": backend_config.backend or ("nccl" if on_gpus else "gloo"),
            "world_size": world,
            # A new file for each group: a file left by a lost group lists workers that no longer exist.
            "init_method": f"file://{backend_config.folder}/rendezvous-{uuid.uuid4().hex}",
            "timeout_s": backend_config.timeout_s,
        }
        ray.get([worker_group.execute_single_async(rank, _join, world_rank=rank, **group) for rank in range(world)])


def _join(**group: Any) -> None:
    for name, value in _LOOPBACK.items():
        os.environ.setdefault(name, value)
    _setup_torch_process_group(**group)
