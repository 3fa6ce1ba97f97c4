"""The stage linear-probe: labelled shards and pretrained weights -> a classifier with a fitted last layer.

The images go through the pretrained model once, without augmentation; logistic regression on the features gives the
last layer. It takes about a minute where a training takes hours, so its accuracy is the first number of a run. A
training that begins with this layer does not start by distorting the features (LP-FT).

Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.artifacts import Artifact
from pipeline.counted import counted
from pipeline.exported_model import ExportedModel
from pipeline.json_file import write_json
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.quarantine import DamagedSampleError
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import Workspace
from pipeline.training.linear_probe.config import ProbedModelConfig
from pipeline.training.linear_probe.draw import draw_samples
from pipeline.training.linear_probe.features import FrozenFeatures
from pipeline.training.linear_probe.logistic_regression import LinearClassifier, Standardisation, fit
from pipeline.training.starting_weights import StartingWeights, starting_report, write_report

PROBE = "probe.json"  # not metrics.json, which is the file of an evaluation

# Penalties of the mean loss on standardised features, the strongest first: each search starts from the one before.
_PENALTIES = (1.0, 0.1, 0.01, 0.001, 0.0001)
# On CPUs small batches are faster: activations above 32 MB are mapped from the system and unmapped again in every layer
# (EfficientNet-Lite0 at 224 pixels, one core: 50 ms an image in batches of 4, 106 ms in batches of 32).
_BATCH = {"cpu": 4, "cuda": 256}


@dataclass(frozen=True)
class _Candidate:
    """A fitted classifier of standardised features, and its quality on the validation samples."""

    l2: float
    classifier: LinearClassifier
    accuracy: float
    loss: float


class LinearProbe:
    """Fits the last layer of a pretrained model, in this process."""

    name: ClassVar[str] = "linear-probe"
    version: ClassVar[int] = 1

    def run(self, config: ProbedModelConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Fills `work.output` with model/, probe.json and pretrained.txt.

        Args:
            inputs: "shards"; "weights", imported weights; "columns", joined columns, if `config.keep` selects by them.
        """
        started = time.monotonic()
        shards, weights = inputs["shards"], inputs["weights"]
        index, rows = config.check(shards, inputs.get("columns"))
        classes = len(index.label_names)
        head_name = config.head_name(classes)
        report = starting_report(config, weights, lambda: config.build_model(classes))
        labels = np.asarray(index.labels)[rows]
        validation = config.validation_rows(index)
        samples = draw_samples(rows, labels, validation, config.probe.max_samples, config.probe.seed)

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)  # for layers that the weights lack, e.g. the head, which is replaced below
        model = config.build_model(classes)
        StartingWeights.open(weights).load_into(model, normalisation=config.normalisation)
        frozen = FrozenFeatures(model, head_name, config.preprocessing(), device)
        ids = np.concatenate([samples.train, samples.validation])
        features, targets, left_out = _features(config, frozen, shards, index, ids, len(samples.train), work)

        size = len(samples.train) - left_out
        best, losses = _best_candidate(features[:size], targets[:size], features[size:], targets[size:], classes, work)
        scale = Standardisation.of(features[:size])
        classifier = best.classifier
        if samples.held_out:  # the penalty is chosen, so the final fit includes the held-out samples
            scale = Standardisation.of(features)
            classifier = fit(
                scale(features), targets, classes, best.l2, on_evaluation=lambda: work.progress(note="fitting")
            )
        state = model.to("cpu").state_dict()
        head = scale.folded_into(classifier)
        state |= {f"{head_name}.weight": head.weight.float().cpu(), f"{head_name}.bias": head.bias.float().cpu()}
        ExportedModel.write(
            work.output / "model",
            state,
            kind="classifier",
            architecture=config.model.name,
            kwargs=config.model_kwargs(classes),
            preprocessing=config.preprocessing(),
            labels=index.label_names,
        )
        if report is not None:
            write_report(report, work.output)
        fitted = size + len(samples.validation) * samples.held_out
        measured = {
            "val_accuracy": round(best.accuracy, 4),
            "val_samples": len(samples.validation),
            "samples": fitted,
            "features": features.shape[1],
            "l2": best.l2,
            **({"damaged": left_out} if left_out else {}),
        }
        write_json(work.output / PROBE, {**measured, "held_out": samples.held_out, "val_losses": losses})
        measured_on = counted(len(samples.validation), "held-out training image" if samples.held_out else "val image")
        fitted_on = counted(fitted, "training image")
        damaged = f"; {counted(left_out, 'damaged one')} left out" if left_out else ""
        return {
            **measured,
            "seconds": round(time.monotonic() - started, 1),
            "headline": f"{best.accuracy:.1%} on {measured_on} (linear probe on {fitted_on}{damaged})",
        }


def _features(
    config: ProbedModelConfig,
    frozen: FrozenFeatures,
    shards: Artifact,
    index: SampleIndex,
    ids: NDArray[np.int64],
    train_count: int,
    work: Workspace,
) -> tuple[Tensor, Tensor, int]:
    """Features float32 [N, D] and labels int64 [N] of samples, on the CPU, and the number of damaged samples.

    Args:
        ids: the samples, training samples first.
        train_count: number of training samples. A damaged one is left out, as in a training.
    Raises:
        DamagedSampleError: a validation sample is damaged, or more than a tenth of the training samples.
    """
    features, labels, done, left_out = [], [], 0, 0
    work.progress(step=0, total=len(ids), note="computing features")
    # The draw is sparse: with remote="parts", 8 MiB would be fetched for single images.
    reader = SampleReader.open(shards, remote="ranges")
    while done + left_out < len(ids):
        batches = evaluation_batches(
            reader,
            index,
            ids[done + left_out :],
            image_size=config.image_size,
            channels=config.channels,
            batch_size=_BATCH[frozen.device.type],
            threads=config.probe.threads,
        )
        try:
            with closing(batches):
                for batch in batches:
                    features.append(frozen(batch.images).cpu())  # many images need more memory than a GPU has
                    labels.append(batch.labels)
                    done += len(batch)
                    work.progress(step=done, total=len(ids), note="computing features")
        except DamagedSampleError as error:
            position = int(np.flatnonzero(ids == error.id)[0])
            if position >= train_count or 10 * (left_out + 1) > train_count:
                raise
            # Moved before the samples that are still to be read, so that the next round skips it.
            first = done + left_out
            ids = np.concatenate([ids[:first], ids[position : position + 1], np.delete(ids[first:], position - first)])
            left_out += 1
    return torch.cat(features), torch.cat(labels).to(torch.int64), left_out


def _best_candidate(
    features: Tensor, targets: Tensor, val_features: Tensor, val_targets: Tensor, classes: int, work: Workspace
) -> tuple[_Candidate, dict[str, float]]:
    """The best candidate, and the validation loss of every penalty.

    The best has the least cross-entropy: on few validation samples, many penalties have the same accuracy.
    """
    scale = Standardisation.of(features)
    features, val_features = scale(features), scale(val_features)
    candidates: list[_Candidate] = []
    for number, l2 in enumerate(_PENALTIES):

        def report(number: int = number) -> None:
            work.progress(step=number, total=len(_PENALTIES), note="fitting")

        start = candidates[-1].classifier if candidates else None
        classifier = fit(features, targets, classes, l2, start=start, on_evaluation=report)
        scores = classifier.scores(val_features)
        accuracy = (scores.argmax(dim=1) == val_targets).double().mean()
        candidates.append(_Candidate(l2, classifier, float(accuracy), float(F.cross_entropy(scores, val_targets))))
    best = min(candidates, key=lambda candidate: candidate.loss)
    return best, {str(candidate.l2): round(candidate.loss, 6) for candidate in candidates}
