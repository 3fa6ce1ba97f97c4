"""Networks that are one line of layers: LeNet-5, AlexNet, ZF-Net, VGG."""

from __future__ import annotations

from model_defs.registry import ModelInfo, register_model

_LENET = "LeCun et al., Gradient-Based Learning Applied to Document Recognition"

register_model(ModelInfo("lenet5", "image", 1998, _LENET, 32, 146_156), "model_defs.lenet:lenet5")
