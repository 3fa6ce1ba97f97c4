"""Floating-point operations of a training step, and the peak of well-known GPUs: from both the MFU.

The model FLOPs utilisation (MFU) is the rate of the operations that the model needs, for one forward and backward pass
of each image, divided by the peak of the hardware; recomputation is not counted (Chowdhery 2022, PaLM, appendix B).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

# Peak of dense matrix products in bfloat16 with float32 sums, in TFLOP/s. From NVIDIA's data sheets, whose numbers
# "with sparsity" are halved.
_BFLOAT16_TFLOPS = {
    "B200": 2250.0,
    "GH200": 989.4,
    "H200": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "L40S": 362.0,
    "L4": 121.0,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}


def peak_tflops(device_name: str) -> float | None:
    """The peak of a GPU in bfloat16, in TFLOP/s; None if it is not in the table.

    Args:
        device_name: as torch.cuda.get_device_name says, e.g. "NVIDIA H100 80GB HBM3".
    """
    words = device_name.replace("-", " ").split()
    for name, peak in _BFLOAT16_TFLOPS.items():
        wanted = name.split()
        if any(words[start : start + len(wanted)] == wanted for start in range(len(words))):
            return peak
    return None


def image_flops(model: nn.Module, images: Tensor) -> float | None:
    """Floating-point operations of a forward and a backward pass for one image; None for a model that takes more.

    Counted on the meta device, with no memory and no change of the model.

    Args:
        images: a batch, of which only the shape counts.
    """
    tensors = {
        name: torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }
    image = torch.empty(2, *images.shape[1:], device="meta")  # batch norm needs two
    try:
        with FlopCounterMode(display=False) as counter:
            outputs = _tensors(functional_call(model, tensors, (image,)))
            torch.stack([output.float().sum() for output in outputs]).sum().backward()
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError):
        return None  # It takes texts too, or an operation has no meta kernel.
    return counter.get_total_flops() / len(image)


def _tensors(outputs: Any) -> list[Tensor]:
    """All tensors of a model's output: logits of one head or several, and of auxiliary heads."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, list | tuple):
        return [tensor for output in outputs for tensor in _tensors(output)]
    return (
        [tensor for value in vars(outputs).values() for tensor in _tensors(value)]
        if hasattr(outputs, "__dict__")
        else []
    )
