"""Vision transformers: ViT and DeiT."""

from __future__ import annotations

from model_defs.registry import ModelInfo, register_model

_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words"
_DEIT = "Touvron et al., Training data-efficient image transformers"

for _size, _patch, _parameters in (
    ("tiny", 16, 5_717_416),
    ("small", 16, 22_050_664),
    ("small", 32, 22_878_952),
    ("base", 16, 86_567_656),
    ("base", 32, 88_224_232),
    ("large", 16, 304_326_632),
    ("large", 32, 306_535_400),
    ("huge", 14, 632_045_800),
):
    register_model(
        ModelInfo(f"vit_{_size}_patch{_patch}_224", "image", 2020, _VIT, 224, _parameters),
        "model_defs.vit:vit",
        size=_size,
        patch_size=_patch,
    )
register_model(ModelInfo("vit_micro", "image", 2020, _VIT, 64, 955_496), "model_defs.vit:vit_micro")

for _size, _parameters, _distilled in (
    ("tiny", 5_717_416, 5_910_800),
    ("small", 22_050_664, 22_436_432),
    ("base", 86_567_656, 87_338_192),
):
    register_model(
        ModelInfo(f"deit_{_size}_patch16_224", "image", 2020, _DEIT, 224, _parameters),
        "model_defs.deit:deit",
        size=_size,
    )
    register_model(
        ModelInfo(f"deit_{_size}_distilled_patch16_224", "image", 2020, _DEIT, 224, _distilled),
        "model_defs.deit:deit_distilled",
        size=_size,
    )
register_model(
    ModelInfo("deit_micro_distilled", "image", 2020, _DEIT, 64, 1_084_752), "model_defs.deit:deit_micro_distilled"
)
