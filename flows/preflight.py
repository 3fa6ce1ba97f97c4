"""What can be checked before a run starts: the store, the named artifacts, the source, the models, the machine."""

from __future__ import annotations

import os
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.errors import InputError

MODEL_STAGES = ("train-teacher", "distill-student", "pretrain-clip")


def open_store() -> ArtifactStore:
    """The store that TUTELAGE_STORE names; .tutelage/ in the working directory by default."""
    return ArtifactStore.open(os.environ.get("TUTELAGE_STORE") or ".tutelage")


def check_ready(parameters: Config, store: ArtifactStore) -> None:
    """Does nothing if a run with these parameters can start here.

    Raises:
        InputError: it cannot; nothing was changed.
    """
    store.storage.check_writable()
    _check_references(parameters, store)
    data = getattr(parameters, "data", None)
    if data is not None and getattr(parameters, "shards", None) is None:
        data.check(store)


def _check_references(parameters: Config, store: ArtifactStore) -> None:
    for name, field in type(parameters).model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict) or "stages" not in extra:
            continue
        reference = getattr(parameters, name)
        if reference is None:
            continue
        artifact = store.resolve(reference)
        stages = extra["stages"]
        if isinstance(stages, list) and artifact.stage not in stages:
            wanted = " or ".join(str(stage) for stage in stages)
            raise InputError(f"{name}: {reference} is an artifact of {artifact.stage}; give one of {wanted}")
