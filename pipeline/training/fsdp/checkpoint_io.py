"""torch.distributed.checkpoint on the store: every rank writes its parts, and reads those that it needs.

    save    plan, which rank writes what   -> each rank writes and uploads one file -> rank 0 writes the JSON
    load    plan, which chunks a rank needs -> each rank reads them from the files that have them

All ranks take part, in the same order. An error of one rank is raised by all. The number of ranks may differ between
save and load: torch's planners compute the overlaps. Of tensors that all ranks hold, one rank writes each.
"""

from __future__ import annotations

import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file as save_safetensors
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from pipeline.errors import InputError, WorkError, first_line
from pipeline.storage.sha256 import file_sha256
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.fsdp.checkpoint_files import SUFFIX, box, flattened, nested, opened


class ShardedCheckpoints:
    """Saves the checkpoints of one training, each rank its parts; has the `save` of Checkpoints.

    Args:
        group: gloo group of all ranks, for these checkpoints only: they are written in a thread.
    """

    def __init__(self, checkpoints: Checkpoints, group: dist.ProcessGroup) -> None:
        self._checkpoints = checkpoints
        self._group = group

    @property
    def prefix(self) -> str:
        """Their folder in the storage."""
        return self._checkpoints.prefix

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, which exists once its JSON is written; every rank must call it.

        Args:
            checkpoint: its tensors are in host memory: parts, or whole.
        Raises:
            OSError, WorkError: a rank could not write. The checkpoint does not exist.
        """
        tensors, optimizer = flattened(checkpoint.tensors)
        rank = dist.get_rank(self._group)
        try:
            with _own_error(self._group):
                save_distributed(
                    tensors,
                    storage_writer=_Writer(self._checkpoints, checkpoint, optimizer),
                    planner=DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
                    process_group=self._group,
                )
        except (OSError, WorkError):
            with suppress(OSError, WorkError):
                self._checkpoints.storage.delete(f"{self._checkpoints.stem(checkpoint.step)}.{rank:05d}{SUFFIX}")
            raise
        if rank == 0:
            self._checkpoints.remove_older()


def load(
    checkpoints: Checkpoints, stem: str, entry: Mapping[str, Any], tensors: dict[str, Tensor], group: dist.ProcessGroup
) -> dict[str, Any]:
    """Reads a sharded checkpoint into `tensors`, in place; every rank must call it.

    Args:
        stem: path of the checkpoint without ".json", whose content is `entry`.
        tensors: in host memory, one for each in `entry`: parts, or whole.
    Raises:
        OSError, WorkError, ValueError, KeyError: a rank could not read it.
    """
    with _own_error(group):
        load_distributed(
            dict(tensors),
            storage_reader=_Reader(checkpoints, stem, entry),
            planner=DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
            process_group=group,
        )
    return nested(tensors, entry["optimizer"])


# Of another rank's error; any other is a defect there.
_SAME_KINDS = (InputError, WorkError, OSError, ValueError, KeyError)


@contextmanager
def _own_error(group: dist.ProcessGroup) -> Iterator[None]:
    """Raises this rank's error, or another rank's with its number, instead of torch's, which is no Exception."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch.distributed")
            yield
    except CheckpointException as error:
        own = error.failures.get(dist.get_rank(group))
        if own is not None and isinstance(own[0], Exception):
            raise own[0] from None
        rank, (cause, _) = next(iter(error.failures.items()))
        kind = next((kind for kind in _SAME_KINDS if isinstance(cause, kind)), RuntimeError)
        raise kind(f"rank {rank}: {first_line(cause)}") from None


class _Writer(StorageWriter):
    def __init__(self, checkpoints: Checkpoints, checkpoint: Checkpoint, optimizer: Mapping[str, Any]) -> None:
        self._checkpoints = checkpoints
        self._checkpoint = checkpoint
        self._optimizer = optimizer

    def reset(self, checkpoint_id: Any = None) -> None:
        """The checkpoint is that of `__init__`."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:  # a damaged checkpoint of this step: its files are replaced now
            self._checkpoints.storage.delete(f"{self._checkpoints.stem(self._checkpoint.step)}.json")

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [replace(plan, storage_data=f"{rank:05d}") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        aside = self._checkpoints.aside(f"checkpoint-{plan.storage_data}")  # process ids of two machines may be equal
        try:
            if plan.items:
                tensors = {item.index.fqn: cast(Tensor, planner.resolve_data(item)) for item in plan.items}
                save_file(tensors, aside)
                described = (plan.storage_data, aside.stat().st_size, file_sha256(aside))
                stem = self._checkpoints.stem(self._checkpoint.step)
                self._checkpoints.storage.upload(aside, f"{stem}.{plan.storage_data}{SUFFIX}")
                results = [WriteResult(item.index, tensors[item.index.fqn].nbytes, described) for item in plan.items]
        finally:
            aside.unlink(missing_ok=True)
        return _done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        files, file_of = {}, {}
        for result in (result for of_rank in results for result in of_rank):
            file, size, sha256 = result.storage_data
            files[file] = {"size": size, "sha256": sha256}
            file_of[result.index.fqn, result.index.offset] = file
        tensors = {
            key: {
                "shape": list(described.size),
                "dtype": str(described.properties.dtype).removeprefix("torch."),
                "chunks": [[list(one.offsets), list(one.sizes), file_of[key, one.offsets]] for one in described.chunks],
            }
            for key, described in metadata.state_dict_metadata.items()
            if isinstance(described, TensorStorageMetadata)
        }
        self._checkpoints.commit(self._checkpoint, {"files": files, "tensors": tensors, "optimizer": self._optimizer})

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


class _Reader(StorageReader):
    def __init__(self, checkpoints: Checkpoints, stem: str, entry: Mapping[str, Any]) -> None:
        self._checkpoints = checkpoints
        self._stem = stem
        self._entry = entry

    def reset(self, checkpoint_id: Any = None) -> None:
        """The checkpoint is that of `__init__`."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return Metadata(
            {
                key: TensorStorageMetadata(
                    TensorProperties(dtype=getattr(torch, described["dtype"])),
                    torch.Size(described["shape"]),
                    [
                        ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
                        for offsets, sizes, _ in described["chunks"]
                    ],
                )
                for key, described in self._entry["tensors"].items()
            }
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Files are opened in `read_data`."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        file_of = {
            (key, torch.Size(offsets)): file
            for key, described in self._entry["tensors"].items()
            for offsets, _, file in described["chunks"]
        }
        by_file = defaultdict(list)
        for item in plan.items:
            by_file[file_of[item.storage_index.fqn, cast(torch.Size, item.storage_index.offset)]].append(item)
        for file, items in by_file.items():
            with opened(self._checkpoints.storage, self._stem, file, self._entry, self._checkpoints.aside) as tensors:
                for item in items:
                    chunk = tensors.get_tensor(item.storage_index.fqn)
                    target = planner.resolve_tensor(item)
                    target.copy_(chunk[box(item.storage_offsets, item.lengths)])
                    planner.commit_tensor(item, target)
        return _done(None)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


def save_file(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes a safetensors file.

    Raises:
        OSError: it cannot be written; that of the package, e.g. on a full disk, is no OSError.
    """
    try:
        save_safetensors(tensors, file)
    except SafetensorError as error:
        free = shutil.disk_usage(file.parent).free
        raise OSError(f"{file.parent} has {free / 2**20:,.0f} MiB free: {first_line(error)}") from None


def _done(result: Any) -> Any:
    future: Future[Any] = Future()
    future.set_result(result)
    return future
