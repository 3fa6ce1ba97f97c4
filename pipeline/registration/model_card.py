"""The model card of a registered model in Markdown: architecture, use, metrics, data, licences and lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.exported_model import ExportedModel
from pipeline.html.markdown import code, link, text
from pipeline.registration.gate import Decision
from pipeline.sharding.sources.base import NOT_STATED

_LABELS_SHOWN = 60

# Metric, its baselines, and its name in words; metrics that the evaluation lacks are not shown.
_ROWS = (
    ("accuracy/top1", ("accuracy/chance", "accuracy/majority"), "top-1 accuracy"),
    ("accuracy/top5", (), "top-5 accuracy"),
    ("accuracy/top1_seen_concepts", (), "top-1 accuracy, concepts seen in training"),
    ("accuracy/top1_unseen_concepts", (), "top-1 accuracy, concepts never seen"),
    ("accuracy/balanced", ("accuracy/chance",), "balanced accuracy"),
    ("zero_shot/top1", ("zero_shot/chance", "zero_shot/majority"), "zero-shot top-1 accuracy"),
    ("zero_shot/top5", (), "zero-shot top-5 accuracy"),
    *(
        (
            f"retrieval/{direction}_retrieval_recall@{k}",
            (f"retrieval/{direction}_retrieval_chance@{k}",),
            f"{words}, recall@{k}",
        )
        for direction, words in (("image", "text finds its image"), ("text", "image finds its text"))
        for k in (1, 5, 10)
    ),
)


def model_card(
    name: str,
    exported: ExportedModel,
    *,
    model_uri: str,
    split: str,
    metrics: Mapping[str, float],
    data: Mapping[str, Any],
    lineage: Mapping[str, str],
    decision: Decision | None = None,
) -> str:
    """The card.

    Args:
        model_uri: the URI that loads this version, models:/NAME@ALIAS or models:/NAME/VERSION.
        split: the split on which `metrics` were measured.
        data: the data card of the shards.
        lineage: the origins of the model, name -> artifact, digest or commit.
        decision: of the gate; None before it has decided.
    """
    size = exported.preprocessing.image_size
    dual = exported.kind == "dual-encoder"
    what = "Dual encoder: ranks texts for an image" if dual else f"Classifier of {len(exported.labels)} labels"
    colours = "grey" if exported.preprocessing.channels == 1 else "RGB"
    call = 'predict(images, params={"prompts": ["a red heart", ...]})' if dual else "predict(images)"
    return "\n".join(
        [
            f"# {text(name)}",
            "",
            f"{what}; architecture {code(exported.architecture)}, {size} x {size} {colours} images."
            f" It normalises pixels by {exported.preprocessing.normalisation} itself.",
            "",
            "```python",
            f'model = mlflow.pyfunc.load_model("{model_uri}")',
            f"model.{call}  # images: a list of encoded JPEG, PNG, WebP or GIF bytes",
            "```",
            "",
            f"## Measured on the {split} split",
            "",
            *_metric_rows(metrics),
            "",
            *_gate_rows(decision),
            "## Data",
            "",
            *_data_rows(data),
            "",
            "## Licences of the data",
            "",
            *licence_rows(data.get("credits", ())),
            "",
            "## Labels",
            "",
            ", ".join(map(text, exported.labels[:_LABELS_SHOWN]))
            + (", ..." if len(exported.labels) > _LABELS_SHOWN else ""),
            "",
            "## Lineage",
            "",
            *(f"- {text(key)}: {code(value)}" for key, value in lineage.items()),
            "",
        ]
    )


def licences(data: Mapping[str, Any]) -> list[str]:
    """The licences of a data card, each once, in its order."""
    return list(dict.fromkeys(str(credit["licence"]) for credit in data.get("credits", ())))


def _metric_rows(metrics: Mapping[str, float]) -> list[str]:
    rows = ["| measure | value | without a model |", "|---|---|---|"]
    for key, floors, words in _ROWS:
        if key in metrics:
            baselines = ", ".join(
                f"{floor.rpartition('/')[2].split('_')[-1].partition('@')[0]} {metrics[floor]:.4f}"
                for floor in floors
                if floor in metrics
            )
            rows.append(f"| {words} | {metrics[key]:.4f} | {baselines} |")
    return rows


def _gate_rows(decision: Decision | None) -> list[str]:
    if decision is None:
        return []
    verdict = "Promoted to champion" if decision.promote else "Not promoted"
    return ["## Gate", "", f"{verdict}: {text(decision.reason)}.", ""]


def _data_rows(data: Mapping[str, Any]) -> list[str]:
    splits = ", ".join(f"{count} {split}" for split, count in data.get("splits", {}).items())
    rows = [f"{text(data.get('title', 'Images'))}: {data.get('samples', 'unknown number of')} samples ({splits})."]
    return rows + [f"- {text(entry['source'])}: {entry['samples']}" for entry in data.get("per_source", ())]


def licence_rows(credits: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each credit, without what its source does not state."""
    rows = []
    for credit in credits:
        author, licence = (credit[name] if credit[name] != NOT_STATED else "" for name in ("author", "licence"))
        if author or licence:
            by = f" by {text(author)}" if author else ""
            where = f" ({link(credit['url'])})" if credit["url"] else ""
            rows.append(f"- {text(credit['work'])}{by}: {text(licence) if licence else 'licence not stated'}{where}")
    return rows or ["Not stated by the source."]
