"""Sequential networks: LeNet-5, AlexNet, ZF-Net, VGG."""

from __future__ import annotations

from model_defs.model_info import ModelInfo
from model_defs.normalisation import IMAGENET
from model_defs.registry import register_model

_LENET = "LeCun et al., Gradient-Based Learning Applied to Document Recognition"
_ALEXNET = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks"
_ONE_COLUMN = "Krizhevsky, One weird trick for parallelizing convolutional neural networks"
_ZFNET = "Zeiler, Fergus, Visualizing and Understanding Convolutional Networks"
_VGG = "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition"

_top1_error: float | None
_top5_error: float | None
_weights: str | None

register_model(ModelInfo("lenet5", "image", 1998, _LENET, 32, 146_156, 734_880), "model_defs.lenet:lenet5")
register_model(ModelInfo("lenet5_1998", "image", 1998, _LENET, 32, 145_300, 736_456), "model_defs.lenet:lenet5_1998")

register_model(
    ModelInfo(
        "alexnet", "image", 2012, _ALEXNET, 227, 60_965_224, 724_406_816, 40.7, 18.2,
        errors_from="table 2, one net: mean of ten crops of 224 pixels",
    ),
    "model_defs.alexnet:alexnet",
)  # fmt: skip
# The table's 37.5/16.0 belongs to a wider net; an earlier draft of the paper reported 38.3/16.4 for this one.
register_model(
    ModelInfo(
        "zfnet", "image", 2013, _ZFNET, 224, 62_357_608, 1_168_032_896, 38.4, 16.5,
        errors_from="table 2 of arXiv v3, one net as in figure 3: the test procedure is not stated",
    ),
    "model_defs.zfnet:zfnet",
)  # fmt: skip
register_model(
    ModelInfo(
        "alexnet_torchvision", "image", 2014, _ONE_COLUMN, 224, 61_100_840, 714_188_480,
        weights="torchvision AlexNet_Weights", normalisation=IMAGENET,
    ),
    "model_defs.alexnet:alexnet_torchvision",
)  # fmt: skip

# The paper predates batch norm.
_VGG_ERRORS = "table 3: trained and tested at 256 pixels, on the whole image and its mirror image"
for _name, _configuration, _parameters, _macs, _top1_error, _top5_error, _weights in (
    ("vgg11", "A", 132_863_336, 7_609_090_048, 29.6, 10.4, "torchvision VGG11_Weights"),
    ("vgg11_lrn", "A-LRN", 132_863_336, 7_609_090_048, 29.7, 10.5, None),
    ("vgg13", "B", 133_047_848, 11_308_466_176, 28.7, 9.9, "torchvision VGG13_Weights"),
    ("vgg16_1x1", "C", 133_638_952, 11_770_888_192, 28.1, 9.4, None),
    ("vgg16", "D", 138_357_544, 15_470_264_320, 27.0, 8.8, "torchvision VGG16_Weights"),
    ("vgg19", "E", 143_667_240, 19_632_062_464, 27.3, 9.0, "torchvision VGG19_Weights"),
    ("vgg11_bn", "A", 132_868_840, 7_609_090_048, None, None, "torchvision VGG11_BN_Weights"),
    ("vgg13_bn", "B", 133_053_736, 11_308_466_176, None, None, "torchvision VGG13_BN_Weights"),
    ("vgg16_1x1_bn", "C", 133_647_400, 11_770_888_192, None, None, None),
    ("vgg16_bn", "D", 138_365_992, 15_470_264_320, None, None, "torchvision VGG16_BN_Weights"),
    ("vgg19_bn", "E", 143_678_248, 19_632_062_464, None, None, "torchvision VGG19_BN_Weights"),
):
    register_model(
        ModelInfo(
            _name, "image", 2014, _VGG, 224, _parameters, _macs, _top1_error, _top5_error, _weights,
            errors_from=_VGG_ERRORS if _top1_error else None, normalisation=IMAGENET if _weights else None,
        ),
        "model_defs.vgg:vgg",
        configuration=_configuration,
        batch_norm=_name.endswith("_bn"),
    )  # fmt: skip
