"""Every source by its kind: the union that a config's `source` is one of, and what `tutelage sources` lists."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from pipeline.sharding.sources.emoji import EmojiConfig
from pipeline.sharding.sources.fashion_mnist import FashionMnistConfig
from pipeline.sharding.sources.image_folder import ImageFolderConfig

SourceConfigs = Annotated[EmojiConfig | ImageFolderConfig | FashionMnistConfig, Field(discriminator="kind")]

# Any: mypy cannot see that each member offers what `SourceConfig` asks for; a test holds it.
SOURCES: dict[str, type[Any]] = {
    source.model_fields["kind"].default: source for source in get_args(get_args(SourceConfigs)[0])
}
