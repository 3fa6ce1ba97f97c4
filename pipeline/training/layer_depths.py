"""The depth of each layer of a network below its head, for layer-wise learning rates.

A layer is a child of the network; a Sequential or ModuleList is replaced by its items, and a module that contains the
head by its children. A child without a matrix (a norm) belongs to the layer before it. Parameters that are in no child
(class token, position embeddings) belong to the first layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def layer_depths(model: nn.Module) -> dict[str, int]:
    """The depth of each parameter's layer, by the parameter's name: 0 for the head, 1 for the last layer below it."""
    heads: tuple[str, ...] = tuple(getattr(model, "classifier_names", ()))
    layers: list[list[nn.Parameter]] = [list(model.parameters(recurse=False))]
    in_head: set[nn.Parameter] = set()
    last_has_matrix = False
    for name, child, expanded in _children(model, "", heads):
        parameters = list(child.parameters(recurse=not expanded))
        has_matrix = any(parameter.ndim > 1 for parameter in parameters)
        if name in heads:
            in_head.update(parameters)
        elif expanded:
            layers[0] += parameters
        elif has_matrix and last_has_matrix:
            layers.append(parameters)
        else:
            layers[-1] += parameters
            last_has_matrix |= has_matrix
    depths = {parameter: len(layers) - number for number, layer in enumerate(layers) for parameter in layer}
    depths |= dict.fromkeys(in_head, 0)
    return {name: depths[parameter] for name, parameter in model.named_parameters()}


def _children(module: nn.Module, prefix: str, heads: tuple[str, ...]) -> Iterator[tuple[str, nn.Module, bool]]:
    """Name, module and whether its children replace it (and follow), in the order of definition."""
    for key, child in module.named_children():
        name = f"{prefix}{key}"
        contains_head = any(head.startswith(f"{name}.") for head in heads)
        expanded = name not in heads and (isinstance(child, nn.Sequential | nn.ModuleList) or contains_head)
        yield name, child, expanded
        if expanded:
            yield from _children(child, f"{name}.", heads)
