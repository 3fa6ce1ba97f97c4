"""Tokenizers: captions to token ids, CLIP's byte pairs or BERT's word pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from instant_clip_tokenizer import Tokenizer as CompiledTokenizer
from torch import Tensor

from pipeline.loading.wordpiece import WordPieceEncoder


class CaptionTokenizer(Protocol):
    """The interface of tokenizers that a loader uses."""

    @property
    def vocabulary_size(self) -> int: ...

    def encode(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        """Token ids of each text between start and end, padded with 0, int64 [B, L]; longer texts are truncated."""


class Tokenizer:
    """CLIP's byte-pair encoding, lower-cased, compiled (about 300,000 captions/s).

    Args:
        context_length: L, tokens of a text with its start and end; longer texts are truncated.
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


class WordPieceTokenizer:
    """BERT's word pieces, about 28,000 captions/s (one core of an AMD EPYC, 20,000 captions of 6 to 9 pieces).

    Plain Python, the same code that a registered model runs. The compiled tokenizer of `tokenizers`, called a batch at
    a time, is no faster (18,000/s including the conversion to a tensor).

    Args:
        vocabulary: "tokens", the pieces in the order of their ids, and "lowercase".
        context_length: L, tokens of a text with its start and end; longer texts are truncated.
    """

    def __init__(self, vocabulary: Mapping[str, Any], context_length: int = 77) -> None:
        self.context_length = context_length
        self.vocabulary_size = len(vocabulary["tokens"])
        self._encoder = WordPieceEncoder(vocabulary)

    def encode(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        """Token ids of each text between start and end, padded with 0, int64 [B, L]."""
        length = context_length or self.context_length
        return torch.tensor(self._encoder.encode_batch(texts, length), dtype=torch.int64).reshape(-1, length)
