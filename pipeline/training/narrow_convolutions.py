"""Strided 1x1 convolutions of few channels, computed on CPUs without the code that writes outside its memory.

oneDNN computes the weight gradient of a strided 1x1 convolution on channels_last images from a copy of every
stride-th pixel. With fewer input channels than one of its blocks has (8 with AVX2, 16 with AVX-512), the copy needs
more memory than is booked for it: a training crashes, hangs, or goes on with wrong gradients. Smallest case found with
torch 2.14.1 on AVX2 (AMD EPYC 7003, one thread): 4 input channels, stride 2, float32, 2 images of 8 pixels. Right
there: 1 image, 1 channel, 8 channels and more, other layouts, bfloat16 (which oneDNN computes with AVX-512 only), and
the forward pass. AVX-512 was not available to us; its limit is that of https://github.com/uxlfoundation/oneDNN/issues/6035,
where others reported the fault (open in September 2026). Nothing was reported by us.

Taking every stride-th pixel first leaves a convolution without strides, which needs no such copy.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 16  # channels, of AVX-512; the 8 of AVX2 are within


class SubsampledConvolution(nn.Conv2d):
    """A strided 1x1 convolution without padding: its stride-th pixels, then a 1x1 convolution without stride."""

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(input[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def subsample_narrow_convolutions(model: nn.Module) -> None:
    """Makes each strided 1x1 convolution of fewer than 16 channels a SubsampledConvolution, with the same parameters.

    The state dict, and so the exported model, does not change.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_narrow_and_strided(module):
            module.__class__ = SubsampledConvolution


def _is_narrow_and_strided(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and convolution.stride != (1, 1)
        and convolution.padding in ((0, 0), "valid")
        and convolution.in_channels // convolution.groups < _BLOCK
    )
