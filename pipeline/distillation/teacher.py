"""The teacher: a frozen exported classifier that sees the same augmented view of an image as the student.

A consistent teacher (Beyer 2022, "Knowledge distillation: A good teacher is patient and consistent"):
the teacher sees the student's crop, colours and mixing, resized and normalised for the teacher.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.micro_batches import in_micro_batches
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleIndex


class Teacher(Protocol):
    """A model that is run on each batch, or stored outputs of one."""

    def batch_logits(self, batch: Batch, pixels: Tensor, mixing_weights: list[float]) -> Tensor:
        """Logits [B, K] for the images of a batch as the student sees them.

        Args:
            pixels: [B, C, H, W] in 0..255, after mixing.
            mixing_weights: of an image and its partner in the mixed image; [1.0] without mixing.
        """

    def predictions(self, batch: Batch, device: torch.device) -> Tensor:
        """The predicted class of each image of an evaluation batch, int64 [B] on the device."""


class FrozenTeacher:
    """A Teacher that runs a model; it is not trained, has no gradients and is not in checkpoints.

    Args:
        model: a classifier [B, C, H, W] -> [B, K].
        preprocessing: the preprocessing with which the model was trained.
        device: where the model runs.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._preprocessing = preprocessing

    @classmethod
    def from_exported_model(cls, exported: ExportedModel, device: torch.device) -> FrozenTeacher:
        return cls(exported.build(), exported.preprocessing, device)

    def batch_logits(self, batch: Batch, pixels: Tensor, mixing_weights: list[float]) -> Tensor:
        """The model's logits for `pixels`; `batch` and `mixing_weights` are not used."""
        return self.logits(pixels)

    def predictions(self, batch: Batch, device: torch.device) -> Tensor:
        """See `Teacher.predictions`."""
        return self.logits(batch.images.to(device)).argmax(dim=-1)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """The teacher's logits [B, K].

        Args:
            pixels: [B, C, H, W] in 0..255, uint8 or (mixed) float, of any size.
        """
        side = self._preprocessing.image_size
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels.float(), size=(side, side), mode="bilinear", antialias=True)
        return in_micro_batches(lambda some: self._model(self._preprocessing.normalise(some)), pixels)


def open_teacher(teacher: Artifact, index: SampleIndex) -> ExportedModel:
    """Opens the classifier of an artifact, and checks that it has the labels of the shards.

    Raises:
        InputError: it is not a classifier, or has other labels.
    """
    exported = ExportedModel.open(teacher)
    if exported.kind != "classifier":
        raise InputError(f"{teacher.name}: is a {exported.kind}; a teacher must be a classifier")
    if exported.labels != index.label_names:
        differing = sorted(set(exported.labels) ^ set(index.label_names))
        difference = f"e.g. {differing[0]!r} is not in both" if differing else "they are in another order"
        raise InputError(
            f"{teacher.name}: its labels are not those of the shards ({difference}); train a teacher on them"
        )
    return exported
