"""The pictures of the card: a bounded number of samples, chosen by a hash of their keys, as small inline images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.counter_rng import text_hash
from pipeline.html.markup import Markup, tag
from pipeline.html.pictures import picture_uri
from pipeline.sharding.format.index import SPLITS, SampleIndex

_MAX_PX, _MAX_BYTES = 96, 3_600  # of a picture
_THREADS = 8
_MAX_CANDIDATES = 400


class Gallery:
    """Pictures of an artifact that is being written.

    Args:
        read_image: returns the encoded image of a sample, by its id.
    """

    def __init__(self, index: SampleIndex, read_image: Callable[[int], bytes]) -> None:
        self._index = index
        self._read_image = read_image
        self._uris: dict[int, str | None] = {}

    def read(self, ids: Iterable[int]) -> None:
        """Creates the pictures of samples, eight at a time; `thumb` needs them."""
        wanted = [id for id in dict.fromkeys(ids) if id not in self._uris]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="card") as pool:
            self._uris.update(zip(wanted, pool.map(self._create, wanted), strict=True))

    def thumb(self, id: int) -> Markup:
        """The picture of a sample; the colour of its border shows the split."""
        index = self._index
        split = SPLITS[int(index.splits[id])]
        label = int(index.labels[id])
        name = index.label_names[label] if label >= 0 else "no label"
        tooltip = f"{index.key(id)} · {name} · {split} · {int(index.widths[id])}x{int(index.heights[id])}"
        tooltip = "\n".join([tooltip, *(caption[:200] for caption in index.captions(id)[:3])])
        uri = self._uris[id]
        if uri is None:
            return tag("span", class_=f"pic {split}", title=tooltip)
        return tag("img", src=uri, alt=f"{index.key(id)}, {name}", title=tooltip, class_=f"pic {split}")

    def _create(self, id: int) -> str | None:
        return picture_uri(self._read_image(id), max_px=_MAX_PX, max_bytes=_MAX_BYTES)


def by_hash(index: SampleIndex, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most 400 evenly spaced ids, sorted by a hash of their keys."""
    if len(ids) > _MAX_CANDIDATES:
        ids = ids[np.linspace(0, len(ids) - 1, _MAX_CANDIDATES).round().astype(np.int64)]
    hashes = [text_hash(index.key(id)) for id in ids.tolist()]
    return ids[np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")]


def rows_by_label(index: SampleIndex) -> list[NDArray[np.int64]]:
    """The ids of each label; the last entry: ids without a label."""
    order: NDArray[np.int64] = np.argsort(index.labels, kind="stable")
    edges = np.searchsorted(index.labels[order], np.arange(len(index.label_names) + 1))
    return [*(order[low:high] for low, high in pairwise(edges.tolist())), order[: edges[0]]]


def thumbs(gallery: Gallery, ids: Sequence[int]) -> Markup:
    """A row of pictures."""
    return tag("div", [gallery.thumb(id) for id in ids], class_="pics")
