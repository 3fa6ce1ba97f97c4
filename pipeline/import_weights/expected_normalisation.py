"""The mean and standard deviation that a training takes from its initial weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from model_defs import ModelError, model_info
from model_defs.normalisation import Normalisation, before_transform_input
from model_defs.pretrained.sources import usual_normalisation
from pipeline.artifacts import ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.import_weights.sources import find_weights
from pipeline.import_weights.stage import ImportConfig
from pipeline.training.image_model_config import DEFAULT_MEAN, DEFAULT_STD, ImageModelConfig
from pipeline.training.model_config import ModelConfig

ImageModelConfigT = TypeVar("ImageModelConfigT", bound=ImageModelConfig)


def with_normalisation(config: ImageModelConfigT, store: ArtifactStore) -> ImageModelConfigT:
    """The config with the mean and std that its weights expect, where it sets none; unchanged without weights.

    The source of the weights states them, else the model's row in the catalogue; if neither does, they are the
    defaults. If the net transforms its input (transform_input), they are converted, so that its first convolution gets
    values that are normalised as the weights expect.

    Raises:
        InputError: there are no such weights, or their stated normalisation is invalid.
        WorkError: the files of a registered model cannot be fetched.
    """
    if not config.waits_for_weights:
        return config
    expected = _expected(config.model, store).for_channels(config.channels)
    if config.model.kwargs.get("transform_input") and config.channels == 3:
        expected = _before_transform_input(expected)
    normalisation = {"mean": expected.mean, "std": expected.std}
    given = [name for name in normalisation if getattr(config, name) is not None]
    origin = "; ".join([expected.origin, *(f"{name} set in the config" for name in given)])
    update = {name: values for name, values in normalisation.items() if name not in given}
    return parse_config(type(config), {**dict(config), **update, "normalised_as": origin}, expected.origin)


def _expected(model: ModelConfig, store: ArtifactStore) -> Normalisation:
    assert model.pretrained is not None
    source = ImportConfig.for_model(model.name, model.pretrained).source
    try:
        stated = find_weights(source, store).normalisation()
        catalogued = usual_normalisation(model_info(model.name))
    except ModelError as error:
        raise InputError(str(error)) from None
    if stated is not None:
        return stated
    if catalogued is not None:
        return replace(catalogued, origin=f"{catalogued.origin}; the weights state none")
    default = "the default; neither the weights nor the catalogue state one"
    return Normalisation((DEFAULT_MEAN,), (DEFAULT_STD,), default)


def _before_transform_input(expected: Normalisation) -> Normalisation:
    """The normalisation of the images with which a net with transform_input gets what its weights expect.

    Raises:
        InputError: its mean or std is not in 0..1.
    """
    converted = before_transform_input(expected)
    if min(converted.mean) < 0 or max(converted.mean) > 1 or max(converted.std) > 1:
        raise InputError(
            f"model.kwargs.transform_input: the weights expect mean {list(expected.mean)} and std {list(expected.std)}"
            f" ({expected.origin}), for which mean must be {list(converted.mean)} and std {list(converted.std)} before"
            " transform_input, and these are not in 0..1; set transform_input to false"
        )
    return replace(converted, origin=f"{expected.origin}, converted for transform_input")
