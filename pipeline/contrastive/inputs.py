"""What a dual encoder is trained from: artifacts, opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.artifacts import Artifact
from pipeline.contrastive.ontology import Ids, Ontology
from pipeline.counter_rng import generator
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.sharding.index import SampleIndex
from pipeline.training.starting_weights import StartingWeights

WEIGHTS_INPUTS = ("image-weights", "text-weights")


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of pretrain-clip; all but the shards may be absent.

    Attributes:
        tower: a trained classifier whose body becomes the image tower.
        image_weights, text_weights: imported ones that a new tower starts from.
    """

    shards: Artifact
    index: SampleIndex
    ontology: Ontology | None
    tower: ExportedModel | None
    image_weights: StartingWeights | None = None
    text_weights: StartingWeights | None = None

    @classmethod
    def open(cls, artifacts: Mapping[str, Artifact]) -> Inputs:
        """Opens "shards" and, where given, "ontology", "tower", "image-weights" and "text-weights".

        Raises:
            InputError: the tower is not an image model.
        """
        ontology, tower = artifacts.get("ontology"), artifacts.get("tower")
        model = ExportedModel.open(tower) if tower is not None else None
        if tower is not None and model is not None and model.kind != "classifier":
            raise InputError(f"{tower.uri}: holds a {model.kind}; the image tower comes from a classifier")
        shards = artifacts["shards"]
        return cls(
            shards,
            SampleIndex.open(shards),
            Ontology.open(ontology) if ontology is not None else None,
            model,
            *(StartingWeights.open(artifacts[name]) if name in artifacts else None for name in WEIGHTS_INPUTS),
        )

    def training_pairs(self) -> Ids:
        """What may be trained on: without what the ontology holds out."""
        if self.ontology is not None:
            return np.unique(self.ontology.postings)
        return _captioned(self.index, self.index.rows("train"))

    def validation_pairs(self, most: int, seed: int) -> Ids:
        """Pairs of the validation split, at most so many, ascending."""
        rows = _captioned(self.index, self.index.rows("val"))
        if len(rows) > most:
            rows = np.sort(generator(seed, "validation-pairs").choice(rows, most, replace=False))
        return rows


def _captioned(index: SampleIndex, rows: Ids) -> Ids:
    return rows[np.fromiter((bool(index.captions(int(row))) for row in rows), bool, len(rows))]
