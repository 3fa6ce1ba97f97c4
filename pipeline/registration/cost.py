"""The cost of a model per image: parameters, size of the weights, and latency on this machine."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from pipeline.exported_model import ExportedModel

_RUNS = 20


def image_cost(exported: ExportedModel) -> dict[str, float]:
    """The cost by name: parameters, megabytes (10^6 bytes of weights) and latency_ms.

    The latency is the time in milliseconds of the forward pass of one image (of the image backbone, for a dual encoder)
    in float32 on this machine's CPU, without decoding: the fastest of several runs, since other stages of the run may
    use the CPU at the same time.
    """
    model = exported.build().eval()
    forward: Any = model.encode_image if exported.kind == "dual-encoder" else model
    preprocessing = exported.preprocessing
    image = torch.zeros(1, preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    seconds = []
    with torch.inference_mode():
        for _ in range(_RUNS):
            started = time.perf_counter()
            forward(image)
            seconds.append(time.perf_counter() - started)
    return {**weights_size(model), "latency_ms": round(min(seconds) * 1e3, 2)}


def weights_size(model: nn.Module) -> dict[str, float]:
    """The number of parameters, and their size in megabytes (10^6 bytes), by name."""
    weights = list(model.parameters())
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "megabytes": round(sum(weight.numel() * weight.element_size() for weight in weights) / 1e6, 2),
    }
