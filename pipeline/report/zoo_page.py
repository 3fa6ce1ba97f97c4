"""Generates docs/models.md and its figure from the catalogue: python -m pipeline.report.zoo_page."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from model_defs import ModelInfo, list_models
from pipeline.report.wording import magnitude, paper_errors
from pipeline.report.zoo_history import FAMILIES, Family, family_of
from pipeline.report.zoo_timeline import timeline

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PICTURE = "models.md", "models_timeline.png"

_OPENING = """\
# The models

{count} models in {families} families, in the order of their papers. `python -m pipeline.report.zoo_page` generates this
page from the catalogue ([model_defs/catalogue/](../model_defs/catalogue)). Counts are exact: a test compares them with
the models. In the shell: `tutelage models`, `tutelage models show NAME`.

![Errors and sizes over the years]({picture})

## Creating a model

```python
from model_defs import create_model, list_models

model = create_model("resnet50", num_classes=10, in_chans=1, img_size=96)
features = create_model("vit_small_patch16_224", num_classes=0)  # [B, num_features] instead of logits
list_models("densenet*")
```

Models accept any number of classes and channels, and any image size for which the last feature map is not empty; the
error for a smaller size names the minimum. `create_model("timm/NAME")` creates any model of timm, if it is installed.
Each model's file documents its other arguments (`drop_path`, `squeeze_excite`, `memory_efficient`, ...).
The signature of its function there has the bounds of each argument; any other value is refused by name before a
model is built, e.g. `depth: must be 1 to 1,000, not 0`.

`pretrained=` loads trained weights and adapts them to these arguments: the head is replaced for another number of
classes, the position embedding is resampled for another size, and the first convolution is adapted to other channels.
Dropped, adapted and missing weights are logged; any other mismatch is an error.

| `pretrained=` | weights |
|---|---|
| `"DEFAULT"` | those in the last column of the tables below |
| `"VGG16_Weights.IMAGENET1K_V1"` | torchvision's, by their names |
| a file or a folder | safetensors, or `.pth` with tensors only; an exported model |
| `"hf:ORG/NAME"` | from the Hugging Face hub |
| `"models:/NAME@champion"`, `"train-teacher/KEY"` | a registered model, an artifact of the store |

Weights expect pixels normalised as in their own training: `(pixels - mean) / std` with one mean and one std for each
channel. A flow uses the values of the weights that a training starts from (`model.pretrained`) unless `mean` and `std`
are set, each to one number or to a list of one per channel. They come from torchvision's transforms, from the JSON of
timm, open_clip or transformers next to the weights, or from our exported models; else from the catalogue
(`model_info(NAME).normalisation`); else they are 0.5 and 0.25. `pretrained.txt` in the artifact of the training names
the values and their origin. A registered model normalises its images itself, `create_model` does not.

## Columns of the tables
**MACs**: multiply-accumulates for one image of that size (or one text, or one pair) in convolutions and matrix
products, including the two products of attention. **Error**: top-1 / top-5 of a single model on ImageNet's validation
set in percent, as printed in the paper. **Weights**: what `"DEFAULT"` loads; their training recipe may be newer than
the paper's. `resnet_small`, `densenet_small`, `vit_micro` and `deit_micro_distilled` are our own, for images of 28 to
64 pixels.

### Sources of the errors
Papers differ in test, recipe and data, so the errors show history, not which model is better: the same ResNet-50 has
22.9 with ten crops and 24.7 with one. Blacklisted images are those that ILSVRC excludes from its localization test. A
model without errors has none in its paper, or differs too much from the paper's.

| paper | table or figure with the errors, and test procedure |
|---|---|
{sources}
"""


def models_page() -> str:
    """The page as Markdown."""
    families = sorted(FAMILIES, key=lambda family: (family.year, family.month))
    names = list_models()
    for name in names:
        family_of(name)  # raises for a model without a family
    sources = "\n".join(row for family in families for row in _sources(family))
    sections = [_OPENING.format(count=len(names), families=len(families), picture=PICTURE, sources=sources)]
    sections += [_section(family) for family in families]
    return "\n".join(sections)


def _sources(family: Family) -> list[str]:
    """One row per source of the family's errors; models are named only if there are several sources."""
    by_source: dict[str, list[str]] = {}
    for info in family.models():
        if info.errors_from is not None:
            by_source.setdefault(info.errors_from, []).append(f"`{info.name}`")
    named = len(by_source) > 1
    return [
        f"| {family.title}{': ' + ', '.join(names) if named else ''} | {source} |"
        for source, names in by_source.items()
    ]


def _section(family: Family) -> str:
    rows = [_row(info) for info in family.models()]
    return "\n".join(
        [
            f"## {family.title}, {family.year}",
            textwrap.fill(family.contribution, 120, break_on_hyphens=False),
            "",
            f"{family.reference}. [model_defs/{family.file}](../model_defs/{family.file})",
            "",
            "| model | parameters | MACs | pixels | error, % | weights |",
            "|---|---:|---:|---:|---:|---|",
            *rows,
            "",
        ]
    )


def _row(info: ModelInfo) -> str:
    cells = [
        f"`{info.name}`",
        f"{info.parameters:,}" if info.parameters else "",
        magnitude(info.macs),
        str(info.image_size or ""),
        paper_errors(info, " / "),
        info.weights or "",
    ]
    return "| " + " | ".join(cells) + " |"


def write(folder: Path = DOCS) -> Sequence[Path]:
    """Writes the page and the figure; returns their paths."""
    page, picture = folder / PAGE, folder / PICTURE
    page.write_text(models_page(), encoding="utf-8")
    picture.write_bytes(timeline())
    return page, picture


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS):
        print(path)
