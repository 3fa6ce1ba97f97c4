"""The opened input artifacts of pretrain-clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.artifacts import Artifact
from pipeline.contrastive.build_ontology import check_same_pairs
from pipeline.contrastive.ontology import Ontology, SampleIds
from pipeline.counter_rng import generator
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns, Keep, open_columns
from pipeline.training.starting_weights import StartingWeights

WEIGHTS_INPUTS = ("image-weights", "text-weights")


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of pretrain-clip; all but the shards may be absent.

    Attributes:
        index: the index of the shards; its captions are the ones to train on.
        classifier: the input "tower", a trained classifier; the image backbone starts from its weights.
        image_weights, text_weights: imported weights that a new backbone starts from.
        columns: the columns that are joined to the shards.
        keep: joined column -> range; samples outside a range are not trained on.
    """

    shards: Artifact
    index: SampleIndex
    ontology: Ontology | None
    classifier: ExportedModel | None
    image_weights: StartingWeights | None = None
    text_weights: StartingWeights | None = None
    columns: JoinedColumns | None = None
    keep: Keep = field(default_factory=dict)

    @classmethod
    def open(
        cls, artifacts: Mapping[str, Artifact], *, captions_from: str | None = None, keep: Keep | None = None
    ) -> Inputs:
        """Opens "shards" and, where given, "ontology", "tower" (a classifier), `WEIGHTS_INPUTS` and "columns".

        Raises:
            InputError: "tower" is not a classifier, the joined columns lack the requested ones, or the ontology was
                built from other captions or samples.
        """
        keep = keep or {}
        ontology, source = artifacts.get("ontology"), artifacts.get("tower")
        classifier = ExportedModel.open(source) if source is not None else None
        if source is not None and classifier is not None and classifier.kind != "classifier":
            raise InputError(f"{source.name}: holds a {classifier.kind}; the image backbone comes from a classifier")
        shards, joined = artifacts["shards"], artifacts.get("columns")
        index, columns = open_columns(joined, SampleIndex.open(shards), keep=keep, captions_from=captions_from)
        if ontology is not None:
            check_same_pairs(ontology, joined, captions_from, keep)
        image, text = (StartingWeights.open(artifacts[name]) if name in artifacts else None for name in WEIGHTS_INPUTS)
        return cls(
            shards,
            index,
            Ontology.open(ontology) if ontology is not None else None,
            classifier,
            image,
            text,
            columns,
            keep,
        )

    def training_pairs(self) -> SampleIds:
        """Index rows of the pairs to train on, without those that the ontology holds out."""
        if self.ontology is not None:
            return np.unique(self.ontology.postings)
        rows = self.index.rows("train")
        if self.columns is not None and self.keep:
            rows = rows[self.columns.in_ranges(self.keep, 0, len(self.index))[rows]]
        return _with_captions(self.index, rows)

    def validation_pairs(self, limit: int, seed: int) -> SampleIds:
        """Index rows of at most `limit` pairs of the validation split, ascending."""
        rows = _with_captions(self.index, self.index.rows("val"))
        if len(rows) > limit:
            rows = np.sort(generator(seed, "validation-pairs").choice(rows, limit, replace=False))
        return rows


def _with_captions(index: SampleIndex, rows: SampleIds) -> SampleIds:
    return rows[np.fromiter((bool(index.captions(int(row))) for row in rows), bool, len(rows))]
