"""The linear layer with which a classifier ends."""

from __future__ import annotations

from torch import nn

from pipeline.errors import InputError, listed


def linear_head_name(model: nn.Module, name: str) -> str:
    """The name of the only linear layer that computes the model's class scores.

    Args:
        name: name of the model, for the error message.
    Raises:
        InputError: it has none, or several.
    """
    heads = tuple(getattr(model, "classifier_names", ()))
    layers = dict(model.named_modules())
    if len(heads) == 1 and isinstance(head := layers.get(heads[0]), nn.Linear) and head.bias is not None:
        return str(heads[0])
    problem = f"its classifiers are {listed(heads)}" if len(heads) > 1 else "it has none with a bias"
    raise InputError(
        f"linear-probe: {name} does not end in one linear layer ({problem}); set another model, or baseline=null"
    )
