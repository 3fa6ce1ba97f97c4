"""The summary of an evaluation: its headline numbers, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.counted import counted


def evaluation_summary(split: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The headline numbers: one accuracy with chance and majority rate, and retrieval with its chance level."""
    shown = (
        "accuracy/top1",
        "accuracy/chance",
        "accuracy/majority",
        "zero_shot/top1",
        "zero_shot/chance",
        "zero_shot/majority",
        "retrieval/image_retrieval_recall@1",
        "retrieval/image_retrieval_chance@1",
        "retrieval/text_retrieval_recall@1",
        "retrieval/text_retrieval_chance@1",
    )
    measured = {name: metrics[name] for name in shown if name in metrics}
    words = evaluation_headline(measured)
    count = metrics.get("accuracy/samples", metrics.get("zero_shot/samples"))
    if count is not None:
        words += f" on {counted(int(count), 'image' if split == 'all' else f'{split} image')}"
    return {"split": split, **measured, "headline": words}


def evaluation_headline(summary: Mapping[str, Any]) -> str:
    """The headline numbers in one line: accuracies with chance and majority rate, the recall with its chance level."""
    parts = []
    for name, kind in (("accuracy", "top-1"), ("zero_shot", "zero-shot top-1")):
        top = summary.get(f"{name}/top1")
        if top is not None:
            floors = [
                f"{floor} {summary[f'{name}/{floor}']:.1%}"
                for floor in ("chance", "majority")
                if f"{name}/{floor}" in summary
            ]
            parts.append(f"{kind} {top:.1%}" + (f" ({', '.join(floors)})" if floors else ""))
    recall = summary.get("retrieval/image_retrieval_recall@1")
    if recall is not None:
        chance = summary.get("retrieval/image_retrieval_chance@1")
        parts.append(f"R@1 {recall:.1%}" + (f" (chance {chance:.1%})" if chance is not None else ""))
    return ", ".join(parts)
