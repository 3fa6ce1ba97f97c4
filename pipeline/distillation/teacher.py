"""The teacher: an exported classifier, frozen, that looks at the student's own view of an image.

A consistent teacher (Beyer 2022, "Knowledge distillation: A good teacher is patient and consistent"):
crop, colours and mixing are the student's; only size and normalisation are the teacher's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.exported_model import ExportedModel, Preprocessing


class FrozenTeacher:
    """Answers with logits; never trains, never takes a gradient, is in no checkpoint.

    Args:
        model: a classifier [B, C, H, W] -> [B, K].
        preprocessing: what it was trained with.
        device: where it works.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._preprocessing = preprocessing

    @classmethod
    def of(cls, exported: ExportedModel, device: torch.device) -> FrozenTeacher:
        return cls(exported.build(), exported.preprocessing, device)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """The teacher's logits [B, K].

        Args:
            pixels: [B, C, H, W] in 0..255, uint8 or (mixed) float, of any size.
        """
        side = self._preprocessing.image_size
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels.float(), size=(side, side), mode="bilinear", antialias=True)
        answer: Tensor = self._model(self._preprocessing.normalise(pixels))
        return answer
