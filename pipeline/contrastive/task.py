"""The contrastive task: image and text features of a batch, and how well they find each other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from model_defs.clip import CLIP
from pipeline.contrastive.losses import content_keys, cosines, gather_rows, infonce, same_content
from pipeline.exported_model import Preprocessing
from pipeline.loading.batch import Batch, rank_slice
from pipeline.training.task import StepOutput


class ContrastiveTask:
    """Symmetric InfoNCE over the global batch.

    Args:
        preprocessing: how uint8 images become the model's input.
        world: ranks that share a global batch; torch.distributed is initialised where there are several.
        freeze_tower: the image tower learns nothing; it then also runs as in evaluation, so that its
            statistics (BatchNorm) do not move either.
    """

    def __init__(self, preprocessing: Preprocessing, *, world: int = 1, freeze_tower: bool = False) -> None:
        self._preprocessing = preprocessing
        self._world = world
        self._freeze_tower = freeze_tower

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        """The loss of this rank's rows against the whole global batch.

        The batch must be this rank's whole share: negatives come from the step's batch, so cutting it for
        accumulation would change the objective.
        """
        if batch.tokens is None:
            raise ValueError("the contrastive task needs captions: give the loader a tokenizer")
        clip = unwrapped(model)
        # Here and not after the optimiser's step, which is the loop's: before it is used it is in range.
        clip.clamp_logit_scale()
        if self._freeze_tower:
            clip.image.eval()
        images, texts, scale = model(self._preprocessing.normalise(batch.images), batch.tokens)

        sizes = [len(rank_slice(np.arange(batch.global_size), rank, self._world)) for rank in range(self._world)]
        keys = content_keys(batch.ids, batch.groups, batch.tokens)
        all_images, all_texts = gather_rows(images, sizes), gather_rows(texts, sizes)
        positives = same_content(keys, gather_rows(keys, sizes))
        loss = infonce(images, texts, scale, positives, all_images, all_texts)
        with torch.no_grad():
            metrics = {
                "image_accuracy": _hits(images, all_texts, positives),
                "text_accuracy": _hits(texts, all_images, positives),
                "logit_scale": scale.detach(),
                "positives": positives.sum(1).float().mean(),
            }
        return StepOutput(loss, metrics)


def unwrapped(model: nn.Module) -> CLIP:
    """The dual encoder inside DistributedDataParallel, or itself."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, CLIP)
    return inner


def _hits(queries: Tensor, keys: Tensor, positives: Tensor) -> Tensor:
    """The share of queries whose nearest key is one of their positives."""
    nearest = cosines(queries, keys).argmax(1, keepdim=True)
    return positives.gather(1, nearest).float().mean()
