"""Runs a training on Ray Train workers.

With RAY_ADDRESS set, the workers run on that cluster, whose machines need Tutelage installed (in their
image, or by the cluster's own runtime environment) and a store that they all see. Without it, one
node is started on this machine, once a process, and kept for the next training until `shutdown`.

    driver                                    worker (one a rank)
    start() the node, once                    train_recipe(): the same loop as in a bare process
    TorchTrainer.fit() in a thread            rank 0 posts progress, rows, failures to the Channel
    polls the Channel every 0.5 s     <---    rank 0 writes checkpoints to the store
    asks for a stop through it        --->    rank 0 writes a checkpoint and raises StoppedError

Ray's report() is not used for checkpoints: it returns before they are committed, and is limited to
one in two seconds. A worker that was lost is replaced up to `max_failures` times, and the training goes on
from the newest checkpoint; an error that the training itself raised would come again, and is not retried.

The connection is ray_cluster's; driver.py is a training as the driver sees it, worker.py what runs on a worker.
"""

from pipeline.ray_cluster import shutdown, start
from pipeline.training.ray_train.driver import check, check_machines, run

__all__ = ["check", "check_machines", "run", "shutdown", "start"]
