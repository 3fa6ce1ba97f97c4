"""A figure of the zoo's history: error and size of its models by the year of their papers."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from model_defs import list_models, model_info
from pipeline.html.figure_style import figure_style
from pipeline.html.theme import LIGHT, SERIES
from pipeline.report.zoo_history import FAMILIES, Lineage, family_of

_LINEAGES: tuple[Lineage, ...] = ("one row", "Inception", "short cuts", "scaled", "transformers", "with text")
COLOURS = {lineage: LIGHT[colour] for lineage, colour in zip(_LINEAGES, SERIES, strict=True)}
_INK, _MUTED, _PAPER, _BEST = LIGHT["ink"], LIGHT["muted"], LIGHT["paper"], "#cbc6bb"
_STYLE = figure_style(size=9.5) | {"axes.facecolor": _PAPER}
# Models with a label, and the offset of the label from their dot in points; the others are plain dots.
ERROR_LABELS: dict[str, tuple[str, int, int]] = {
    "alexnet": ("AlexNet", 7, 5),
    "zfnet": ("ZF-Net", 7, 5),
    "vgg16": ("VGG-16", -8, -2),
    "bn_inception": ("BN-Inception", 6, 7),
    "inception_v3": ("Inception v3", -8, -3),
    "resnet152": ("ResNet-152", 9, 11),
    "inception_resnet_v2": ("Inception-ResNet v2", -2, -12),
    "densenet264": ("DenseNet-264", 7, -1),
    "resnext101_64x4d": ("ResNeXt-101", 7, -4),
    "senet154": ("SENet-154", 4, -13),
    "efficientnet_b7": ("EfficientNet-B7", -8, -3),
    "efficientnet_b0": ("EfficientNet-B0", -8, -1),
    "regnet_y_32gf": ("RegNet-Y", -8, -3),
    "vit_base_patch16_384": ("ViT-B/16", 7, -3),
    "deit_base_distilled_patch16_384": ("DeiT-B", 8, -2),
    "deit_tiny_patch16_224": ("DeiT-Ti", 8, -3),
    "efficientnet_v2_l": ("EfficientNetV2-L", -1, -14),
}
SIZE_LABELS: dict[str, tuple[str, int, int]] = {
    "lenet5": ("LeNet-5", 8, -3),
    "alexnet": ("AlexNet", -8, -2),
    "zfnet": ("ZF-Net", 8, -2),
    "vgg19": ("VGG-19", -8, -1),
    "googlenet": ("GoogLeNet", -8, -3),
    "inception_v4": ("Inception v4", 7, -2),
    "resnet152": ("ResNet-152", 6, 6),
    "densenet121": ("DenseNet-121", -6, -11),
    "senet154": ("SENet-154", 8, -2),
    "efficientnet_b0": ("EfficientNet-B0", -8, -4),
    "efficientnet_b7": ("EfficientNet-B7", -8, 2),
    "vit_huge_patch14_224": ("ViT-H/14", -8, -2),
    "deit_tiny_patch16_224": ("DeiT-Ti", 8, -3),
    "clip_vit_large_patch14": ("CLIP L/14", 8, -3),
}
_FIRST, _LAST = 2012.2, 2021.75


def timeline() -> bytes:
    """The figure as the bytes of a PNG file."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 8.4), dpi=150, facecolor=_PAPER)
        figure.text(0.045, 0.958, "From LeNet-5 to CLIP: the models of the zoo", size=16, weight="bold")
        figure.text(
            0.045, 0.93, "A dot is a model, at the month of its paper; the line is the best error so far.", color=_MUTED
        )
        error = figure.add_axes((0.155, 0.515, 0.825, 0.315))
        early = figure.add_axes((0.055, 0.05, 0.085, 0.37))
        size = figure.add_axes((0.155, 0.05, 0.825, 0.37))
        _errors(error)
        _sizes(size, early)
        _legend(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor=_PAPER, metadata={"Software": None})
    return buffer.getvalue()


def _errors(axes: Axes) -> None:
    axes.set_title(
        "Top-1 error on ImageNet as the papers print it, % (AlexNet, ResNet: ten crops; VGG: whole images)",
        loc="left", size=10.5, color=_INK, pad=10,
    )  # fmt: skip
    rows = sorted(
        (family_of(name).date(info), info.top1_error, name)
        for name, info in ((name, model_info(name)) for name in list_models())
        if info.top1_error is not None
    )
    best: list[tuple[float, float]] = []
    for date, value, _ in rows:
        if not best or value < best[-1][1]:
            best.append((date, value))
    dates, values = zip(*best, (_LAST, best[-1][1]), strict=True)
    axes.step(dates, values, where="post", color=_BEST, linewidth=2.4, zorder=1)
    for date, value, name in rows:
        _dot(axes, date, value, name, ERROR_LABELS)
    axes.set_ylim(11, 43)
    _years(axes)


def _sizes(axes: Axes, early: Axes) -> None:
    early.set_title("Parameters, in millions", loc="left", size=10.5, color=_INK, pad=10)
    for name in list_models():
        info = model_info(name)
        if info.parameters is not None:
            date = family_of(name).date(info)
            _dot(early if date < _FIRST else axes, date, info.parameters / 1e6, name, SIZE_LABELS)
    for panel in (axes, early):
        panel.set_yscale("log")
        panel.set_ylim(0.1, 1100)
        panel.set_yticks([0.1, 1, 10, 100, 1000])
        panel.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelleft=False)
    _years(axes)
    early.set_xlim(1998.2, 2000.4)
    early.set_xticks([1998.5], ["1998"])
    # The years between are omitted, which two strokes across the axis indicate.
    for x, panel in ((1.0, early), (0.0, axes)):
        panel.plot(
            [x], [0], marker=[(-1, -1.6), (1, 1.6)], markersize=8, color=_MUTED, mew=1, transform=panel.transAxes,
            clip_on=False, linestyle="none",
        )  # fmt: skip


def _dot(axes: Axes, date: float, value: float, name: str, labels: dict[str, tuple[str, int, int]]) -> None:
    colour = COLOURS[family_of(name).lineage]
    named = name in labels
    axes.scatter(
        [date], [value], s=44 if named else 16, color=colour, alpha=1 if named else 0.55, linewidths=0, zorder=3
    )
    if named:
        text, x, y = labels[name]
        side = "left" if x > 0 else "right"
        axes.annotate(
            text, (date, value), (x, y), textcoords="offset points", ha=side, color=_INK, size=8.8, zorder=4,
            bbox={"boxstyle": "square,pad=0.05", "facecolor": _PAPER, "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip


def _years(axes: Axes) -> None:
    axes.set_xlim(_FIRST, _LAST)
    years = list(range(2013, 2022))
    axes.set_xticks(years, [str(year) for year in years])


def _legend(figure: Figure) -> None:
    x = 0.045
    for lineage in dict.fromkeys(family.lineage for family in FAMILIES):
        figure.text(x, 0.893, "●", color=COLOURS[lineage], size=11, va="baseline")
        figure.text(x + 0.017, 0.893, lineage, color=_MUTED, va="baseline")
        x += 0.034 + 0.0078 * len(lineage)
