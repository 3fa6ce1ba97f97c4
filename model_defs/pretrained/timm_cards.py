"""The normalisation in timm's pretrained_cfg, here called card, if timm is installed."""

from __future__ import annotations

from typing import Any

from model_defs.normalisation import Normalisation


def timm_normalisation(name: str) -> Normalisation | None:
    """The normalisation of timm's weights MODEL.TAG, or of MODEL's default weights; None if unknown to timm."""
    try:
        import timm
    except ImportError:
        return None
    try:
        card: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm has the model, but not this tag of weights
        return None
    return None if card is None else Normalisation(tuple(card.mean), tuple(card.std), f"timm's card of {name}")
