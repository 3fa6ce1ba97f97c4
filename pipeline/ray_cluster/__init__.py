"""The only door to Ray: the connection, and functions run as Ray tasks. Ray Train is used in training/ray_train only.

With RAY_ADDRESS set, work runs on that cluster, on machines with Tutelage installed (address.py). Without it, one node
is started on this machine, once per process, and runs until `shutdown`; it listens on loopback only, and requires a
token.
"""

from pipeline.ray_cluster.session import shutdown, start, started
from pipeline.ray_cluster.tasks import check_tasks

__all__ = ["check_tasks", "shutdown", "start", "started"]
