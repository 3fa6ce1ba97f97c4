"""The evaluate stage on drawn shapes, against the same numbers worked out another way."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError, WorkError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import wilson_interval
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import Tokenizer
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage

BuildModel = Callable[..., Artifact]


def evaluate(store: ArtifactStore, shards: Artifact, model: Artifact, **config: Any) -> Artifact:
    inputs = {"shards": shards, "model": model}
    return run_stage(EvaluateModel(), EvaluationConfig(**config), inputs, store=store)


def images(shards: Artifact, exported: ExportedModel, ids: list[int]) -> torch.Tensor:
    """The model's input, decoded and normalised without Tutelage's loader."""
    reader = SampleReader.open(shards)
    pixels = [np.asarray(Image.open(io.BytesIO(reader.read(id)))) / 255.0 for id in ids]
    shape = exported.preprocessing
    normalised = (np.stack(pixels) - np.array(shape.mean)) / np.array(shape.std)
    return torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()


def test_classifier_is_measured_on_the_labelled_samples_of_the_split(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    model = build_classifier()
    artifact = evaluate(shapes_store, shapes, model, batch_size=5)
    metrics = json.loads(artifact.read("metrics.json"))
    predictions = pq.read_table(artifact.path("predictions.parquet")).to_pandas()

    index, exported = SampleIndex.open(shapes), ExportedModel.open(model)
    ids = [int(id) for id in index.rows("test") if index.labels[id] >= 0]
    with torch.no_grad():
        logits = exported.build()(images(shapes, exported, ids))
    expected = logits.argmax(dim=1).numpy()
    labels = index.labels[ids]

    assert predictions["id"].tolist() == ids == sorted(ids)
    assert predictions["key"].tolist() == [index.key(id) for id in ids]
    assert predictions["predicted"].tolist() == expected.tolist()
    assert predictions["score"].to_numpy() == pytest.approx(logits.softmax(1).max(1).values.numpy(), abs=1e-5)
    assert predictions["correct"].tolist() == (expected == labels).tolist()
    assert metrics["accuracy/samples"] == 11
    assert metrics["accuracy/top1"] == pytest.approx((expected == labels).mean())
    assert (metrics["accuracy/top1_low"], metrics["accuracy/top1_high"]) == wilson_interval(
        int((expected == labels).sum()), 11
    )
    assert metrics["accuracy/chance"] == pytest.approx(1 / 3)
    # Training shows 4 circles (red ones have no label), 6 squares, 6 triangles: always "square" is right 4 times in 11.
    assert metrics["accuracy/majority"] == pytest.approx(4 / 11)
    assert "accuracy/top5" not in metrics  # of three classes it would always be 1
    confusion = np.load(artifact.path("confusion.npy"))
    assert confusion.sum() == 11
    assert np.trace(confusion) == (expected == labels).sum()
    assert artifact.summary["accuracy/top1"] == metrics["accuracy/top1"]


def test_concepts_that_training_never_saw_are_told_apart(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    artifact = evaluate(shapes_store, shapes, build_classifier())
    metrics = json.loads(artifact.read("metrics.json"))
    predictions = pq.read_table(artifact.path("predictions.parquet")).to_pandas()
    orange = predictions["key"].str.contains("orange")
    assert metrics["accuracy/samples_unseen_concepts"] == 3
    assert metrics["accuracy/samples_seen_concepts"] == 8
    assert metrics["accuracy/top1_unseen_concepts"] == pytest.approx(predictions[orange]["correct"].mean())
    assert metrics["accuracy/top1_seen_concepts"] == pytest.approx(predictions[~orange]["correct"].mean())
    assert not any("_source/" in name for name in metrics)  # the split is by one hand

    train = json.loads(evaluate(shapes_store, shapes, build_classifier(), split="train").read("metrics.json"))
    assert {"accuracy/top1_source/flat", "accuracy/top1_source/ink"} <= set(train)
    assert "accuracy/top1_unseen_concepts" not in train  # every concept of train is in train


def test_worst_mistakes_are_the_most_confident_wrong_answers(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    artifact = evaluate(shapes_store, shapes, build_classifier(), kept_examples=3)
    predictions = pq.read_table(artifact.path("predictions.parquet")).to_pandas()
    mistakes = json.loads(artifact.read("mistakes.json"))
    wrong = predictions[~predictions["correct"]].sort_values("score", ascending=False, kind="stable")
    assert [mistake["id"] for mistake in mistakes] == wrong["id"].tolist()[:3]
    assert all(mistake["label"] != mistake["predicted"] for mistake in mistakes)


def test_dual_encoder_retrieves_with_several_right_answers(
    shapes_store: ArtifactStore, shapes: Artifact, dual_encoder: Artifact
) -> None:
    artifact = evaluate(shapes_store, shapes, dual_encoder, captions="all", recall_at=[1, 5], kept_examples=4)
    metrics = json.loads(artifact.read("metrics.json"))
    predictions = pq.read_table(artifact.path("predictions.parquet")).to_pandas()

    index, exported = SampleIndex.open(shapes), ExportedModel.open(dual_encoder)
    model: Any = exported.build()
    ids = index.rows("test").tolist()
    texts = sorted({caption for id in ids for caption in index.captions(id)})
    with torch.no_grad():
        image_features = model.encode_image(images(shapes, exported, ids))
        text_features = model.encode_text(Tokenizer().encode(texts, 12))
    scores = (image_features @ text_features.T).double().numpy()
    right = np.array([[text in index.captions(id) for text in texts] for id in ids])
    assert len(texts) == 23  # 12 concepts with 2 captions, of which two share one

    def rank(scores: np.ndarray, right: np.ndarray) -> int:
        return 1 + int((scores > scores[right].max()).sum())

    text_ranks = [rank(scores[i], right[i]) for i in range(12)]
    image_ranks = {text: rank(scores[:, t], right[:, t]) for t, text in enumerate(texts)}
    assert predictions["text_rank"].tolist() == text_ranks
    assert predictions["image_rank"].tolist() == [image_ranks[index.captions(id)[0]] for id in ids]
    assert metrics["retrieval/text_retrieval_recall@5"] == pytest.approx(np.mean(np.array(text_ranks) <= 5))
    ranks = np.array(list(image_ranks.values()))
    assert metrics["retrieval/image_retrieval_recall@1"] == pytest.approx(np.mean(ranks <= 1))
    assert metrics["retrieval/image_retrieval_median_rank"] == np.median(ranks)
    # 22 texts are right for one image of 12, "something green" for two.
    assert metrics["retrieval/image_retrieval_chance@1"] == pytest.approx((22 / 12 + 2 / 12) / 23)

    unseen = [i for i, id in enumerate(ids) if "orange" in index.key(id)]
    orange = [t for t, text in enumerate(texts) if "orange" in text]
    among = [rank(scores[i, orange], right[i, orange]) for i in unseen]
    assert metrics["retrieval_unseen_concepts/text_retrieval_recall@1"] == pytest.approx(np.mean(np.array(among) <= 1))
    assert metrics["retrieval_unseen_concepts/text_retrieval_candidates"] == 6


def test_zero_shot_uses_the_exported_templates_unless_others_are_given(
    shapes_store: ArtifactStore, shapes: Artifact, dual_encoder: Artifact
) -> None:
    own = json.loads(evaluate(shapes_store, shapes, dual_encoder).read("metrics.json"))
    artifact = evaluate(shapes_store, shapes, dual_encoder, templates=["{}"])
    predictions = pq.read_table(artifact.path("predictions.parquet")).to_pandas()
    index, exported = SampleIndex.open(shapes), ExportedModel.open(dual_encoder)
    model: Any = exported.build()
    ids = index.rows("test").tolist()
    with torch.no_grad():
        features = model.encode_image(images(shapes, exported, ids))
        expected = (features @ model.encode_text(Tokenizer().encode(list(index.label_names), 12)).T).argmax(1)
    assert predictions["predicted"].tolist() == expected.tolist()
    assert predictions[predictions["label"] < 0]["correct"].tolist() == [False]
    assert own["zero_shot/samples"] == 11  # a sample without a label counts for retrieval only
    assert own["retrieval/text_retrieval_queries"] == 12


def test_examples_show_five_answers_of_seen_and_unseen_concepts(
    shapes_store: ArtifactStore, shapes: Artifact, dual_encoder: Artifact
) -> None:
    artifact = evaluate(shapes_store, shapes, dual_encoder, kept_examples=4)
    examples = json.loads(artifact.read("retrieval_examples.json"))
    index = SampleIndex.open(shapes)
    for query in examples["text_to_images"]:
        assert len(query["answers"]) == 5
        for place, answer in enumerate(query["answers"], start=1):
            assert answer["right"] == (query["text"] in index.captions(answer["id"])[:1])
            assert not answer["right"] or place >= query["rank"]
    for query in examples["image_to_texts"]:
        assert query["unseen_concept"] == ("orange" in query["key"])
        assert [answer["right"] for answer in query["answers"]] == [
            answer["text"] == query["text"] for answer in query["answers"]
        ]
    assert sum(query["unseen_concept"] for query in examples["image_to_texts"]) == 2


def test_labels_are_matched_by_name_whatever_their_order_and_number(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    labels = ("star", "triangle", "circle", "square")
    artifact = evaluate(shapes_store, shapes, build_classifier(labels=labels))
    index = SampleIndex.open(shapes)
    assert json.loads(artifact.read("labels.json")) == list(labels)
    table = pq.read_table(artifact.path("predictions.parquet")).to_pydict()
    names = [index.label_names[index.labels[id]] for id in table["id"]]
    assert [labels[label] for label in table["label"]] == names
    right = [labels[predicted] == name for predicted, name in zip(table["predicted"], names, strict=True)]
    metrics = json.loads(artifact.read("metrics.json"))
    assert metrics["accuracy/top1"] == pytest.approx(np.mean(right))
    assert metrics["accuracy/chance"] == 1 / 4
    train = index.labels[index.rows("train")]
    most = index.label_names[np.bincount(train[train >= 0]).argmax()]
    assert metrics["accuracy/majority"] == pytest.approx(np.mean([name == most for name in names]))
    confusion = np.load(io.BytesIO(artifact.read("confusion.npy")))
    assert confusion.sum(axis=1).tolist() == [names.count(label) for label in labels]


def test_label_that_the_model_does_not_have_is_refused_by_name_or_its_images_are_left_out(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    model = build_classifier(labels=("circle", "triangel"))
    with pytest.raises(InputError) as refused:
        evaluate(shapes_store, shapes, model)
    assert "the label 'square' (4 images) is not one of the 2 labels of train-teacher/" in str(refused.value)
    assert "1 more: triangle" in str(refused.value)
    model = build_classifier(labels=("circle", "triangle"))
    with pytest.raises(InputError, match=r"the label 'square' .4 images. .*known: circle, triangle"):
        evaluate(shapes_store, shapes, model)
    artifact = evaluate(shapes_store, shapes, model, unknown_labels="leave_out")
    assert artifact.summary["left_out"] == {"images": 4, "labels": 1, "of": {"square": 4}}
    assert json.loads(artifact.read("metrics.json"))["accuracy/samples"] == 7


def test_all_splits_are_one_split_without_a_division_by_concepts(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    metrics = json.loads(evaluate(shapes_store, shapes, build_classifier(), split="all").read("metrics.json"))
    assert metrics["accuracy/samples"] == 33
    assert not any("concepts" in name for name in metrics)


def test_model_that_gives_no_numbers_fails_by_name_of_the_sample(
    shapes_store: ArtifactStore, shapes: Artifact, build_classifier: BuildModel
) -> None:
    with pytest.raises(WorkError, match=r"output for sample \d+ is not finite"):
        evaluate(shapes_store, shapes, build_classifier(ruin=True))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"templates": ["an emoji"]}, "needs exactly one {}"),
        ({"split": "dev"}, "'train', 'val', 'test' or 'all'"),
        ({"recall_at": [0]}, "at least 1"),
        ({"batchsize": 3}, "did you mean batch_size"),
    ],
)
def test_wrong_config_is_refused_in_one_line(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        parse_config(EvaluationConfig, values, "evaluation")
    assert "\n" not in str(error.value)


def test_retrieval_asks_for_the_captions_of_a_joined_column(
    shapes_store: ArtifactStore, shapes: Artifact, dual_encoder: Artifact, build_classifier: BuildModel, tmp_path: Path
) -> None:
    index = SampleIndex.open(shapes)
    lines = "".join(f"{index.key(row)},the drawing {index.key(row)}\n" for row in range(len(index)))
    (tmp_path / "new.csv").write_text(f"key,caption\n{lines}")
    config = JoinColumnsConfig(source=str(tmp_path / "new.csv")).resolved()
    columns = run_stage(JoinColumns(), config, {"shards": shapes}, store=shapes_store)
    asking = EvaluationConfig(captions_from="caption", kept_examples=24)
    inputs = {"shards": shapes, "model": dual_encoder, "columns": columns}
    artifact = run_stage(EvaluateModel(), asking, inputs, store=shapes_store)
    shown = json.loads(artifact.read("retrieval_examples.json"))["image_to_texts"]
    assert {one["text"] for one in shown} == {f"the drawing {index.key(int(row))}" for row in index.rows("test")}

    with pytest.raises(InputError, match="captions_from: caption: no columns were joined"):
        run_stage(EvaluateModel(), asking, {"shards": shapes, "model": dual_encoder}, store=shapes_store)
    # A classifier reads no captions.
    run_stage(EvaluateModel(), asking, {"shards": shapes, "model": build_classifier()}, store=shapes_store)
