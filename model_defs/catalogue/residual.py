"""Networks with short cuts: ResNet, ResNeXt, SENet, DenseNet; and the convolutional teachers after them."""

from __future__ import annotations

from model_defs.registry import ModelInfo, register_model

_RESNET = "He et al., Deep Residual Learning for Image Recognition"

for _layers, _parameters in {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}.items():
    register_model(
        ModelInfo(f"resnet{_layers}", "image", 2015, _RESNET, 224, _parameters),
        "model_defs.resnet:resnet",
        layers=_layers,
    )
register_model(ModelInfo("resnet_small", "image", 2015, _RESNET, 64, 1_857_016), "model_defs.resnet:resnet_small")
