"""The Inception family: GoogLeNet, BN-Inception, Inception v3 and v4, Inception-ResNet."""

from __future__ import annotations

from model_defs.model_info import ModelInfo
from model_defs.normalisation import HALF_MEAN_STD
from model_defs.registry import register_model

_GOOGLENET = "Szegedy et al., Going Deeper with Convolutions"
_BATCH_NORM = "Ioffe, Szegedy, Batch Normalization: Accelerating Deep Network Training"
_V3 = "Szegedy et al., Rethinking the Inception Architecture for Computer Vision"
_V4 = "Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning"

# The numbers: year; image size, parameters, multiply-accumulates; top-1 and top-5 error.
# Errors are for one net and one crop. GoogLeNet's parameter count includes two auxiliary heads, its
# multiply-accumulates do not: evaluation never calls them.
register_model(
    ModelInfo(
        "googlenet", "image", 2014, _GOOGLENET, 224, 13_378_280, 1_582_671_872, top5_error=10.07,
        errors_from="table 3: one crop of 224 pixels; it prints no top-1",
    ),
    "model_defs.googlenet:googlenet",
)  # fmt: skip
register_model(
    ModelInfo(
        "googlenet_torchvision",
        "image",
        2014,
        _GOOGLENET,
        224,
        6_624_904,
        1_498_376_192,
        weights="torchvision GoogLeNet_Weights",
        normalisation=HALF_MEAN_STD,
    ),
    "model_defs.googlenet_torchvision:googlenet_torchvision",
)
register_model(
    ModelInfo(
        "bn_inception", "image", 2015, _BATCH_NORM, 224, 11_295_240, 2_032_600_064, 25.2, 7.82,
        errors_from="figure 4: one crop of 224 pixels",
    ),
    "model_defs.bn_inception:bn_inception",
)  # fmt: skip
register_model(
    ModelInfo(
        "inception_v3",
        "image",
        2015,
        _V3,
        299,
        23_834_568,
        5_713_216_096,
        21.2,
        5.6,
        weights="torchvision Inception_V3_Weights",
        errors_from="table 3: one crop of 299 pixels, without 1,762 blacklisted images; with them about +0.2 / +0.1",
        normalisation=HALF_MEAN_STD,
    ),
    "model_defs.inception_v3:inception_v3",
)

_V4_ERRORS = "table 2: one crop of 299 pixels, without about 1,700 blacklisted images; with them about +0.3 / +0.15"
register_model(
    ModelInfo(
        "inception_v4",
        "image",
        2016,
        _V4,
        299,
        42_679_816,
        12_253_974_624,
        20.0,
        5.0,
        weights="timm inception_v4.tf_in1k",
        normalisation=HALF_MEAN_STD,
        errors_from=_V4_ERRORS,
    ),
    "model_defs.inception_v4:inception_v4",
)
register_model(
    ModelInfo(
        "inception_resnet_v1", "image", 2016, _V4, 299, 22_756_328, 6_206_361_696, 21.3, 5.5, errors_from=_V4_ERRORS
    ),
    "model_defs.inception_resnet:inception_resnet",
    variant="inception_resnet_v1",
)
register_model(
    ModelInfo(
        "inception_resnet_v2", "image", 2016, _V4, 299, 55_843_464, 13_155_794_016, 19.9, 4.9,
        weights="timm inception_resnet_v2.tf_in1k", normalisation=HALF_MEAN_STD,
        errors_from=f"{_V4_ERRORS}; the released v2 differs from the paper",
    ),
    "model_defs.inception_resnet:inception_resnet",
    variant="inception_resnet_v2",
)  # fmt: skip
