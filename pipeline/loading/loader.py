"""Loader: the batches of one rank, from any step.

    plan    the policy chooses the global batch of a step, the rank takes its slice, the parameters of
            each sample's view are drawn
    fill    threads read, decode, crop and resize into a uint8 batch, a few batches ahead; for a CPU they also
            change colours, flip and erase
    finish  in order: captions become tokens; for a GPU, colour changes, flips and erasing run here, on the GPU

No batch depends on earlier ones, so the whole state is the step: a loader that starts at step 700 yields the same
batches from there on as one that started at 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.loading.augment import ViewParameters, apply_on_device, view_parameters
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.batch import Batch, column_tensor, joined_tensors, rank_rows
from pipeline.loading.captions import CaptionChoice, choose_captions
from pipeline.loading.decode_pool import DecodePool, PendingImages
from pipeline.loading.decode_processes import DecodeProcesses
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.loader_facts import LoaderFacts
from pipeline.loading.pairs import extend_to_pairs
from pipeline.loading.part_times import PartTimes
from pipeline.loading.policies.base import SamplingPolicy
from pipeline.loading.policies.mixture import samples_per_epoch
from pipeline.loading.progressive import ImageSizeSchedule
from pipeline.loading.quarantine import DamagedSampleError, Quarantine, substitutes
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import CaptionTokenizer
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns

Decoders = DecodePool | DecodeProcesses


@dataclass(frozen=True)
class _PlannedBatch:
    """A batch that is being filled; `version` is the policy's version when the batch was planned."""

    step: int
    epoch: int
    version: int
    ids: NDArray[np.int64]
    views: ViewParameters | None
    pending: PendingImages


class Loader:
    """Training batches of one rank.

    Args:
        reader: reads the samples.
        index: labels, groups and captions of the samples.
        policy: chooses the samples of each step's global batch.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey.
        augment: the augmentation; None: images are only resized.
        copies: number of views of each sample in a batch (repeated augmentation, Hoffer 2020). As in DeiT, the
            copies of a sample are global_batch / copies apart, so that neighbours, which mixup blends, are
            different samples.
        image_size_schedule: the side of the images by the number of images before a step, instead of `image_size`.
        seed: the run's random seed, which determines the augmentation and the choice of captions.
        rank, world: this worker's number, and the number of workers.
        threads: number of threads that read and decode, in each process.
        processes: number of decoding processes; 0: this process runs the threads.
        prefetch: number of batches prepared ahead.
        whole_pairs: a batch that begins or ends inside a pair of rows is cut from one with both rows; see pairs.py.
        tokenizer: encodes captions; None: batches have no tokens.
        captions: first: each sample's first caption; random: one drawn for each epoch.
        columns: joined columns; their numeric values are part of each batch.
        quarantine: records damaged samples, which other samples replace; None: a damaged sample is an error.
        device: device of the batches.

    Attributes:
        times: the time of each part of loading.
    """

    def __init__(
        self,
        reader: SampleReader,
        index: SampleIndex,
        policy: SamplingPolicy,
        *,
        image_size: int,
        channels: int = 3,
        augment: AugmentConfig | None,
        copies: int = 1,
        image_size_schedule: ImageSizeSchedule | None = None,
        seed: int,
        rank: int = 0,
        world: int = 1,
        threads: int = 2,
        processes: int = 0,
        prefetch: int = 4,
        whole_pairs: bool = False,
        tokenizer: CaptionTokenizer | None = None,
        captions: CaptionChoice = "random",
        columns: JoinedColumns | None = None,
        quarantine: Quarantine | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.policy = policy
        self.quarantine = quarantine
        self.times = PartTimes()
        self._index = index
        self._image_size_schedule = image_size_schedule or ImageSizeSchedule(image_size)
        self._channels = channels
        self._augment = augment
        self._copies = copies
        self._seed = seed
        total = policy.global_batch * copies
        self._rows = rank_rows(total, rank, world)
        # Where a pair is cut, its other row is loaded too.
        self._loaded_rows = extend_to_pairs(*self._rows, total) if whole_pairs else self._rows
        self._prefetch = prefetch
        self._threads, self._process_count, self._remote = threads, processes, reader.is_remote
        self._tokenizer = tokenizer
        self._captions = captions
        self._columns = columns
        self._device = torch.device(device)
        # A GPU trains convolutions up to 1.9 times as fast on channels_last images, with any layout of the weights.
        # On a CPU, colour changes and erasing take twice as long on them.
        self._on_cpu = self._device.type == "cpu"
        contiguous = self._on_cpu and augment is not None and augment.changes_pixel_values
        decoder_options: dict[str, Any] = {
            "channels": channels,
            "threads": threads,
            "pinned": self._device.type == "cuda",
            "memory_format": torch.contiguous_format if contiguous else torch.channels_last,
            "crop_only": not self._on_cpu,
            "times": self.times,
        }
        self._processes: DecodeProcesses | None = None
        self._new_pool = partial(DecodePool, reader, **decoder_options)
        if processes:
            first, end = self._loaded_rows
            slot_bytes = (end - first) * channels * self._image_size_schedule.largest**2
            self._processes = DecodeProcesses(
                reader, processes=processes, slot_bytes=slot_bytes, max_pending=prefetch, **decoder_options
            )

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch]:
        """The batches of steps start_step to stop_step - 1, in order.

        Threads run while the iterator is alive; they are joined when it ends, is closed or is left by an
        exception. Decoding processes wait for the next iterator, until `close`. A step at or after
        `policy.ready_until()` is not planned ahead, so the policy must be refreshed before that step is requested.

        Raises:
            DamagedError: a sample is damaged and there is no quarantine, or too many samples are damaged.
            WorkError: decoding processes died twice during one batch.
            RuntimeError: the policy is not ready for a requested step.
        """
        planned: deque[_PlannedBatch] = deque()
        next_step = start_step
        with self._processes or self._new_pool() as pool:
            for step in range(start_step, stop_step):
                limit = self.policy.ready_until()
                if limit is not None and step >= limit:
                    raise RuntimeError(
                        f"step {step} was requested, but the policy needs a refresh at step {limit} first"
                    )
                planned_until = min(step + self._prefetch, stop_step if limit is None else min(limit, stop_step))
                while next_step < planned_until:
                    planned.append(self._plan(next_step, pool))
                    next_step += 1
                yield self._finish(planned.popleft(), pool)

    @property
    def lost_processes(self) -> int:
        """Number of times that decoding processes died and were replaced."""
        return 0 if self._processes is None else self._processes.restarts

    def facts(self) -> LoaderFacts:
        """What limits how fast this loader can be."""
        sides = np.maximum(self._index.widths, self._index.heights)
        step = max(1, len(sides) // 10_000)  # of a large index, a part of the pages
        return LoaderFacts(
            threads=self._threads,
            processes=self._process_count,
            remote=self._remote,
            side=self._image_size_schedule.largest,
            stored_side=int(np.median(sides[::step])) if len(sides) else 0,
        )

    def close(self) -> None:
        """Ends the decoding processes, if any; the next call of `batches` starts new ones."""
        if self._processes is not None:
            self._processes.close()

    def _plan(self, step: int, pool: Decoders) -> _PlannedBatch:
        batch = self.policy.batch(step)
        ids = np.tile(batch, self._copies)[slice(*self._loaded_rows)]
        epoch = self.policy.epoch(step)
        views = self._views(epoch, ids, len(batch))
        images_before = step * self.policy.global_batch * self._copies
        pending = pool.submit(ids, self._image_size_schedule(images_before), views)
        return _PlannedBatch(step, epoch, self.policy.version, ids, views, pending)

    def _views(self, epoch: int, ids: NDArray[np.int64], distinct: int) -> ViewParameters | None:
        """The views of the loaded rows of a global batch with `distinct` different samples."""
        if self._augment is None:
            return None
        copies = np.repeat(np.arange(self._copies), distinct)[slice(*self._loaded_rows)]
        return ViewParameters.concatenate(
            [
                view_parameters(self._augment, self._seed, epoch * self._copies + copy, ids[copies == copy])
                for copy in range(self._copies)
            ]
        )

    def _complete(self, planned: _PlannedBatch, pool: Decoders) -> _PlannedBatch:
        """Waits for the batch, and replaces its damaged samples by other samples."""
        for row, error in planned.pending.damaged_rows():
            if self.quarantine is None:
                raise error
            planned = self._substitute(planned, row, error, self.quarantine, pool)
        return planned

    def _substitute(
        self, planned: _PlannedBatch, row: int, error: DamagedSampleError, quarantine: Quarantine, pool: Decoders
    ) -> _PlannedBatch:
        distinct = self.policy.global_batch
        # All copies of a sample are replaced by the same substitute.
        slot = (self._loaded_rows[0] + row) % distinct
        ids = planned.ids.copy()
        for id in substitutes(self.policy, self._seed, planned.step, slot):
            quarantine.add(error, planned.step)
            ids[row] = id
            views = self._views(planned.epoch, ids, distinct)
            try:
                pool.fill(planned.pending.images, row, id, views)
            except DamagedSampleError as next_error:
                error = next_error
            else:
                return replace(planned, ids=ids, views=views)
        raise error

    def _finish(self, planned: _PlannedBatch, pool: Decoders) -> Batch:
        planned = self._complete(planned, pool)
        ids = planned.ids
        tokens = None
        if self._tokenizer is not None:
            chosen = choose_captions(self._index, ids, self._captions, seed=self._seed, epoch=planned.epoch)
            tokens = self._tokenizer.encode(chosen)
        batch = Batch(
            images=planned.pending.images,
            ids=torch.from_numpy(np.array(ids, np.int64)),
            labels=column_tensor(self._index.labels, ids),
            groups=column_tensor(self._index.groups, ids),
            tokens=tokens,
            step=planned.step,
            policy_version=planned.version,
            global_size=self.policy.global_batch * self._copies,
            columns=joined_tensors(self._columns, ids),
            first_row=self._loaded_rows[0],
        ).to(self._device)
        if planned.views is not None and not self._on_cpu:
            batch = replace(batch, images=apply_on_device(batch.images, planned.views))
        if self._loaded_rows == self._rows:
            return batch
        return batch.rows(*(row - batch.first_row for row in self._rows))


def build_loader(
    config: LoaderConfig,
    reader: SampleReader,
    index: SampleIndex,
    policy: SamplingPolicy,
    *,
    image_size: int,
    channels: int = 3,
    seed: int,
    samples: int,
    rank: int = 0,
    world: int = 1,
    whole_pairs: bool = False,
    tokenizer: CaptionTokenizer | None = None,
    captions: CaptionChoice = "random",
    columns: JoinedColumns | None = None,
    device: torch.device | str = "cpu",
) -> Loader:
    """The loader of one rank; other arguments: see `Loader`.

    Args:
        policy: chooses the `config.distinct` samples of each batch.
        samples: number of training samples, of which `max_damaged_share` may be damaged.
    """
    reader.keep_decoded(config.decoded_megabytes, channels, min((image_size, *config.smaller_sizes)))
    return Loader(
        reader,
        index,
        policy,
        image_size=image_size,
        channels=channels,
        augment=config.augment,
        copies=config.copies,
        image_size_schedule=ImageSizeSchedule(
            image_size, config.smaller_sizes, config.epochs_a_size * samples_per_epoch(policy, samples)
        ),
        seed=seed,
        rank=rank,
        world=world,
        threads=config.threads,
        processes=config.processes,
        prefetch=config.prefetch,
        whole_pairs=whole_pairs,
        tokenizer=tokenizer,
        captions=captions,
        columns=columns,
        quarantine=Quarantine(samples, config.max_damaged_share) if config.damaged == "skip" else None,
        device=device,
    )
