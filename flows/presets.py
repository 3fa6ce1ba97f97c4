"""Whole runs as functions. Every flow takes its part of one: `find_preset("emoji").parameters("train-teacher")`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flows.catalog import find_flow
from flows.parameters import PretrainClipParameters
from pipeline.config import Config
from pipeline.contrastive.recipe import ContrastiveConfig
from pipeline.errors import UnknownNameError
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.sharding.sources.emoji import EmojiConfig
from pipeline.sharding.sources.fashion_mnist import FashionMnistConfig
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.split import SplitConfig
from pipeline.sharding.stage import ShardingConfig
from pipeline.training.plan import TrainingConfig
from pipeline.training.stage import ClassificationConfig

ParametersT = TypeVar("ParametersT", bound=Config)
LifecycleParameters = PretrainClipParameters
DEFAULT_PRESET = "emoji"


def emoji() -> LifecycleParameters:
    """Emoji in several hands, the Noto family held out: the demo, about 6 minutes on two cores."""
    return LifecycleParameters(data=ShardingConfig(source=EmojiConfig(), split=SplitConfig(holdout_family="noto")))


def emoji_tiny() -> LifecycleParameters:
    """The same flow on a few concepts, under a minute of training: for tests and first tries."""
    return LifecycleParameters(
        data=ShardingConfig(
            source=EmojiConfig(size=32, groups=("animals-nature", "food-drink"), min_concepts=8),
            split=SplitConfig(holdout_family="noto"),
        ),
        teacher=ClassificationConfig(
            image_size=32,
            training=TrainingConfig(epochs=1, global_batch=64),
        ),
    )


def fashion_mnist() -> LifecycleParameters:
    """Fashion-MNIST, the benchmark whose numbers people know."""
    return LifecycleParameters(data=ShardingConfig(source=FashionMnistConfig()))


def image_folder() -> LifecycleParameters:
    """Your own images, a sub-folder a class; name the folder by --set data.source.folder=PATH."""
    return LifecycleParameters(
        data=ShardingConfig(
            source=ImageFolderConfig(folder=Path("images"), caption="a photo of a {label}"),
            split=SplitConfig(val_share=0.1, test_share=0.2),
        ),
        clip=ContrastiveConfig(policy=ShuffledConfig(), templates=("a photo of a {}",)),
    )


@dataclass(frozen=True)
class Preset:
    """A whole run by name."""

    name: str
    make: Callable[[], LifecycleParameters]

    def parameters(self, flow: str) -> Config:
        """The part of it that a flow takes."""
        return _part(self.make(), find_flow(flow).parameter_model())


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("emoji", emoji),
        Preset("emoji-tiny", emoji_tiny),
        Preset("fashion-mnist", fashion_mnist),
        Preset("image-folder", image_folder),
    )
}


def find_preset(name: str) -> Preset:
    """The preset with this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]


def default_parameters(model: type[ParametersT]) -> ParametersT:
    """What a flow runs with when nothing is said, on a schedule as in the shell."""
    return _part(PRESETS[DEFAULT_PRESET].make(), model)


def _part(whole: LifecycleParameters, model: type[ParametersT]) -> ParametersT:
    """The fields of a whole run that `model` has too; the rest of `model` keeps its defaults."""
    shared = set(model.model_fields) & set(type(whole).model_fields)
    return model(**{name: getattr(whole, name) for name in shared})
