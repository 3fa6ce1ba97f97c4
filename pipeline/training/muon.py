"""Muon for the hidden matrices of a network, and AdamW for all other parameters, as one optimiser.

Jordan 2024, "Muon: An optimizer for hidden layers in neural networks": the step of a matrix is its momentum with all
singular values near 1. torch.optim.Muon computes it, in bfloat16. With the scaling of Liu 2025, "Muon is scalable for
LLM training", a step is as long as AdamW's, so both have the same learning rate and weight decay.

The hidden matrices are the weights of linear layers and of attention below the head. Muon is defined for matrices, so
convolutions (the patch embedding too), embeddings, the head, norms and biases are AdamW's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.training.layer_depths import layer_depths


class MuonWithAdamW(torch.optim.Optimizer):
    """Both optimisers behind one list of groups and one state, so that it is checkpointed as any other."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._muon, self._adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both."""
        if closure is not None:
            raise NotImplementedError("a step of Muon takes no closure")
        self._muon.step()
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Gives both optimisers the groups and the state of this one, which loading replaces."""
        count = len(self._muon.param_groups)
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:count], self.param_groups[count:]
        self._muon.state = self._adamw.state = self.state


def split_groups(
    groups: list[dict[str, Any]], matrices: set[nn.Parameter]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups of the parameters in `matrices`, and the groups of the others; each keeps its settings."""
    muon, adamw = [], []
    for group in groups:
        inside = [parameter for parameter in group["params"] if parameter in matrices]
        outside = [parameter for parameter in group["params"] if parameter not in matrices]
        muon += [{**group, "params": inside}] if inside else []
        adamw += [{**group, "params": outside}] if outside else []
    return muon, adamw


def hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """The matrices below the head that multiply features, without embeddings.

    Raises:
        InputError: there are none.
    """
    depths = layer_depths(model)
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    found = {
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and depths[name] > 0 and parameter not in embeddings and "embed" not in name
    }
    if not found:
        raise InputError(
            "optimizer muon: the model has no matrix below its head (convolutions are trained by AdamW); use adamw"
        )
    return found
