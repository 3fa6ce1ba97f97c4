"""Small ontologies, and a small data set of captioned drawings."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.io import encode_png

from pipeline.artifacts import ArtifactStore
from pipeline.contrastive.build_ontology import build
from pipeline.contrastive.ontology import Ontology
from pipeline.sharding.format.index import SampleRow, TaxonomyNode, content_hash
from tests.small_shards import SmallShards, index_of

OntologyBuilder = Callable[..., Ontology]


@pytest.fixture(scope="session")
def build_small_ontology() -> OntologyBuilder:
    """Builds an ontology of two families with `leaves` leaves each; a leaf has `contents` contents of `copies` pairs.

    Each content has one caption. The first pair of every content is held out if `held_out` is set.
    """

    def of_leaves(
        leaves: int = 3, contents: int = 12, copies: int = 3, held_out: bool = True, needed: int = 4
    ) -> Ontology:
        entries = [("all", -1), ("beasts", 0), ("tools", 0)]
        entries += [(f"{'bt'[family - 1]}{leaf}", family) for family in (1, 2) for leaf in range(leaves)]
        node_of = np.repeat(np.arange(3, len(entries)), contents * copies)
        content = np.repeat(np.arange(2 * leaves * contents), copies)
        ids = np.arange(len(node_of), dtype=np.int64)
        is_held_out = (ids % copies == 0) & held_out
        return build(entries, node_of, content, content + 10**6, ids[~is_held_out], ids[is_held_out], needed=needed)

    return of_leaves


SHAPES = ("square", "disc", "cross", "ring")
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 60),
    "blue": (40, 60, 220),
    "yellow": (230, 210, 40),
    "purple": (150, 40, 170),
    "orange": (240, 140, 30),
    "cyan": (40, 200, 210),
    "black": (20, 20, 20),
}


def drawing(shape: str, colour: tuple[int, int, int], copy: int) -> bytes:
    """A 32 px PNG of a shape, at a different position for each copy."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    y, x = y - 12 - 3 * (copy % 3), x - 12 - 3 * (copy // 3)
    distance = (x**2 + y**2).sqrt()
    inside = {
        "square": (x.abs() < 7) & (y.abs() < 7),
        "disc": distance < 8,
        "cross": ((x.abs() < 2.5) | (y.abs() < 2.5)) & (distance < 11),
        "ring": (distance < 10) & (distance > 6),
    }[shape]
    image = torch.where(inside[None], torch.tensor(colour, dtype=torch.uint8)[:, None, None], torch.tensor(255).byte())
    return bytes(encode_png(image.contiguous()).numpy())


@pytest.fixture(scope="session")
def drawings_store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    """A store with a shards artifact: 4 shapes x 8 colours, 5 training and 1 validation copy; nodes are shapes."""
    folder = tmp_path_factory.mktemp("drawings")
    store = ArtifactStore.open(str(folder / "store"))
    rows = []
    with SmallShards(folder / "output", 1000) as tars:
        for split, copies in (("train", range(1, 6)), ("val", range(1))):
            for shape, (colour, rgb), copy in itertools.product(SHAPES, COLOURS.items(), copies):
                key, data = f"{colour}-{shape}-{copy}", drawing(shape, rgb, copy)
                caption = f"a {colour} {shape}"
                member = tars.add(split, key, [("png", data), ("txt", caption.encode())])
                rows.append(
                    SampleRow(
                        key=key,
                        shard=member.shard,
                        offset=member.offset,
                        length=member.length,
                        label=SHAPES.index(shape),
                        captions=(caption, f"{caption}, drawn"),
                        width=32,
                        height=32,
                        content_hash=content_hash(data),
                        split=("train", "val").index(split),
                        group=SHAPES.index(shape) * len(COLOURS) + list(COLOURS).index(colour),
                        node=1 + SHAPES.index(shape),
                        family="us",
                    )
                )
    taxonomy = [TaxonomyNode("shape", -1), *(TaxonomyNode(shape, 0) for shape in SHAPES)]
    index = index_of(rows, shard_names=tars.shard_names, label_names=SHAPES, taxonomy=taxonomy)
    index.write(folder / "output")
    store.commit("shard-dataset", "drawings", folder / "output", config={}, inputs={}, summary={}, seconds=0, origin={})
    return store
