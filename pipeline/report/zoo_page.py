"""docs/models.md and its picture, from the catalogue: python -m pipeline.report.zoo_page writes both."""

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

{count} models in {families} families, in the order of their papers. This page is made from the catalogue
([model_defs/catalogue/](../model_defs/catalogue)) by `python -m pipeline.report.zoo_page`; counts are exact, and a test
holds them to the models. In the shell: `tutelage models`, `tutelage models show NAME`.

![Errors and sizes over the years]({picture})

## How to make one

```python
from model_defs import create_model, list_models

model = create_model("resnet50", num_classes=10, in_chans=1, img_size=96)
features = create_model("vit_small_patch16_224", num_classes=0)  # [B, num_features] in place of logits
list_models("densenet*")
```

Any number of classes and channels goes, and any size of image that leaves something of the last map; one that is too
small is refused with the smallest that goes. `create_model("timm/NAME")` takes any model of timm, if it is installed.
What else a model takes (`drop_path`, `squeeze_excite`, `memory_efficient`, ...) stands in its file.

`pretrained=` brings trained weights in, fitted to these arguments: the head replaced for another number of classes, the
position embedding resampled for another size, the first convolution adapted to other channels. What was dropped,
adapted or missing is logged, and what cannot be explained is an error.

| `pretrained=` | weights |
|---|---|
| `"DEFAULT"` | those in the last column of the tables below |
| `"VGG16_Weights.IMAGENET1K_V1"` | torchvision's, by its names |
| a file or a folder | safetensors, or `.pth` that holds nothing but tensors; an exported model |
| `"hf:ORG/NAME"` | from the Hugging Face hub |
| `"models:/NAME@champion"`, `"train-teacher/KEY"` | a registered model, an artifact of the store |

## How to read the tables
**MACs**: multiply-accumulates of one image of that size (of one text; of one pair), convolutions and matrix products,
attention's two products included. **Error**: top-1 / top-5 of one net on ImageNet's validation set in percent, as the
paper prints it. **Weights**: what `"DEFAULT"` fetches; they may come from a later recipe than the paper's.
`resnet_small`, `densenet_small`, `vit_micro` and `deit_micro_distilled` are ours, for images of 28 to 64 pixels.

### Where the errors come from
Papers differ in test, recipe and data, so errors tell history, not which net is better: the same ResNet-50 has 22.9 by
ten crops and 24.7 by one. Blacklisted images are those that ILSVRC leaves out of its test of localization. A model
without errors has none in its paper, or differs too much from the paper's net.

| paper | where it prints its errors, and how it tested |
|---|---|
{sources}
"""


def models_page() -> str:
    """The page as Markdown."""
    families = sorted(FAMILIES, key=lambda family: (family.year, family.month))
    names = list_models()
    for name in names:
        family_of(name)  # refuses a model without a family
    sources = "\n".join(row for family in families for row in _sources(family))
    parts = [_OPENING.format(count=len(names), families=len(families), picture=PICTURE, sources=sources)]
    parts += [_section(family) for family in families]
    return "\n".join(parts)


def _sources(family: Family) -> list[str]:
    """A row for each way in which the family's paper got errors; where there is one way, models are not named."""
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
            textwrap.fill(family.brought, 120, break_on_hyphens=False),
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
    """Writes the page and the picture; returns their paths."""
    page, picture = folder / PAGE, folder / PICTURE
    page.write_text(models_page(), encoding="utf-8")
    picture.write_bytes(timeline())
    return page, picture


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS):
        print(path)
