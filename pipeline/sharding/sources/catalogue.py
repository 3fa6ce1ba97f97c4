"""Every source by its kind: the union type of a config's `source`, and the list behind `tutelage sources`."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from pipeline.sharding.sources.base import SourceConfig
from pipeline.sharding.sources.captions_tsv import CaptionsTsvConfig
from pipeline.sharding.sources.coco import CocoConfig
from pipeline.sharding.sources.demo.emoji import EmojiConfig
from pipeline.sharding.sources.fashion_mnist import FashionMnistConfig
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.sources.imagenet import ImagenetConfig
from pipeline.sharding.sources.manifest import ManifestConfig
from pipeline.sharding.sources.parquet_images import ParquetImagesConfig
from pipeline.sharding.sources.torchvision_datasets import TorchvisionConfig
from pipeline.sharding.sources.webdataset_tars import WebdatasetConfig

SourceConfigs = Annotated[
    EmojiConfig
    | FashionMnistConfig
    | ImageFolderConfig
    | ImagenetConfig
    | ManifestConfig
    | CaptionsTsvConfig
    | CocoConfig
    | WebdatasetConfig
    | ParquetImagesConfig
    | TorchvisionConfig,
    Field(discriminator="kind"),
]

SOURCES: dict[str, type[SourceConfig]] = {
    source.model_fields["kind"].default: source for source in get_args(get_args(SourceConfigs)[0])
}
