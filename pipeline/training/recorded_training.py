"""RecordedTraining: what the store has of a training, finished or not, from which a step can be run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config, committed_config, parse_config
from pipeline.counted import counted
from pipeline.errors import InputError, UnknownNameError
from pipeline.stage import unfinished_names, unfinished_request
from pipeline.training.bad_batch import FOLDER
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.logged_rows import entry_interval
from pipeline.training.out_of_memory import recorded_accumulation
from pipeline.training.placement import RunnerConfig
from pipeline.training.task import TrainingRecipe


class TrainingStage(Protocol):
    """A stage that trains."""

    name: ClassVar[str]
    version: ClassVar[int]

    def recipe(self, config: Any, inputs: Mapping[str, str], store_url: str) -> TrainingRecipe:
        """The recipe from the inputs' STAGE/KEY by name."""


@dataclass(frozen=True)
class RecordedTraining:
    """A training that was run, with the recipe and the runner by which it can be run again.

    Attributes:
        name: STAGE/KEY.
        rows: the lines of metrics.jsonl; of an unfinished training, those in its newest checkpoint.
        steps: the number of steps done; None of an unfinished training.
        accumulation: the number of micro-batches, which may have been raised.
        device: the device of a finished training, as training.json names it.
        checkpoints: of an unfinished training; those of a finished one are removed.
        saved: the folder of saved batches in the storage.
    """

    name: str
    recipe: TrainingRecipe
    runner: RunnerConfig
    rows: list[dict[str, Any]]
    steps: int | None
    accumulation: int
    device: str | None
    checkpoints: Checkpoints
    saved: str

    def start(self, step: int) -> int:
        """The step of the newest checkpoint at or before `step`; 0 without one."""
        return next((done for done in self.checkpoints.steps() if done <= step), 0)

    def log_every_steps(self) -> int:
        return entry_interval(self.rows) or self.recipe.training.log_every_steps

    def check(self, step: int) -> None:
        """Raises InputError if a finished training has no such step."""
        if self.steps is not None and step >= self.steps:
            raise InputError(
                f"{self.name}: has {counted(self.steps, 'step')}, numbered from 0 to {self.steps - 1:,}; "
                f"there is no step {step:,}"
            )


def recorded_training(
    store: ArtifactStore, reference: str, stages: Mapping[str, tuple[TrainingStage, type[Config]]]
) -> RecordedTraining:
    """The training that STAGE/KEY names; the start of the key is enough.

    Args:
        stages: by name, each with its config class.
    Raises:
        InputError: there is no such training, or another version of its stage made it.
    """
    committed, unfinished = set(store.names()), unfinished_names(store)
    stage_name, _, start = reference.removeprefix(f"{store.storage.url}/artifacts/").strip("/").partition("/")
    known = sorted({*committed, *unfinished})
    names = [name for name in known if start and name.startswith(f"{stage_name}/{start}")]
    if len(names) > 1:
        raise InputError(f"{reference}: names {len(names)} artifacts; give more of the key")
    if not names:
        raise UnknownNameError("training", reference, [name for name in known if name.split("/")[0] in stages])
    if stage_name not in stages:
        raise InputError(f"{names[0]}: is no training; name an artifact of {', '.join(stages)}")
    stage, config_type = stages[stage_name]
    if names[0] in committed:
        return _finished(store.get(names[0]), stage, config_type)
    return _unfinished(store, names[0], stage, config_type)


def _finished(artifact: Artifact, stage: TrainingStage, config_type: type[Config]) -> RecordedTraining:
    version = artifact.manifest.get("origin", {}).get("stage_version", stage.version)
    if version != stage.version:
        raise InputError(
            f"{artifact.name}: was trained by version {version} of {stage.name}, which differs from version "
            f"{stage.version} of this Tutelage ({artifact.manifest['origin'].get('tutelage', 'unknown')} has it)"
        )
    config = committed_config(config_type, artifact.config, artifact.name)
    run_info = json.loads(artifact.read("training.json"))
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").splitlines()]
    world, device = run_info["world"], run_info["device"]
    # One worker computes the same bits in this process, which needs no Ray.
    runner = RunnerConfig(
        runner="process" if world == 1 else "ray",
        workers=world,
        cpus_per_worker=run_info.get("threads"),
        use_gpu="no" if device == "cpu" else "auto",
        tracking=False,
    )
    recipe = stage.recipe(config, artifact.manifest["inputs"], artifact.storage.url)
    return RecordedTraining(
        artifact.name,
        recipe,
        runner,
        rows,
        run_info["steps"],
        run_info.get("accumulation", recipe.training.accumulation),
        device,
        _checkpoints(artifact.storage, artifact.name),
        f"artifacts/{artifact.name}/{artifact.manifest['root']}{FOLDER}",
    )


def _unfinished(store: ArtifactStore, name: str, stage: TrainingStage, config_type: type[Config]) -> RecordedTraining:
    values, inputs = unfinished_request(store, name)
    config = parse_config(config_type, values, name)
    checkpoints = _checkpoints(store.storage, name)
    newest = checkpoints.newest()
    recipe = stage.recipe(config, inputs, store.storage.url)
    return RecordedTraining(
        name,
        recipe,
        config.runner,  # type: ignore[attr-defined]
        newest.notes["rows"] if newest is not None else [],
        None,
        recorded_accumulation(recipe.training, checkpoints).accumulation,
        None,
        checkpoints,
        f"{checkpoints.prefix}/{FOLDER}",
    )


def _checkpoints(storage: Any, name: str) -> Checkpoints:
    return Checkpoints(storage, f"work/{name}/scratch/checkpoints")
