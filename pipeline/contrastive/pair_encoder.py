"""Image and text features of given pairs, from which validation and held-out measures are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.contrastive.ontology import SampleIds
from pipeline.contrastive.task import unwrap_ddp
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import CaptionTokenizer
from pipeline.micro_batches import in_micro_batches
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleIndex


@dataclass(frozen=True)
class PairEncoder:
    """Encodes stored images, not augmented, and their first captions."""

    reader: SampleReader
    index: SampleIndex
    preprocessing: Preprocessing
    tokenizer: CaptionTokenizer
    device: torch.device
    threads: int
    batch_size: int = 256

    def features(self, model: nn.Module, ids: SampleIds) -> tuple[Tensor, Tensor]:
        """Unit vectors of the images and of the texts, both [len(ids), E], on the device."""
        clip, normalise = unwrap_ddp(model), self.preprocessing.normalise
        images, texts = [], []
        for batch in evaluation_batches(
            self.reader,
            self.index,
            np.asarray(ids),
            image_size=self.preprocessing.image_size,
            channels=self.preprocessing.channels,
            batch_size=self.batch_size,
            threads=self.threads,
            tokenizer=self.tokenizer,
        ):
            batch = batch.to(self.device)
            assert batch.tokens is not None
            images.append(in_micro_batches(lambda some: clip.encode_image(normalise(some)), batch.images).float())
            texts.append(clip.encode_text(batch.tokens).float())
        return torch.cat(images), torch.cat(texts)
