"""The promotion lease: one process at a time compares with the champion and moves the alias.

MLflow's aliases have no compare-and-set, so promotions are serialised by an object in the store, which is
made by `create` and taken over by `replace` with its etag. It names its holder and when it ends; a
holder that died blocks the others until then and no longer. Processes that share a registry must share
the store, and their clocks must agree to a few seconds.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import WorkError
from pipeline.storage import Storage

_POLL_S = 0.2


@dataclass(frozen=True)
class Lease:
    """A lease that this process holds.

    Attributes:
        ends: Unix time from which on others may take it.
    """

    path: str
    owner: str
    ends: float

    def check(self) -> None:
        """Call it right before what the lease protects.

        Raises:
            WorkError: the lease has ended, e.g. because the machine slept.
        """
        if time.time() >= self.ends:
            raise WorkError(f"{self.path}: the lease ended while it was held; nothing was promoted, run it again")


@contextmanager
def promotion_lease(
    storage: Storage,
    name: str,
    *,
    length_s: float = 30.0,
    wait_s: float = 300.0,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[Lease]:
    """Holds the lease of a registered model, waiting for other holders.

    Args:
        length_s: after so long others may take it; what is done under it must be shorter.
        wait_s: how long to wait for others.
        waiting: called when there is somebody to wait for.
    Raises:
        WorkError: others held it all the time.
    """
    path = f"leases/{name}.json"
    owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    lease = _acquire(storage, path, owner, length_s, wait_s, waiting)
    try:
        yield lease
    finally:
        _release(storage, lease)


def _acquire(
    storage: Storage, path: str, owner: str, length_s: float, wait_s: float, waiting: Callable[[], None]
) -> Lease:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        lease = Lease(path, owner, time.time() + length_s)
        if storage.create(path, _body(lease)):
            return lease
        info = storage.stat(path)
        holder = _read(storage, path)
        if info is None or holder is None:
            continue
        if holder.owner == owner:
            # The store answered "taken" to a repeated request whose first try had succeeded.
            return holder
        if time.time() >= holder.ends and storage.replace(path, _body(lease), info.etag):
            return lease
        if time.monotonic() >= deadline:
            raise WorkError(
                f"{path}: held by {holder.owner} for more than {wait_s:g} s; see what it does, run it again"
            )
        if not told:
            waiting()
            told = True
        time.sleep(_POLL_S)


def _release(storage: Storage, lease: Lease) -> None:
    """Lets the lease end now, unless somebody took it over; deleting it could delete theirs."""
    info = storage.stat(lease.path)
    holder = _read(storage, lease.path)
    if info is not None and holder is not None and holder.owner == lease.owner:
        storage.replace(lease.path, _body(Lease(lease.path, lease.owner, 0.0)), info.etag)


def _read(storage: Storage, path: str) -> Lease | None:
    try:
        content = json.loads(storage.read(path))
    except FileNotFoundError:
        return None
    return Lease(path, str(content["owner"]), float(content["ends"]))


def _body(lease: Lease) -> bytes:
    return json.dumps({"owner": lease.owner, "ends": lease.ends}).encode()
