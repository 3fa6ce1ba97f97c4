"""The only door to Ray: its connection, and functions run as its tasks. Ray Train has its own room, training/ray_train.

With RAY_ADDRESS set, work runs on that cluster, whose machines need Tutelage installed. Without it, one node is
started on this machine, once a process, and kept for the next stage until `shutdown`.
"""

from pipeline.ray_cluster.session import shutdown, start

__all__ = ["shutdown", "start"]
