"""Outcomes for the gate: a model's from its evaluation, the champion's on the same samples."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow.parquet as pq

from pipeline.artifacts import Artifact
from pipeline.config import committed_config
from pipeline.errors import WorkError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.registration.gate import Outcomes
from pipeline.registration.mlflow_registry import RegisteredVersion, Registry
from pipeline.registration.model_artifact import artifact_of_version
from pipeline.stage import Workspace, run_stage


def read_metrics(evaluation: Artifact) -> dict[str, float]:
    """The metrics of an evaluation, by name."""
    metrics: dict[str, float] = json.loads(evaluation.read("metrics.json"))
    return metrics


def read_outcomes(evaluation: Artifact) -> Outcomes:
    """The outcomes of the evaluated model, sample by sample.

    For a classifier: right or wrong. For a dual encoder: the mean reciprocal rank of both directions if there
    are captions, else right or wrong at zero-shot classification.

    Raises:
        WorkError: the evaluation has no outcomes to compare.
    """
    metrics = read_metrics(evaluation)
    columns = pq.read_table(evaluation.path("predictions.parquet"))
    table = {name: columns.column(name).to_numpy() for name in columns.column_names if name != "key"}
    if "text_rank" in table:
        ranked = np.isfinite(table["text_rank"]) & np.isfinite(table["image_rank"])
        if ranked.any():
            scores = (1 / table["text_rank"][ranked] + 1 / table["image_rank"][ranked]) / 2
            k = min(int(name.rpartition("@")[2]) for name in metrics if name.startswith("retrieval/text_retrieval_re"))
            return Outcomes(
                "mean reciprocal rank of retrieval",
                table["id"][ranked],
                scores,
                f"text retrieval recall@{k}",
                metrics[f"retrieval/text_retrieval_recall@{k}"],
                metrics[f"retrieval/text_retrieval_chance@{k}"],
            )
    labelled = table["label"] >= 0
    if not labelled.any():
        raise WorkError(
            f"{evaluation.name}: has neither labelled nor captioned samples; the gate has nothing to compare"
        )
    prefix, measure = ("zero_shot", "zero-shot accuracy") if "text_rank" in table else ("accuracy", "accuracy")
    return Outcomes(
        measure,
        table["id"][labelled],
        table["correct"][labelled].astype(np.bool_),
        measure,
        metrics[f"{prefix}/top1"],
        max(metrics[f"{prefix}/chance"], metrics.get(f"{prefix}/majority", 0.0)),
    )


def champion_outcomes(
    champion: RegisteredVersion, registry: Registry, evaluation: Artifact, shards: Artifact, work: Workspace
) -> Outcomes:
    """The champion's outcomes on the samples of `evaluation`, measured in the same way.

    An artifact of the same evaluation is reused; else the champion is evaluated now, from its model artifact
    or, if that does not exist, from the registry.

    Raises:
        InputError: the champion cannot be evaluated on these shards, e.g. because it has other labels.
    """
    config = committed_config(EvaluationConfig, evaluation.config, f"config of {evaluation.name}")
    model = artifact_of_version(champion, registry, work.store)
    work.progress(note=f"measuring the champion, version {champion.version}, on the same samples")
    inputs: Mapping[str, Artifact] = {"shards": shards, "model": model}
    return read_outcomes(run_stage(EvaluateModel(), config, inputs, store=work.store, progress=work.progress))
