"""The stage evaluate: a classifier or dual encoder and shards -> metrics and predictions on one split.

Images are preprocessed as the exported model says, without augmentation, and evaluated in the order of their
ids, so two models evaluated on the same split can be compared sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.evaluation.breakdown import SEEN, UNSEEN, accuracy_breakdown, subsets_of, unseen_concepts
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.dual_encoder import CaptionPool, measure_retrieval, retrieval_examples
from pipeline.evaluation.label_mapping import LabelMapping, refuse_unknown
from pipeline.evaluation.metrics import balanced_accuracy, confusion_matrix, expected_calibration_error, macro_f1
from pipeline.evaluation.predictions import Predictions, worst_mistakes
from pipeline.evaluation.summary import evaluation_summary
from pipeline.evaluation.zero_shot import class_embeddings, zero_shot_scores
from pipeline.exported_model import ExportedModel
from pipeline.json_file import write_json
from pipeline.loading.batch import Batch
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.micro_batches import in_micro_batches
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import open_columns
from pipeline.stage import Workspace

_TEXTS_AT_ONCE = 256
_LABELS_IN_SUMMARY = 20


@dataclass(frozen=True)
class _Results:
    """The results of an evaluation: metrics, one row of predictions per sample, and small JSON files."""

    metrics: dict[str, float]
    predictions: pa.Table
    json_files: dict[str, Any]
    confusion: NDArray[np.int64] | None = None


class EvaluateModel:
    """shards + model -> metrics.json, predictions.parquet, confusion.npy, mistakes.json, retrieval_examples.json."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2

    def run(self, config: EvaluationConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Evaluates `inputs["model"]` on a split of `inputs["shards"]`; the summary has the headline numbers.

        The labels of the shards are matched with a classifier's by name; the numbers of classes in the results are the
        classifier's, and labels.json names them if the shards have other labels or another order.
        `inputs["columns"]`, if given, has the captions that `captions_from` names.
        """
        index = SampleIndex.open(inputs["shards"])
        exported = ExportedModel.open(inputs["model"])
        if exported.kind != "classifier":  # A classifier reads no captions.
            index, _ = open_columns(inputs.get("columns"), index, captions_from=config.captions_from)
        rows = index.rows(None if config.split == "all" else config.split)
        classifier = exported.kind == "classifier"
        mapping = LabelMapping.by_name(exported.labels if classifier else index.label_names, index.label_names)
        left_out = mapping.unknown(index.labels[rows])
        if config.unknown_labels == "refuse":
            refuse_unknown(left_out, mapping.names, data=inputs["shards"].name, model=inputs["model"].name)
        if classifier:
            rows = rows[mapping.classes_of(index.labels[rows]) >= 0]
        if len(rows) == 0:
            where = "it" if config.split == "all" else f"its {config.split} split"
            raise InputError(f"{inputs['shards'].name}: {where} has no samples that can be evaluated")
        run = _Run(config, index, SampleReader.open(inputs["shards"]), exported, mapping, rows, work)
        with torch.inference_mode():
            results = run.classifier() if classifier else run.dual_encoder()
        write_json(work.output / "metrics.json", results.metrics, sort_keys=True, allow_nan=False)
        pq.write_table(results.predictions, work.output / "predictions.parquet", compression="zstd")
        for name, content in results.json_files.items():
            write_json(work.output / name, content, sort_keys=isinstance(content, dict), allow_nan=False)
        if results.confusion is not None:
            np.save(work.output / "confusion.npy", results.confusion)
        if not mapping.is_identity:
            write_json(work.output / "labels.json", list(mapping.names))
        summary = evaluation_summary(config.split, results.metrics)
        if left_out:
            first = dict(islice(left_out.items(), _LABELS_IN_SUMMARY))
            summary["left_out"] = {"images": sum(left_out.values()), "labels": len(left_out), "of": first}
        return summary


@dataclass(frozen=True)
class _Run:
    """One evaluation: the model on one device, over `rows` of the index."""

    config: EvaluationConfig
    index: SampleIndex
    reader: SampleReader
    exported: ExportedModel
    mapping: LabelMapping
    rows: NDArray[np.int64]
    work: Workspace

    def classifier(self) -> _Results:
        device = _device()
        model = self.exported.build().to(device).eval()
        predictions = Predictions.gather(self._outputs(model, device))
        metrics = self._accuracies("accuracy", predictions)
        names = self.mapping.names
        confusion = confusion_matrix(predictions.labels, predictions.predicted, len(names))
        metrics["accuracy/balanced"] = balanced_accuracy(confusion)
        metrics["accuracy/macro_f1"] = macro_f1(confusion)
        files = {"mistakes.json": worst_mistakes(predictions, self.index, names, self.config.kept_examples)}
        return _Results(metrics, predictions.table(self.index), files, confusion)

    def dual_encoder(self) -> _Results:
        device = _device()
        model: Any = self.exported.build().to(device).eval()
        encode_text = self._text_encoder(model, device)
        names = self.index.label_names
        templates = self.config.templates or tuple(self.exported.templates) or ("{}",)
        batches = list(self._outputs(model.encode_image, device))
        features = torch.cat([batch[2] for batch in batches])
        classes = class_embeddings(encode_text, names, templates) if names else features.new_zeros(1, 1)
        scale = model.logit_scale.exp()
        predictions = Predictions.gather(
            (ids, labels, zero_shot_scores(image, classes) * scale if names else image.new_zeros(len(ids), 1))
            for ids, labels, image in batches
        )
        metrics: dict[str, float] = {}
        files: dict[str, Any] = {}
        confusion = None
        labelled = predictions.labels >= 0
        if labelled.any():
            metrics.update(self._accuracies("zero_shot", predictions))
            files["mistakes.json"] = worst_mistakes(
                predictions, self.index, self.index.label_names, self.config.kept_examples
            )
            confusion = confusion_matrix(predictions.labels[labelled], predictions.predicted[labelled], len(names))
        text_ranks, image_ranks = self._retrieval(features, encode_text, metrics, files)
        if not metrics:
            raise InputError(f"the {self.config.split} split has neither labels nor captions: nothing to measure")
        table = predictions.table(self.index, text_rank=text_ranks, image_rank=image_ranks)
        return _Results(metrics, table, files, confusion)

    def _retrieval(
        self,
        features: Tensor,
        encode_text: Callable[[list[str]], Tensor],
        metrics: dict[str, float],
        files: dict[str, Any],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Adds the retrieval measures and examples; returns two ranks of each row, NaN without a caption.

        Returns:
            The rank of the image's best right caption, and the rank of the best right image for its first caption.
        """
        pool = CaptionPool.collect(self.index, self.rows, only_first=self.config.captions == "first")
        text_ranks, image_ranks = np.full(len(self.rows), np.nan), np.full(len(self.rows), np.nan)
        if len(pool.ids) == 0:
            return text_ranks, image_ranks
        positions = np.searchsorted(self.rows, pool.ids)
        images = features[torch.from_numpy(positions).to(features.device)]
        texts = encode_text(pool.texts)
        result = measure_retrieval(pool, images, texts, self.config.recall_at)
        metrics.update({f"retrieval/{name}": value for name, value in result.metrics.items()})
        text_ranks[positions] = result.text_ranks
        image_ranks[positions] = result.image_ranks[pool.own_text]
        unseen = unseen_concepts(self.index, pool.ids)
        if unseen.any() and not unseen.all():
            unseen_pool, image_numbers, text_numbers = pool.restrict(unseen)
            restricted = measure_retrieval(
                unseen_pool, images[image_numbers], texts[text_numbers], self.config.recall_at
            )
            metrics.update({f"retrieval_unseen_concepts/{name}": value for name, value in restricted.metrics.items()})
        files["retrieval_examples.json"] = retrieval_examples(
            pool, self.index, images, texts, result, unseen, self.config.kept_examples, self.config.seed
        )
        return text_ranks, image_ranks

    def _accuracies(self, prefix: str, predictions: Predictions) -> dict[str, float]:
        labelled = predictions.labels >= 0
        subsets = {name: members[labelled] for name, members in subsets_of(self.index, self.rows).items()}
        if self.config.split == "all":  # With the training images among the rows, seen and unseen concepts say nothing.
            subsets = {name: members for name, members in subsets.items() if name not in (SEEN, UNSEEN)}
        ranks, labels = predictions.ranks[labelled], predictions.labels[labelled]
        train_labels = self.mapping.classes_of(self.index.labels[self.index.rows("train")])
        metrics = accuracy_breakdown(prefix, ranks, labels, train_labels, len(self.mapping.names), subsets)
        metrics[f"{prefix}/calibration_error"] = expected_calibration_error(predictions.scores[labelled], ranks == 1)
        return metrics

    def _outputs(
        self, forward: Callable[[Tensor], Tensor], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(ids, labels, `forward` of the normalised images on the device), batch by batch."""
        normalise = self.exported.preprocessing.normalise
        done = 0
        for batch in self._batches():
            labels = torch.from_numpy(self.mapping.classes_of(batch.labels.numpy()))
            images = batch.images.to(device)
            yield batch.ids, labels, in_micro_batches(lambda some: forward(normalise(some)), images)
            done += len(batch)
            self.work.progress(step=done, total=len(self.rows), note="evaluating")

    def _batches(self) -> Iterator[Batch]:
        return evaluation_batches(
            self.reader,
            self.index,
            self.rows,
            image_size=self.exported.preprocessing.image_size,
            channels=self.exported.preprocessing.channels,
            batch_size=self.config.batch_size,
            threads=self.config.threads,
        )

    def _text_encoder(self, model: Any, device: torch.device) -> Callable[[list[str]], Tensor]:
        tokenizer = self.exported.tokenizer()

        def encode(texts: list[str]) -> Tensor:
            chunks = (texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE))
            tokens = (tokenizer.encode(chunk).to(device) for chunk in chunks)
            return torch.cat([model.encode_text(chunk) for chunk in tokens])

        return encode


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
