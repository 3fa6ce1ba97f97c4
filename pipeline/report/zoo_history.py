"""The families of models in the order of their papers: the contribution and the models of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from model_defs import ModelInfo, list_models, model_info

Lineage = Literal["one row", "Inception", "short cuts", "scaled", "transformers", "with text"]


@dataclass(frozen=True)
class Family:
    """A paper and its models.

    Attributes:
        month: month of the paper's first publication, 1 to 12.
        reference: venue of the publication.
        contribution: the paper's contribution, in a sentence or two.
        patterns: patterns of its model names; a pattern that begins with "!" excludes models.
        file: file that defines the models.
    """

    title: str
    year: int
    month: int
    reference: str
    lineage: Lineage
    contribution: str
    patterns: tuple[str, ...]
    file: str

    def contains(self, name: str) -> bool:
        """Whether a model belongs to this family."""
        excluded = any(fnmatch(name, pattern[1:]) for pattern in self.patterns if pattern.startswith("!"))
        return not excluded and any(fnmatch(name, pattern) for pattern in self.patterns)

    def models(self) -> list[ModelInfo]:
        """Its rows in the catalogue, sorted by image size and then by parameters."""
        infos = [model_info(name) for name in list_models() if self.contains(name)]
        return sorted(infos, key=lambda info: (info.kind, info.image_size or 0, info.parameters or 0, info.name))

    def date(self, info: ModelInfo) -> float:
        """The date of one of its models as a decimal year; mid-year for a model that is later than the family."""
        return self.year + (self.month - 0.5) / 12 if info.year == self.year else info.year + 0.5


FAMILIES: Sequence[Family] = (
    Family(
        "LeNet-5", 1998, 11, "LeCun, Bottou, Bengio, Haffner; Proceedings of the IEEE 86", "one row",
        "Small filters that share their weights over the image, subsampling between them, and training of all layers "
        "by backpropagation: the design of every convolutional net below.",
        ("lenet*",), "lenet.py",
    ),
    Family(
        "AlexNet", 2012, 12, "Krizhevsky, Sutskever, Hinton; NIPS 2012 (one column: arXiv:1404.5997)", "one row",
        "LeNet's design on a million photographs, made possible by two GPUs, ReLU, dropout and augmentation. It won "
        "ILSVRC 2012 by a margin that turned the field to deep nets.",
        ("alexnet*",), "alexnet.py",
    ),
    Family(
        "ZF-Net", 2013, 11, "Zeiler, Fergus; arXiv:1311.2901", "one row",
        "Visualised AlexNet with deconvnet, which `tutelage explain` offers too, and fixed what the pictures showed: "
        "smaller filters in the first layer, at half the stride.",
        ("zfnet",), "zfnet.py",
    ),
    Family(
        "VGG", 2014, 9, "Simonyan, Zisserman; arXiv:1409.1556", "one row",
        "Depth alone: 11 to 19 layers with weights, all filters 3 x 3. Large, and for years the standard source of "
        "features.",
        ("vgg*",), "vgg.py",
    ),
    Family(
        "GoogLeNet (Inception v1)", 2014, 9, "Szegedy et al.; arXiv:1409.4842", "Inception",
        "Parallel filters of 1, 3 and 5 pixels and pooling in each module, 1 x 1 convolutions that make them "
        "affordable, auxiliary heads that bring a gradient to the early layers. It has a ninth of AlexNet's weights.",
        ("googlenet*",), "googlenet.py",
    ),
    Family(
        "BN-Inception (Inception v2)", 2015, 2, "Ioffe, Szegedy; arXiv:1502.03167", "Inception",
        "Batch normalization: the inputs of each layer keep their scale while the layers before it change, so learning "
        "rates can be larger; GoogLeNet's accuracy took 14 times fewer steps.",
        ("bn_inception",), "bn_inception.py",
    ),
    Family(
        "Inception v3", 2015, 12, "Szegedy et al.; arXiv:1512.00567", "Inception",
        "Large filters factorised into smaller and asymmetric ones (7 x 7 into 1 x 7 and 7 x 1), and label smoothing.",
        ("inception_v3",), "inception_v3.py",
    ),
    Family(
        "ResNet", 2015, 12, "He, Zhang, Ren, Sun; arXiv:1512.03385", "short cuts",
        "Residual connections: a block learns what to add to its input, so that a net of 152 layers trains better than "
        "one of 34, not worse. It won ILSVRC 2015; every later family has residual connections.",
        ("resnet*", "!resnet50_clip"), "resnet.py",
    ),
    Family(
        "Inception v4 and Inception-ResNet", 2016, 2, "Szegedy, Ioffe, Vanhoucke, Alemi; arXiv:1602.07261", "Inception",
        "A uniform Inception architecture, and a variant with residual connections, which trains faster.",
        ("inception_v4", "inception_resnet*"), "inception_v4.py",
    ),
    Family(
        "DenseNet", 2016, 8, "Huang, Liu, van der Maaten, Weinberger; arXiv:1608.06993", "short cuts",
        "Each layer of a block gets the feature maps of all layers before it, so features are reused instead of "
        "learned again. Few weights for its accuracy, but much memory; `memory_efficient=True` trades memory for time.",
        ("densenet*",), "densenet.py",
    ),
    Family(
        "ResNeXt", 2016, 11, "Xie, Girshick, Dollar, Tu, He; arXiv:1611.05431", "short cuts",
        "Many narrow parallel paths of one shape in a block, implemented as a grouped convolution. Their number, the "
        "cardinality, is a third dimension of a net after depth and width.",
        ("resnext*",), "resnext.py",
    ),
    Family(
        "SENet", 2017, 9, "Hu, Shen, Albanie, Sun, Wu; arXiv:1709.01507", "short cuts",
        "A gate for each channel, computed from the whole image. It won ILSVRC 2017, the last one. "
        "`squeeze_excite=True` adds the gates to ResNet, ResNeXt and Inception.",
        ("senet*", "seres*"), "senet.py",
    ),
    Family(
        "BERT and MiniLM", 2018, 10, "Devlin et al.; arXiv:1810.04805. Wang et al.; arXiv:2002.10957", "with text",
        "Pretrained text backbones: BERT is a transformer pretrained by predicting masked words; MiniLM models are "
        "distilled from such transformers and fine-tuned to embed sentences of similar meaning close together.",
        ("bert*",), "bert.py",
    ),
    Family(
        "EfficientNet", 2019, 5, "Tan, Le; arXiv:1905.11946", "scaled",
        "A small net found by architecture search, then depth, width and image size scaled together at fixed ratios. "
        "Lite0 omits the operations that small devices do not support well.",
        ("efficientnet_b?", "efficientnet_lite0"), "torchvision_models.py",
    ),
    Family(
        "RegNet", 2020, 3, "Radosavovic, Kosaraju, Girshick, He, Dollar; arXiv:2003.13678", "scaled",
        "Not one net but a design space of good nets, in which the widths grow linearly. RegNetY-16GF was the teacher "
        "of DeiT.",
        ("regnet*",), "torchvision_models.py",
    ),
    Family(
        "ViT", 2020, 10, "Dosovitskiy et al.; arXiv:2010.11929", "transformers",
        "An image as a sequence of patches for a plain transformer: only a position embedding encodes which patches "
        "are neighbours. It needs much data, and profits from it.",
        ("vit", "vit_*", "!vit_*_clip_*"), "vit.py",
    ),
    Family(
        "DeiT", 2020, 12, "Touvron et al.; arXiv:2012.12877", "transformers",
        "ViT on ImageNet alone: strong augmentation, and a second token that learns from a convolutional teacher. It "
        "is what `distill-student` trains.",
        ("deit_*",), "deit.py",
    ),
    Family(
        "CLIP", 2021, 2, "Radford et al.; arXiv:2103.00020", "with text",
        "Images and captions embedded in one space, learned from 400 million pairs; a text prompt can then define a "
        "class. `clip` combines any image model and any text model of this page as backbones.",
        ("clip*", "text_transformer", "vit_*_clip_*", "resnet50_clip"), "clip.py",
    ),
    Family(
        "EfficientNetV2", 2021, 4, "Tan, Le; arXiv:2104.00298", "scaled",
        "EfficientNet searched again for training speed, with plain convolutions in the early layers, and image size "
        "and augmentation that grow during training.",
        ("efficientnet_v2_*",), "torchvision_models.py",
    ),
)  # fmt: skip


def family_of(name: str) -> Family:
    """The family of a registered model.

    Raises:
        LookupError: no family matches, or several do; fix their patterns.
    """
    families = [family for family in FAMILIES if family.contains(name)]
    if len(families) != 1:
        titles = ", ".join(family.title for family in families) or "none"
        raise LookupError(f"{name}: should be in one family of pipeline/report/zoo_history.py and is in {titles}")
    return families[0]
