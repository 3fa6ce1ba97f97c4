"""What the stages of a planned run cost: time, memory and disk.

cached       the artifact is in the store: nothing
training     a short training on this machine, with the real model, data and workers
others       as the newest artifact of the same stage in the store took
else         not known, with the reason; the totals are then of the known stages
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.planned_run import PlannedStage
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.progress import Progress, silent

_TRAININGS = ("train-teacher", "distill-student", "pretrain-clip")


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage; None: not known.

    Attributes:
        basis: where the numbers are from, or why there are none.
    """

    label: str
    reference: str
    basis: str
    seconds: float | None = None
    memory_mb: int | None = None
    disk_bytes: int | None = None


class CostEstimate:
    """Estimates the stages of one plan, in the order of the flow.

    Args:
        steps: number of steps of a short training.
    """

    def __init__(self, store: ArtifactStore, *, steps: int) -> None:
        self._store = store
        self._steps = steps
        self._inference_s: dict[str, float] = {}  # teacher's STAGE/KEY -> seconds per image

    def cost(self, planned: PlannedStage, progress: Progress = silent) -> StageCost:
        """The cost of a stage."""
        if planned.cached:
            return StageCost(planned.label, planned.reference, "cached", 0.0, 0, 0)
        if planned.stage.name in _TRAININGS:
            return self._training(planned, progress)
        return self._as_before(planned)

    def _training(self, planned: PlannedStage, progress: Progress) -> StageCost:
        from pipeline.training.short_run import short_run

        config: Any = planned.config
        stage, inputs, extra_step_s = planned.stage, self._found(planned), 0.0
        missing = sorted(set(planned.inputs) - set(inputs))
        basis = f"{self._steps} steps on this machine"
        if missing == ["teacher"] and planned.inputs["teacher"] in self._inference_s:
            # The student as a classifier without a teacher, whose inference is added.
            stage, config = _as_classifier(planned.config)
            extra_step_s = self._inference_s[planned.inputs["teacher"]] * config.training.global_batch
            basis += ", and the teacher's inference"
        elif missing:
            return StageCost(planned.label, planned.reference, f"needs {', '.join(missing)}: plan again when made")
        measured = short_run(stage, config, inputs, self._store, steps=self._steps, progress=progress)
        if planned.stage.name == "train-teacher" and measured.inference_s is not None:
            self._inference_s[planned.reference] = measured.inference_s
        seconds = measured.seconds(config.training, extra_step_s)
        if config.training.patience is not None:
            basis += ", at most (patience)"
        return StageCost(planned.label, planned.reference, basis, seconds, measured.memory_mb, measured.disk_bytes())

    def _found(self, planned: PlannedStage) -> dict[str, Artifact]:
        found = {name: self._store.find(reference) for name, reference in planned.inputs.items()}
        return {name: artifact for name, artifact in found.items() if artifact is not None}

    def _as_before(self, planned: PlannedStage) -> StageCost:
        made = list(self._store.list(planned.stage.name))
        if not made:
            return StageCost(planned.label, planned.reference, "no artifact of this stage to judge by")
        last = max(made, key=lambda artifact: artifact.manifest.get("origin", {}).get("committed", 0.0))
        size = sum(file.size for file in last.files.values())
        return StageCost(
            planned.label, planned.reference, f"as {last.stage}/{last.key[:8]} took", last.seconds, None, size
        )


def _as_classifier(student: Config) -> tuple[Any, Any]:
    from pipeline.training.classification_config import ClassificationConfig
    from pipeline.training.stage import TrainTeacher

    fields = {name: getattr(student, name) for name in ClassificationConfig.model_fields}
    return TrainTeacher(), ClassificationConfig.model_validate(fields)
