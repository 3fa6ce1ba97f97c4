"""Ontologies made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.contrastive.build_ontology import build
from pipeline.contrastive.ontology import Ontology

MakeOntology = Callable[..., Ontology]


@pytest.fixture(scope="session")
def make_ontology() -> MakeOntology:
    """An ontology of two families with `leaves` leaves each; every leaf has `contents` contents of `copies` pairs.

    Captions are by content. Of every content pair number 0 is held out if `held_out` is set.
    """

    def make(leaves: int = 3, contents: int = 12, copies: int = 3, held_out: bool = True, needed: int = 4) -> Ontology:
        entries = [("all", -1), ("beasts", 0), ("tools", 0)]
        entries += [(f"{'bt'[family - 1]}{leaf}", family) for family in (1, 2) for leaf in range(leaves)]
        node_of = np.repeat(np.arange(3, len(entries)), contents * copies)
        content = np.repeat(np.arange(2 * leaves * contents), copies)
        ids = np.arange(len(node_of), dtype=np.int64)
        apart = (ids % copies == 0) & held_out
        return build(entries, node_of, content, content + 10**6, ids[~apart], ids[apart], needed=needed)

    return make
