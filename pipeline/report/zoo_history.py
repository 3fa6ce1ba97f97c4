"""The families of the zoo in the order of their papers: what each brought, and which models it holds."""

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
        month: of the paper's first appearance, 1 to 12.
        reference: where it appeared.
        brought: what it brought, in a sentence or two.
        patterns: of its models' names; one that begins with "!" takes models out again.
        file: where the model is defined.
    """

    title: str
    year: int
    month: int
    reference: str
    lineage: Lineage
    brought: str
    patterns: tuple[str, ...]
    file: str

    def holds(self, name: str) -> bool:
        """Whether a model belongs here."""
        taken_out = any(fnmatch(name, pattern[1:]) for pattern in self.patterns if pattern.startswith("!"))
        return not taken_out and any(fnmatch(name, pattern) for pattern in self.patterns)

    def models(self) -> list[ModelInfo]:
        """Its rows of the catalogue, small ones first, by their size of image and then by parameters."""
        infos = [model_info(name) for name in list_models() if self.holds(name)]
        return sorted(infos, key=lambda info: (info.kind, info.image_size or 0, info.parameters or 0, info.name))

    def date(self, info: ModelInfo) -> float:
        """Of one of its models, in years; one that came later than the family is put into the middle of its year."""
        return self.year + (self.month - 0.5) / 12 if info.year == self.year else info.year + 0.5


FAMILIES: Sequence[Family] = (
    Family(
        "LeNet-5", 1998, 11, "LeCun, Bottou, Bengio, Haffner; Proceedings of the IEEE 86", "one row",
        "Small filters that share their weights over the image, subsampling between them, and one gradient from the "
        "class down to the pixels: the plan of every convolutional net below.",
        ("lenet*",), "lenet.py",
    ),
    Family(
        "AlexNet", 2012, 12, "Krizhevsky, Sutskever, Hinton; NIPS 2012 (one column: arXiv:1404.5997)", "one row",
        "LeNet's plan on a million photographs, made possible by two GPUs, ReLU, dropout and augmentation. It won "
        "ILSVRC 2012 by a margin that turned the field to deep nets.",
        ("alexnet*",), "alexnet.py",
    ),
    Family(
        "ZF-Net", 2013, 11, "Zeiler, Fergus; arXiv:1311.2901", "one row",
        "Looked into AlexNet by deconvnet, which `tutelage explain` draws, and mended what it saw: smaller first "
        "filters at half the stride.",
        ("zfnet",), "zfnet.py",
    ),
    Family(
        "VGG", 2014, 9, "Simonyan, Zisserman; arXiv:1409.1556", "one row",
        "Depth alone: 11 to 19 layers with weights, filters of 3 x 3 all the way. Heavy, and for years what others "
        "took features from.",
        ("vgg*",), "vgg.py",
    ),
    Family(
        "GoogLeNet (Inception v1)", 2014, 9, "Szegedy et al.; arXiv:1409.4842", "Inception",
        "Filters of 1, 3 and 5 pixels and a pooling side by side in each module, 1 x 1 convolutions that make them "
        "affordable, auxiliary heads that bring a gradient to the early layers. A ninth of AlexNet's weights.",
        ("googlenet*",), "googlenet.py",
    ),
    Family(
        "BN-Inception (Inception v2)", 2015, 2, "Ioffe, Szegedy; arXiv:1502.03167", "Inception",
        "Batch normalization: each layer sees inputs of one scale whatever the layers before it do, so learning rates "
        "may be large, and GoogLeNet's accuracy came in 14 times fewer steps.",
        ("bn_inception",), "bn_inception.py",
    ),
    Family(
        "Inception v3", 2015, 12, "Szegedy et al.; arXiv:1512.00567", "Inception",
        "Large filters taken apart into small and one-sided ones (7 x 7 into 1 x 7 and 7 x 1), and label smoothing.",
        ("inception_v3",), "inception_v3.py",
    ),
    Family(
        "ResNet", 2015, 12, "He, Zhang, Ren, Sun; arXiv:1512.03385", "short cuts",
        "Short cuts: a block learns what to add to its input, so that a net of 152 layers trains better than one of "
        "34, not worse. It won ILSVRC 2015; every later family has them.",
        ("resnet*", "!resnet50_clip"), "resnet.py",
    ),
    Family(
        "Inception v4 and Inception-ResNet", 2016, 2, "Szegedy, Ioffe, Vanhoucke, Alemi; arXiv:1602.07261", "Inception",
        "Inception with one plan from end to end, and the same with short cuts, which make it train faster.",
        ("inception_v4", "inception_resnet*"), "inception_v4.py",
    ),
    Family(
        "DenseNet", 2016, 8, "Huang, Liu, van der Maaten, Weinberger; arXiv:1608.06993", "short cuts",
        "Each layer of a block sees the maps of all layers before it: features are used again, not learned again. "
        "Few weights for its accuracy, and much memory; `memory_efficient=True` trades it for time.",
        ("densenet*",), "densenet.py",
    ),
    Family(
        "ResNeXt", 2016, 11, "Xie, Girshick, Dollar, Tu, He; arXiv:1611.05431", "short cuts",
        "Many narrow paths of one shape in a block, written as a grouped convolution: their number is a third size of "
        "a net, beside depth and width.",
        ("resnext*",), "resnext.py",
    ),
    Family(
        "SENet", 2017, 9, "Hu, Shen, Albanie, Sun, Wu; arXiv:1709.01507", "short cuts",
        "A gate for each channel, opened by what the whole image holds. It won ILSVRC 2017, the last one. "
        "`squeeze_excite=True` puts the gates into ResNet, ResNeXt and Inception.",
        ("senet*", "seres*"), "senet.py",
    ),
    Family(
        "BERT and MiniLM", 2018, 10, "Devlin et al.; arXiv:1810.04805. Wang et al.; arXiv:2002.10957", "with text",
        "Text towers that were trained elsewhere: a transformer that learned language by filling gaps, and small ones "
        "distilled from such, tuned to give sentences of one meaning one vector.",
        ("bert*",), "bert.py",
    ),
    Family(
        "EfficientNet", 2019, 5, "Tan, Le; arXiv:1905.11946", "scaled",
        "A small net found by search, then depth, width and image size grown together at fixed ratios. Lite0 leaves "
        "out what small devices dislike.",
        ("efficientnet_b?", "efficientnet_lite0"), "torchvision_models.py",
    ),
    Family(
        "RegNet", 2020, 3, "Radosavovic, Kosaraju, Girshick, He, Dollar; arXiv:2003.13678", "scaled",
        "Not a net but a space of good ones, whose widths follow a line. The 16 GF net of series Y was the teacher of "
        "DeiT.",
        ("regnet*",), "torchvision_models.py",
    ),
    Family(
        "ViT", 2020, 10, "Dosovitskiy et al.; arXiv:2010.11929", "transformers",
        "An image as a row of patches for a plain transformer: nothing but a position embedding tells it that patches "
        "are neighbours. It asks for much data, and rewards it.",
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
        "Images and their captions brought into one space, from 400 million pairs: afterwards a class is named by a "
        "text. `clip` takes any image model and any text model of the zoo as towers.",
        ("clip*", "text_transformer", "vit_*_clip_*", "resnet50_clip"), "clip.py",
    ),
    Family(
        "EfficientNetV2", 2021, 4, "Tan, Le; arXiv:2104.00298", "scaled",
        "EfficientNet searched again for speed of training, with plain convolutions early in the net, and images and "
        "augmentation that grow while it learns.",
        ("efficientnet_v2_*",), "torchvision_models.py",
    ),
)  # fmt: skip


def family_of(name: str) -> Family:
    """The one family that a registered model belongs to.

    Raises:
        LookupError: none has it, or several: its patterns have to be mended.
    """
    found = [family for family in FAMILIES if family.holds(name)]
    if len(found) != 1:
        titles = ", ".join(family.title for family in found) or "none"
        raise LookupError(f"{name}: should be in one family of pipeline/report/zoo_history.py and is in {titles}")
    return found[0]
