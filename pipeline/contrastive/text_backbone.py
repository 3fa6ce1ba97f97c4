"""The text backbone of a dual encoder: its tokenizer, and the weights that are trained."""

from __future__ import annotations

from torch import nn

from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.errors import InputError
from pipeline.loading.tokenizer import CaptionTokenizer, Tokenizer, WordPieceTokenizer
from pipeline.training.starting_weights import StartingWeights

_PROJECTION = "text_projection"  # from the backbone's width to the common space; not among pretrained weights


def build_tokenizer(config: TextBackboneConfig, weights: StartingWeights | None) -> CaptionTokenizer:
    """BERT's WordPiece tokenizer if the weights have a vocabulary, else CLIP's byte-pair tokenizer.

    Raises:
        InputError: the model reads word pieces, but there is no vocabulary.
    """
    vocabulary = weights.vocabulary if weights is not None else None
    if vocabulary is not None:
        return WordPieceTokenizer(vocabulary, config.context_length)
    if config.name.startswith("bert"):
        raise InputError(
            f"text.name={config.name} reads word pieces: set text.pretrained to weights with tokenizer.json or"
            " vocab.txt next to them, or text.tokenizer to the folder of these files"
        )
    return Tokenizer(config.context_length)


def freeze_backbone(config: TextBackboneConfig, text: nn.Module) -> None:
    """Freezes the backbone except its projection if `freeze` is set."""
    for name, parameter in text.named_parameters():
        parameter.requires_grad_(not config.freeze or name.startswith(_PROJECTION))
