"""Checks before a run starts: the store, named artifacts, the source, model names, the machine.

Nothing has been started or changed when a check fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

from model_defs import list_models
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.errors import InputError, UnknownNameError, WorkError
from pipeline.sharding.mixture.stage import check_names
from pipeline.sharding.stage import check_sharding

if TYPE_CHECKING:
    from flows.parameters import TeacherParameters

_LEAST_FREE = 64 << 20  # bytes


def open_store() -> ArtifactStore:
    """The store at TUTELAGE_STORE; default: .tutelage/ in the working directory."""
    return ArtifactStore.open()


def check_ready(parameters: Config, store: ArtifactStore) -> None:
    """Checks that a run with these parameters can start here.

    Raises:
        InputError: it cannot start.
    """
    from flows.parameters import ColumnsParameters, DataParameters, ShardsParameters, TeacherParameters

    store.storage.check_writable()
    _check_room(store)
    _check_tracking(parameters)
    _check_references(parameters, store)
    for path, config in configs_in(parameters):
        _check_model(path, config)
        if not _is_given(path, parameters):
            _check_weights(path, config, store)
        _check_workers(path, config)
        _check_runner(path, config)
    if isinstance(parameters, TeacherParameters) and not _is_given("teacher", parameters):
        _check_baseline(parameters)
    if isinstance(parameters, ColumnsParameters) and parameters.columns is not None:
        parameters.columns.check()
    if isinstance(parameters, DataParameters):
        if parameters.mixture:
            check_names(parameters.mixture)
        elif not isinstance(parameters, ShardsParameters) or parameters.shards is None:
            check_sharding(parameters.data, store)


def configs_in(config: BaseModel, path: str = "") -> Iterator[tuple[str, BaseModel]]:
    """A config and every config in it, with the path that leads there."""
    yield path, config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from configs_in(value, f"{path}.{name}" if path else name)


def _check_room(store: ArtifactStore) -> None:
    """Refuses a disk too full for the databases of Prefect and MLflow, whose servers would hang."""
    for folder in (store.local, store.work):
        existing = folder.absolute()
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        free = shutil.disk_usage(existing).free
        if free < _LEAST_FREE:
            raise InputError(
                f"{existing}: only {free / 1e6:.1f} MB free; free some space, or set TUTELAGE_STORE (of a store on S3:"
                " TUTELAGE_WORK, XDG_CACHE_HOME) to a folder on another disk"
            )


def _check_tracking(parameters: Config) -> None:
    """Refuses an MLFLOW_TRACKING_URI at which nothing answers, if the flow trains or registers."""
    from flows.parameters import ShardDatasetParameters
    from pipeline.training.tracking_uri import VARIABLE, check_tracking_uri

    if os.environ.get(VARIABLE) and not isinstance(parameters, ShardDatasetParameters):
        check_tracking_uri(os.environ[VARIABLE])


def _check_references(parameters: Config, store: ArtifactStore) -> None:
    for name, field in type(parameters).model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict) or not isinstance(extra.get("stages"), list):
            continue
        wanted = [str(stage) for stage in extra["stages"]]  # type: ignore[union-attr]
        named = getattr(parameters, name)
        references = (
            {f"{name}.{part}": reference for part, reference in named.items()}
            if isinstance(named, dict)
            else {name: named}
        )
        for where, reference in references.items():
            if reference is None:
                continue
            artifact = store.resolve(reference)
            if artifact.stage not in wanted:
                raise InputError(
                    f"{where}: {reference} is an artifact of {artifact.stage}; give one of {' or '.join(wanted)}"
                )


def _is_given(path: str, parameters: BaseModel) -> bool:
    """Whether `path` is in the config of a teacher or student that is not trained: an existing artifact replaces it."""
    given = {name for name in ("teacher_model", "tower", "model") if getattr(parameters, name, None) is not None}
    match path.partition(".")[0]:
        case "teacher":
            return bool(given)
        case "student":
            return bool(given - {"teacher_model"})
    return False


def _check_model(path: str, config: BaseModel) -> None:
    """Refuses a model that is not in the zoo, cannot be built from its config, or does not fit the distillation."""
    from pipeline.contrastive.text_backbone_config import TextBackboneConfig
    from pipeline.distillation.config import DistillationConfig
    from pipeline.training.image_model_config import ImageModelConfig
    from pipeline.training.model_config import ModelConfig

    if isinstance(config, ModelConfig) and not config.name.startswith("timm/") and config.name not in list_models():
        raise UnknownNameError(f"{path}.name: model", config.name, list_models())
    if isinstance(config, TextBackboneConfig):
        config.check(path)
    if isinstance(config, ImageModelConfig):
        try:
            config.model.check(in_chans=config.channels, img_size=config.image_size)
            if isinstance(config, DistillationConfig):
                config.check_method()
        except InputError as error:
            raise InputError(f"{path}.{error}") from None


def _check_weights(path: str, config: BaseModel, store: ArtifactStore) -> None:
    """Refuses pretrained weights that do not exist, cannot be fetched here, or state no usable normalisation."""
    if getattr(getattr(config, "model", config), "pretrained", None) is None:
        return
    from pipeline.contrastive.text_backbone_config import TextBackboneConfig
    from pipeline.import_weights.expected_normalisation import with_normalisation
    from pipeline.import_weights.model_weights import check_reachable, import_config
    from pipeline.training.image_model_config import ImageModelConfig
    from pipeline.training.model_config import ModelConfig

    try:
        if isinstance(config, ModelConfig | TextBackboneConfig):
            imported = import_config(config, store)
            if imported is not None:
                check_reachable(imported, store)
        elif isinstance(config, ImageModelConfig):
            path = f"{path}.model"
            with_normalisation(config, store)
    except InputError as error:
        raise InputError(f"{path}.pretrained: {error} (null: train from random weights)") from None
    except WorkError as error:
        raise WorkError(f"{path}.pretrained: {error}") from None


def _check_baseline(parameters: TeacherParameters) -> None:
    """Refuses a linear probe of a model that does not end in one linear layer."""
    from pipeline.training.linear_probe.config import ProbedModelConfig

    if parameters.baseline is not None and parameters.teacher.model.pretrained is not None:
        try:
            ProbedModelConfig.of(parameters.teacher, parameters.baseline).head_name()
        except InputError as error:
            raise InputError(f"baseline: {error}") from None


def _check_workers(path: str, config: BaseModel) -> None:
    """Refuses a training in which the global batch has too few rows for the workers that share it."""
    from pipeline.training.placement import RunnerConfig
    from pipeline.training.training_config import TrainingConfig

    parts = {type(part): part for _, part in config}
    training, runner = parts.get(TrainingConfig), parts.get(RunnerConfig)
    if training is not None and runner is not None:
        try:
            training.check_workers(runner.workers)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _check_runner(path: str, config: BaseModel) -> None:
    """Refuses a runner that needs more than this machine has, or than the cluster of RAY_ADDRESS if it answers."""
    from pipeline.ray_cluster import check_tasks
    from pipeline.sharding.config import ShardingConfig
    from pipeline.training.placement import RunnerConfig

    try:
        if isinstance(config, RunnerConfig) and config.runner == "ray":
            from pipeline.training.ray_train import check_machines

            check_machines(config)
        elif isinstance(config, ShardingConfig) and config.runner == "ray":
            check_tasks()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
