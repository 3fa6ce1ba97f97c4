"""DecodedCache: the decoded pixels of a training split of small images, for later epochs.

Decoding a PNG of 28 pixels takes longer than all else that the loader does with it. The whole image is stored as it was
decoded, before crop and augmentation, so every view has the same bits as without the cache. A JPEG of which a crop may
be decoded at a reduced scale is not stored: decoding less is cheaper, and has other bits.

The processes of one machine share the cache (shared_file.py): decoding processes and Ray workers decode each image
once. It is all or nothing: with a uniform shuffle, a cache of a tenth of the images would save a tenth of the work.

    file    uint8 [rows of the index]: 1 where the pixels are complete; then the pixels of each row [H, W, channels]
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray

from pipeline.errors import WorkError
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.shared_file import SharedFile

FOLDER = "decoded"
_log = logging.getLogger("tutelage.loading")
_BYTES_PER_ROW = 9  # an offset and a mark, for each row of the index


class DecodedCache:
    """The pixels of the training samples of an index, by their ids.

    Args:
        folder: folder of the shared files, on this machine.
        artifact: name of the shards artifact.
        starts: int64 [rows + 1] start of each row's pixels; an empty row is not cached.
        channels: 3 for RGB, 1 for grey.
        smallest_size: smallest side of the images that are cut from the pixels, see `decode.whole_pixels`.
    Raises:
        OSError, WorkError: see SharedFile.
    """

    def __init__(
        self,
        folder: Path,
        artifact: str,
        index: SampleIndex,
        starts: NDArray[np.int64],
        *,
        channels: int,
        smallest_size: int,
    ) -> None:
        self.channels = channels
        self.smallest_size = smallest_size
        # Runs of other versions, at the same time, may decode to other pixels.
        identity = (artifact, channels, smallest_size, int(starts[-1]), PIL.__version__, simplejpeg.__version__)
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:20]
        rows = len(starts) - 1
        self._file = SharedFile(folder, name, rows + int(starts[-1]))
        memory = np.frombuffer(self._file.memory, np.uint8)
        self._complete, self._pixels = memory[:rows], memory[rows:]
        self._starts = starts
        self._heights, self._widths = index.heights, index.widths
        self._barrier = threading.Lock()

    def get(self, id: int, size: int) -> NDArray[np.uint8] | None:
        """The pixels of a sample, read-only uint8 [H, W, channels]; None: not cached for images of this size."""
        if not self._complete[id] or size < self.smallest_size:
            return None
        self._order_memory()
        pixels = self._slot(id)
        pixels.flags.writeable = False
        return pixels

    def put(self, id: int, pixels: NDArray[np.uint8]) -> None:
        """Stores the pixels of a sample, uint8 [H, W, channels], if there is a place for them."""
        if not self.has_place(id):
            return
        slot = self._slot(id)
        # The index may state another size, e.g. that before the rotation by EXIF.
        if slot.shape == pixels.shape:
            slot[:] = pixels
            self._order_memory()
            self._complete[id] = 1

    def has_place(self, id: int) -> bool:
        """Whether this sample can be cached."""
        return bool(self._starts[id + 1] > self._starts[id])

    def missing(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples among `ids` that are not cached."""
        return ids[self._complete[ids] == 0]

    def _slot(self, id: int) -> NDArray[np.uint8]:
        shape = (int(self._heights[id]), int(self._widths[id]), self.channels)
        return self._pixels[self._starts[id] : self._starts[id + 1]].reshape(shape)

    def _order_memory(self) -> None:
        """A memory barrier: another process, on another core, sees the pixels before the mark."""
        for _ in range(2):
            with self._barrier:
                pass


def open_decoded_cache(
    local: Path, artifact: str, index: SampleIndex, *, megabytes: int, channels: int, smallest_size: int
) -> DecodedCache | None:
    """The cache of the training split of an index; None if its pixels exceed `megabytes`.

    Args:
        local: folder on this machine for the data of a store.
    """
    limit = megabytes * 1_000_000
    if len(index) * _BYTES_PER_ROW > limit:  # Before anything that takes longer with more rows.
        return None
    sizes = index.heights.astype(np.int64) * index.widths * channels
    sizes[index.splits != SPLITS.index("train")] = 0
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if not starts[-1] or len(index) * _BYTES_PER_ROW + starts[-1] > limit:
        return None
    try:
        return DecodedCache(local / FOLDER, artifact, index, starts, channels=channels, smallest_size=smallest_size)
    except (OSError, WorkError) as error:
        _log.info("decoded images are not kept: %s", error)
        return None
