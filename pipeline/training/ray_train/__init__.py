"""Runs a training on Ray Train workers.

With RAY_ADDRESS set, the workers run on that cluster. Its machines need Tutelage installed (in their
image, or by the cluster's own runtime environment) and access to one store. Without it, one node is
started on this machine, once per process, and reused by later trainings until `shutdown`.

    driver                                    worker (one per rank)
    start() the node, once                    train_recipe(): the same loop as in a bare process
    TorchTrainer.fit() in a thread            rank 0 sends progress and rows, any rank a failure
    polls the Channel every 0.5 s     <---    rank 0 writes checkpoints to the store
    requests a stop through it        --->    rank 0 writes a checkpoint and raises StoppedError

Ray's report() is not used for checkpoints: it returns before they are committed, and is limited to one in
two seconds. A lost worker is replaced up to `max_failures` times, and the training resumes from the newest
checkpoint; an error that the training itself raised would recur, and is not retried.

ray_cluster manages the connection; driver.py is the driver's side of a training, worker.py the worker's side.
"""

from pipeline.ray_cluster import shutdown, start
from pipeline.training.ray_train.driver import check, check_machines, run

__all__ = ["check", "check_machines", "run", "shutdown", "start"]
