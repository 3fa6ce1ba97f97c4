"""An evaluation on a GPU gives the answers of one on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.evaluation import stage
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.stage import run_stage

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("without_tf32")]

BuildModel = Callable[..., Artifact]


@pytest.mark.parametrize("kind", ["classifier", "dual-encoder"])
def test_a_gpu_answers_as_a_cpu_does(
    kind: str,
    shapes_store: ArtifactStore,
    shapes: Artifact,
    build_classifier: BuildModel,
    dual_encoder: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = {"shards": shapes, "model": build_classifier() if kind == "classifier" else dual_encoder}
    assert stage._device().type == "cuda"
    runs = []
    for device, examples in (("cuda", 3), ("cpu", 4)):  # examples differ, so that the second is no cache hit
        monkeypatch.setattr(stage, "_device", lambda device=device: torch.device(device))
        runs.append(run_stage(EvaluateModel(), EvaluationConfig(kept_examples=examples), inputs, store=shapes_store))
    tables = [pq.read_table(run.path("predictions.parquet")).to_pydict() for run in runs]
    assert list(tables[0]) == list(tables[1])
    for name, values in tables[0].items():
        if isinstance(values[0], float):
            assert values == pytest.approx(tables[1][name], rel=1e-3, abs=1e-4, nan_ok=True), name
        else:
            assert values == tables[1][name], name
    metrics: list[dict[str, Any]] = [json.loads(run.read("metrics.json")) for run in runs]
    numbers = [{k: v for k, v in found.items() if isinstance(v, float)} for found in metrics]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-3)
