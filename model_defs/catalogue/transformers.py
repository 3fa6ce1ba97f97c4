"""Vision transformers: ViT and DeiT."""

from __future__ import annotations

from model_defs.model_info import ModelInfo
from model_defs.normalisation import HALF_MEAN_STD, IMAGENET
from model_defs.registry import register_model

_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words"
_DEIT = "Touvron et al., Training data-efficient image transformers"
# "by both heads": a distilled model predicts from its class head and its distillation head together.
_DEIT_ERRORS = "table 3: 300 epochs; with the token by both heads"

# Without other arguments this is ViT-B/16; it accepts others, e.g. size="small", patch_size=8, img_size=96.
register_model(ModelInfo("vit", "image", 2020, _VIT, 224, 86_567_656, 17_563_828_224), "model_defs.vit:vit")

# The paper reports errors only for images of 384 pixels.
for _size, _patch, _side, _parameters, _macs, _error, _weights in (
    ("tiny", 16, 224, 5_717_416, 1_253_683_200, None, "augreg_in21k_ft_in1k"),
    ("small", 8, 224, 22_055_272, 22_405_742_592, None, None),
    ("small", 16, 224, 22_050_664, 4_598_882_304, None, "augreg_in1k"),
    ("small", 32, 224, 22_878_952, 1_142_909_952, None, "augreg_in21k_ft_in1k"),
    ("base", 8, 224, 86_576_872, 78_148_337_664, None, "augreg_in21k_ft_in1k"),
    ("base", 16, 224, 86_567_656, 17_563_828_224, None, "augreg_in1k"),
    ("base", 32, 224, 88_224_232, 4_409_186_304, None, "augreg_in1k"),
    ("large", 14, 224, 304_203_752, 81_013_006_336, None, None),
    ("large", 16, 224, 304_326_632, 61_554_712_576, None, "augreg_in21k_ft_in1k"),
    ("large", 32, 224, 306_535_400, 15_377_539_072, None, None),
    ("huge", 14, 224, 632_045_800, 167_295_109_120, None, None),
    ("tiny", 16, 384, 5_790_376, 4_682_219_520, None, "augreg_in21k_ft_in1k"),
    ("small", 16, 384, 22_196_584, 15_490_351_104, None, "augreg_in1k"),
    ("small", 32, 384, 22_915_432, 3_442_900_992, None, "augreg_in21k_ft_in1k"),
    ("base", 16, 384, 86_859_496, 55_484_350_464, 22.09, "augreg_in1k"),
    ("base", 32, 384, 88_297_192, 13_043_564_544, 26.62, "augreg_in1k"),
    ("large", 16, 384, 304_715_752, 191_066_300_416, 23.47, "augreg_in21k_ft_in1k"),
    ("large", 32, 384, 306_632_680, 45_275_963_392, 28.84, "orig_in21k_ft_in1k"),
):
    _name = f"vit_{_size}_patch{_patch}_{_side}"
    register_model(
        ModelInfo(
            _name,
            "image",
            2020,
            _VIT,
            _side,
            _parameters,
            _macs,
            top1_error=_error,
            weights=f"timm {_name}.{_weights}" if _weights else None,
            normalisation=HALF_MEAN_STD if _weights else None,
            errors_from="table 5: pre-trained on ImageNet alone, fine-tuned at 384 pixels" if _error else None,
        ),
        "model_defs.vit:vit",
        size=_size,
        patch_size=_patch,
        native_size=_side,
    )
register_model(ModelInfo("vit_micro", "image", 2020, _VIT, 64, 955_496, 57_145_344), "model_defs.vit:vit_micro")

for _size, _side, _parameters, _macs, _error in (
    ("tiny", 224, 5_717_416, 1_253_683_200, 27.8),
    ("small", 224, 22_050_664, 4_598_882_304, 20.2),
    ("base", 224, 86_567_656, 17_563_828_224, 18.2),
    ("base", 384, 86_859_496, 55_484_350_464, 16.9),
):
    _name = f"deit_{_size}_patch16_{_side}"
    register_model(
        ModelInfo(
            _name,
            "image",
            2020,
            _DEIT,
            _side,
            _parameters,
            _macs,
            top1_error=_error,
            weights=f"timm {_name}.fb_in1k",
            normalisation=IMAGENET,
            errors_from=_DEIT_ERRORS,
        ),
        "model_defs.vit:vit",
        size=_size,
        patch_size=16,
        native_size=_side,
    )
for _size, _side, _parameters, _macs, _error in (
    ("tiny", 224, 5_910_800, 1_261_003_776, 25.5),
    ("small", 224, 22_436_432, 4_624_140_288, 18.8),
    ("base", 224, 87_338_192, 17_656_811_520, 16.6),
    ("base", 384, 87_630_032, 55_591_342_080, 15.5),
):
    _name = f"deit_{_size}_distilled_patch16_{_side}"
    register_model(
        ModelInfo(
            _name,
            "image",
            2020,
            _DEIT,
            _side,
            _parameters,
            _macs,
            top1_error=_error,
            weights=f"timm {_name}.fb_in1k",
            normalisation=IMAGENET,
            errors_from=_DEIT_ERRORS,
        ),
        "model_defs.deit:deit_distilled",
        size=_size,
        native_size=_side,
    )
register_model(
    ModelInfo("deit_micro_distilled", "image", 2020, _DEIT, 64, 1_084_752, 58_193_920),
    "model_defs.deit:deit_micro_distilled",
)
