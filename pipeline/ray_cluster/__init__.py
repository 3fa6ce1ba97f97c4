"""The connection to Ray, and functions run as Ray tasks. Only this package uses Ray, and training/ray_train Ray Train.

With RAY_ADDRESS set, work runs on that cluster, whose machines must have Tutelage installed (address.py). Without it,
one node is started on this machine, once per process, and runs until `shutdown`; it listens on loopback only, and
requires a token.
"""

from pipeline.ray_cluster.session import is_started, shutdown, start
from pipeline.ray_cluster.tasks import check_tasks

__all__ = ["check_tasks", "shutdown", "start", "is_started"]
