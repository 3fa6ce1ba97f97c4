"""Asks a Ray cluster for its versions and nodes, in a process of its own, since a call to Ray cannot be cancelled.

    python -m pipeline.ray_cluster.probe HOST:PORT

prints JSON: {"ray": version, "python": version, "nodes": [resources of each living node], "here": whether this machine
is one of them}, or {"error": what Ray says}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

# Shorter timeouts: by default Ray waits 40 s for a server that does not answer, and tries again 20 times.
_CONNECT_TIMEOUTS = {"RAY_py_gcs_connect_timeout_s": "5", "RAY_gcs_rpc_server_connect_timeout_s": "3"}

# Time limit for this machine's node: a head node that has just been started answers seconds before it is registered.
_NODE_TIMEOUT_S = 10.0


def probe_cluster(address: str) -> dict[str, Any]:
    """The versions and nodes of the cluster, as in the module's docstring."""
    os.environ.update(_CONNECT_TIMEOUTS)
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._private.services import find_node_ids
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    client = GcsClient(address=address)
    metadata = get_cluster_metadata(client) or {}
    deadline = time.monotonic() + _NODE_TIMEOUT_S
    while True:
        nodes = client.get_all_node_info(timeout=5, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
        ours = find_node_ids()
        here = any(node.node_id.hex() in ours for node in nodes.values())
        if here or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return {
        "ray": metadata.get("ray_version"),
        "python": metadata.get("python_version"),
        "nodes": [dict(node.resources_total) for node in nodes.values()],
        "here": here,
    }


if __name__ == "__main__":
    try:
        answer = probe_cluster(sys.argv[1])
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    # Ray's threads may still wait for the server.
    os._exit(0)
