"""The promotion lease: one process at a time compares its model with the champion and moves the alias.

MLflow's aliases have no compare-and-set, so promotions are serialised by an object in the store, which is
written by `create` and taken over by `replace` with its etag. It names its holder and the time at which it
ends; a holder that died blocks the others until then. Processes that share a registry must share
the store, and their clocks must agree to a few seconds.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import DamagedError, WorkError
from pipeline.storage import Storage

_POLL_S = 0.2
_MAX_VANISHED = 10  # polls that could neither create nor find the lease


@dataclass(frozen=True)
class Lease:
    """A lease that this process holds.

    Attributes:
        ends: Unix time from which others may take it.
    """

    path: str
    owner: str
    ends: float

    def check(self) -> None:
        """Checks that the lease has not ended; call it right before the protected operation.

        Raises:
            WorkError: the lease has ended, e.g. because the machine slept.
        """
        if time.time() >= self.ends:
            raise WorkError(f"{self.path}: the lease ended while it was held; nothing was promoted; run again")


@contextmanager
def promotion_lease(
    storage: Storage,
    name: str,
    *,
    length_s: float = 30.0,
    wait_s: float = 300.0,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Lease]:
    """Holds the lease of a registered model, waiting for other holders.

    Args:
        length_s: time after which others may take it; the protected work must be shorter.
        wait_s: longest wait for other holders.
        on_wait: called once, when there is another holder to wait for.
    Raises:
        WorkError: others held it for `wait_s`, or there is something else at the path of the lease.
    """
    path = f"leases/{name}.json"
    owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    lease = _acquire(storage, path, owner, length_s, wait_s, on_wait)
    try:
        yield lease
    finally:
        _release(storage, lease)


def _acquire(
    storage: Storage, path: str, owner: str, length_s: float, wait_s: float, on_wait: Callable[[], None]
) -> Lease:
    deadline = time.monotonic() + wait_s
    reported = False
    vanished = 0
    while True:
        lease = Lease(path, owner, time.time() + length_s)
        try:
            if storage.create(path, _body(lease)):
                return lease
            info = storage.stat(path)
            holder = None if info is None else _read(storage, path)
        except OSError as error:
            raise WorkError(
                f"{storage.url}/{path}: the promotion lease cannot be taken ({error.strerror or error}); remove what "
                "is there or make its folder writable, then run again"
            ) from None
        if info is None or holder is None:
            # Neither created nor found: it was removed in between, or there is a folder or a broken link.
            vanished += 1
            if vanished == _MAX_VANISHED:
                raise WorkError(f"{storage.url}/{path}: what is there is not a file; remove it and run again")
            time.sleep(_POLL_S)
            continue
        if holder.owner == owner:
            # The store answered "taken" to a repeated request whose first try had succeeded.
            return holder
        if time.time() >= holder.ends and storage.replace(path, _body(lease), info.etag):
            return lease
        if time.monotonic() >= deadline:
            raise WorkError(
                f"{path}: held by {holder.owner} for more than {wait_s:g} s; see whether that process works, "
                "then run again"
            )
        if not reported:
            on_wait()
            reported = True
        time.sleep(_POLL_S)


def _release(storage: Storage, lease: Lease) -> None:
    """Ends the lease now, unless another process has taken it over.

    The object is replaced and not deleted, since only `replace` can be conditional: it fails if the lease is no longer
    ours.
    """
    info = storage.stat(lease.path)
    try:
        holder = _read(storage, lease.path)
    except DamagedError:
        return
    if info is not None and holder is not None and holder.owner == lease.owner:
        storage.replace(lease.path, _body(Lease(lease.path, lease.owner, 0.0)), info.etag)


def _read(storage: Storage, path: str) -> Lease | None:
    """The lease at the path, or None.

    Raises:
        DamagedError: the file there is not a lease.
    """
    try:
        content = json.loads(storage.read(path))
        owner, ends = content["owner"], content["ends"]
        if not (isinstance(owner, str) and type(ends) in (int, float) and math.isfinite(ends)):
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise DamagedError(
            f"{storage.url}/{path}: not a lease; if nobody promotes this model just now, delete it and run again"
        ) from None
    return Lease(path, owner, float(ends))


def _body(lease: Lease) -> bytes:
    return json.dumps({"owner": lease.owner, "ends": lease.ends}).encode()
