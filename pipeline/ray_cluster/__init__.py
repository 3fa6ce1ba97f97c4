"""The only door to Ray: its connection, and functions run as its tasks. Ray Train has its own room, training/ray_train.

With RAY_ADDRESS set, work runs on that cluster, whose machines need Tutelage installed (address.py). Without it, one
node is started on this machine, once a process, and kept for the next stage until `shutdown`; it listens on loopback
only, and asks for a token.
"""

from pipeline.ray_cluster.session import shutdown, start
from pipeline.ray_cluster.tasks import check_tasks

__all__ = ["check_tasks", "shutdown", "start"]
