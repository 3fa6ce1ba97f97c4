"""The contrastive task: the loss and the accuracies of the image and text features of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from model_defs.clip import CLIP
from pipeline.contrastive.losses import content_keys, cosines, gather_rows, infonce, positive_pairs
from pipeline.loading.batch import Batch, rank_slice
from pipeline.preprocessing import Preprocessing
from pipeline.training.task import StepOutput


class ContrastiveTask:
    """Symmetric InfoNCE over the global batch.

    Args:
        preprocessing: how uint8 images become the model's input.
        world: ranks that share a global batch; with several, torch.distributed must be initialised.
        freeze_image: the image backbone does not train; it runs in evaluation mode, so that BatchNorm's
            statistics do not change either.
    """

    def __init__(self, preprocessing: Preprocessing, *, world: int = 1, freeze_image: bool = False) -> None:
        self._preprocessing = preprocessing
        self._world = world
        self._freeze_image = freeze_image

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        """The loss of this rank's rows against the whole global batch.

        `batch` must be all of this rank's samples of the step: negatives come from the step's batch, so splitting
        it into micro-batches would change the objective.
        """
        if batch.tokens is None:
            raise ValueError("the contrastive task needs captions: give the loader a tokenizer")
        clip = unwrap_ddp(model)
        # Clamped before each use, because the optimiser's step belongs to the training loop.
        clip.clamp_logit_scale()
        if self._freeze_image:
            clip.image.eval()
        images, texts, scale = model(self._preprocessing.normalise(batch.images), batch.tokens)

        sizes = [len(rank_slice(np.arange(batch.global_size), rank, self._world)) for rank in range(self._world)]
        keys = content_keys(batch.ids, batch.groups, batch.tokens)
        all_images, all_texts = gather_rows(images, sizes), gather_rows(texts, sizes)
        positives = positive_pairs(keys, gather_rows(keys, sizes))
        loss = infonce(images, texts, scale, positives, all_images, all_texts)
        with torch.no_grad():
            metrics = {
                "image_accuracy": _top_1_accuracy(images, all_texts, positives),
                "text_accuracy": _top_1_accuracy(texts, all_images, positives),
                "logit_scale": scale.detach(),
                "positives": positives.sum(1).float().mean(),
            }
        return StepOutput(loss, metrics)


def unwrap_ddp(model: nn.Module) -> CLIP:
    """The dual encoder, without its DistributedDataParallel wrapper if it has one."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, CLIP)
    return inner


def _top_1_accuracy(queries: Tensor, keys: Tensor, positives: Tensor) -> Tensor:
    """The fraction of queries whose nearest key is a positive."""
    nearest = cosines(queries, keys).argmax(1, keepdim=True)
    return positives.gather(1, nearest).float().mean()
