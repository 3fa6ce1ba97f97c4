"""Tokenizer: captions to CLIP's token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from instant_clip_tokenizer import Tokenizer as CompiledTokenizer
from torch import Tensor


class Tokenizer:
    """CLIP's byte-pair encoding, lower-cased, compiled (about 300,000 captions/s).

    Args:
        context_length: L, tokens of a text with its start and end; longer texts are cut.
    """

    vocabulary_size = 49_408
    start_of_text = 49_406
    end_of_text = 49_407

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length
        self._compiled = CompiledTokenizer()

    def encode(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        """Token ids of each text between start and end, padded with 0, int64 [B, L]."""
        length = context_length or self.context_length
        if not texts:
            return torch.empty((0, length), dtype=torch.int64)
        rows = self._compiled.tokenize_batch(list(texts), context_length=length)
        return torch.from_numpy(rows.astype("int64"))
