"""CheckpointWriter: writes checkpoints in a thread, while the training goes on.

    start(checkpoint)    wait for the previous write -> copy the tensors to host memory -> write the copy in a thread
    wait()               the started checkpoint is in the storage, or its error is raised

A step waits only for the copy, unless writing takes longer than the interval between checkpoints. Host memory holds one
copy at a time.

A disk may be full for a while, or an S3 server not answer. So a checkpoint that cannot be written is only logged: the
training goes on, the checkpoint before it remains, and the next one is tried when it is due. The last one must be
written, or it is an error.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any, Protocol

from torch import Tensor

from pipeline.errors import WorkError, first_line
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.fsdp.tensor_parts import is_divided, is_part, on_host

_log = logging.getLogger("tutelage.training")


class UnwrittenError(WorkError):
    """The storage could not be written: no space left, or no answer."""

    def __init__(self, prefix: str, error: Exception) -> None:
        self.reason = first_line(error)
        advice = "make room" if isinstance(error, OSError) else "see that the storage answers"
        super().__init__(
            f"{prefix}: the last checkpoint cannot be written ({self.reason}); {advice}, then run it again: it goes on "
            "from the checkpoint before"
        )


class SavesCheckpoints(Protocol):
    """Checkpoints, or ShardedCheckpoints."""

    @property
    def prefix(self) -> str:
        """Their folder in the storage."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, whose tensors are in host memory.

        Raises:
            OSError, WorkError: it cannot be written.
        """


class CheckpointWriter:
    """Writes one checkpoint at a time.

    That the storage cannot be written is logged by the next call of `start` or `check`, and raised by `wait`. Any other
    error is a defect, or a refusal of the storage such as wrong keys, which each of them raises.
    """

    def __init__(self, checkpoints: SavesCheckpoints) -> None:
        self._checkpoints = checkpoints
        self._write: Future[None] | None = None

    def start(self, checkpoint: Checkpoint) -> None:
        """Starts to write a checkpoint, as it is now: its tensors may change as soon as this returns."""
        self._finish()
        copied = Checkpoint(checkpoint.step, _on_host(checkpoint.tensors, {}), copy.deepcopy(checkpoint.notes))
        self._write = Future()
        # Not of a pool: the process may exit while a write hangs, e.g. in a storage that does not answer.
        Thread(target=self._save, args=(copied, self._write), name="checkpoint", daemon=True).start()

    def check(self) -> None:
        """Logs that a write has failed; does not wait."""
        if self._write is not None and self._write.done():
            self._finish()

    def wait(self) -> None:
        """Waits until the started checkpoint, if any, is written.

        Raises:
            UnwrittenError: it cannot be written.
        """
        write, self._write = self._write, None
        if write is not None:
            try:
                write.result()
            except (OSError, WorkError) as error:
                raise UnwrittenError(self._checkpoints.prefix, error) from error

    def _finish(self) -> None:
        try:
            self.wait()
        except UnwrittenError as error:
            _log.warning(
                "%s: a checkpoint was not written (%s); the training goes on, and tries again when the next is due",
                self._checkpoints.prefix,
                error.reason,
            )

    @contextmanager
    def finished_on_error(self) -> Iterator[None]:
        """On an error within this context the started checkpoint is still written; an error of that is only logged."""
        try:
            yield
        except Exception:
            try:
                self.wait()
            except Exception:
                _log.warning("the last checkpoint was not written", exc_info=True)
            raise

    def _save(self, checkpoint: Checkpoint, write: Future[None]) -> None:
        try:
            self._checkpoints.save(checkpoint)
        except BaseException as error:
            write.set_exception(error)
        else:
            write.set_result(None)


def _on_host(value: Any, copies: dict[tuple[Any, ...], Tensor]) -> Any:
    """A copy in host memory, in which tensors that are the same remain the same."""
    if is_divided(value) or is_part(value):
        return on_host(value)
    if isinstance(value, Tensor):
        same = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype)
        if same not in copies:
            copies[same] = value.detach().to("cpu", copy=True)
        return copies[same]
    if isinstance(value, dict):
        return {key: _on_host(entry, copies) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(entry, copies) for entry in value)
    return copy.deepcopy(value)
