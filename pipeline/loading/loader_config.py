"""The configuration of the loading of training images; loader.py builds the loader."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config, added, unkeyed
from pipeline.errors import InputError
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.reader import Verify
from pipeline.loading.remote_shards import RemoteMode


class LoaderConfig(Config):
    """Loading of training images: augmentation, decoding, prefetching."""

    augment: AugmentConfig | None = Field(
        AugmentConfig(), description="Augmentation of training images. null: none, images are only resized."
    )
    copies: int = Field(
        1,
        description="Repeated augmentation: number of views of each sample in a batch, which then has fewer "
        "samples. DeiT uses 3.",
        ge=1,
        le=64,
    )
    smaller_sizes: tuple[int, ...] = Field(
        (),
        description="Progressive resizing: image sizes in pixels for the first epochs of the training, each for "
        "`epochs_a_size` epochs. []: full size throughout.",
    )
    epochs_a_size: int = Field(
        1, description="Number of epochs of the training at each of `smaller_sizes`.", ge=1, le=10_000
    )
    threads: int = unkeyed(
        2, description="Number of threads that read and decode; more than 8 per process gain little.", ge=1, le=256
    )
    processes: int = unkeyed(
        0,
        description="Number of extra processes that read and decode, each with `threads` threads. 0: none, the "
        "training process does it.",
        ge=0,
        le=256,
    )
    remote: RemoteMode = unkeyed(
        "parts",
        description="How shards in S3 are read. parts: in parts of 8 MiB through a cache on local disk; ranges: "
        "only the samples of the next batches, without a cache, for more data than the disk holds.",
    )
    prefetch: int = unkeyed(4, description="Number of batches prepared ahead of the training step.", ge=1, le=256)
    evaluation_megabytes: int = unkeyed(
        4000,
        description="Memory in MB per worker for decoded evaluation images. Images beyond it are decoded at each "
        "evaluation.",
        ge=0,
        le=10_000_000,
    )
    decoded_megabytes: int = unkeyed(
        512,
        description="Decoded training images are kept for later epochs if all of them fit into this many MB, on local "
        "disk and in memory as far as it is free; the processes of a machine share them. Larger JPEGs, "
        "of which crops are decoded at a reduced scale, are not kept. 0: none.",
        ge=0,
        le=10_000_000,
    )
    verify: Verify = unkeyed(
        "first",
        description="When data from local disk are checked against the hash in the index. always: at each read; "
        "first: at the first read of each sample; never: only if it cannot be decoded. Data from S3 "
        "are always checked.",
    )
    damaged: Literal["skip", "stop"] = added(
        "skip",
        description="What to do with a sample that cannot be read or decoded. skip: replace it in the batch by "
        "another sample; stop: fail.",
    )
    max_damaged_share: float = unkeyed(
        0.001,
        ge=0,
        le=1,
        description="With damaged=skip: maximum fraction (0 to 1) of damaged training samples; if more are "
        "damaged, the training fails.",
    )

    @model_validator(mode="after")
    def _copies_differ(self) -> Self:
        if self.copies > 1 and self.augment is None:
            raise ValueError(f"copies is {self.copies}, but without augment all copies of a sample are the same")
        if any(not 8 <= size <= 1024 for size in self.smaller_sizes):
            raise ValueError(f"smaller_sizes {list(self.smaller_sizes)}: a side has 8 to 1024 pixels")
        return self

    def distinct_samples(self, global_batch: int) -> int:
        """The number of distinct samples in a batch of `global_batch` images, for which the policy is built.

        Raises:
            InputError: `global_batch` is not a multiple of `copies`.
        """
        if global_batch % self.copies:
            raise InputError(
                f"loader.copies: {self.copies} copies of each sample do not fill a batch of {global_batch}"
            )
        return global_batch // self.copies
