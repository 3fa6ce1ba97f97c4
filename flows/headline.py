"""A stage's summary in a few words, for the board and the table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LIMIT = 3
_FLOORS = ("chance", "majority")


def headline(stage: str, summary: Mapping[str, Any]) -> str:
    """The few values that say most of a stage; its own `headline` if the summary has one."""
    own = summary.get("headline")
    if isinstance(own, str) and own:
        return own
    special = _SPECIAL.get(stage)
    words = special(summary) if special is not None else ""
    return words or _first_values(summary)


def _shards(summary: Mapping[str, Any]) -> str:
    splits = " + ".join(f"{summary[name]:,} {name}" for name in ("train", "val", "test") if name in summary)
    words = f"{splits} images, {summary.get('labels', 0)} labels, {summary.get('unreadable', 0)} unreadable"
    if "passed_over" in summary:
        words += f", {summary['passed_over']['count']:,} passed over"
    if "new" in summary:
        changes = (f"{summary[name]:,} {name}" for name in ("new", "changed", "removed"))
        words += f"; {', '.join(changes)}"
    rare = summary.get("rare_classes", {})
    if rare:
        what = "dropped" if rare["rule"] == "drop" else "in train only"
        classes = "class" if rare["classes"] == 1 else "classes"
        words += f"; {rare['classes']:,} rare {classes} {what} ({rare['images']:,} images)"
    return "; note: ".join([words, *summary.get("notes", ())])


def _outputs(summary: Mapping[str, Any]) -> str:
    accuracy = summary.get("accuracy", 0.0)
    return f"{summary.get('classes', 0):,} outputs of {summary.get('samples', 0):,} images, accuracy {accuracy:.1%}"


def _mixture(summary: Mapping[str, Any]) -> str:
    sizes = " + ".join(f"{size:,} {name}" for name, size in summary.get("data_sets", {}).items())
    left_out = f", {summary['left_out']:,} left out" if summary.get("left_out") else ""
    return f"{sizes}, {summary.get('labels', 0)} labels{left_out}"


def _ontology(summary: Mapping[str, Any]) -> str:
    return f"{summary.get('nodes', 0)} concepts, {summary.get('training_pairs', 0):,} training pairs"


def _columns(summary: Mapping[str, Any]) -> str:
    missing = sum(summary.get("missing", {}).values())
    return f"{summary.get('columns', 0)} columns for {summary.get('samples', 0):,} samples, {missing:,} values missing"


def _evaluation(summary: Mapping[str, Any]) -> str:
    """An accuracy never stands without its floors, nor a recall without its chance."""
    parts = []
    for name, kind in (("accuracy", "top-1"), ("zero_shot", "zero-shot top-1")):
        top = summary.get(f"{name}/top1")
        if top is not None:
            floors = [f"{floor} {summary[f'{name}/{floor}']:.1%}" for floor in _FLOORS if f"{name}/{floor}" in summary]
            parts.append(f"{kind} {top:.1%}" + (f" ({', '.join(floors)})" if floors else ""))
    recall = summary.get("retrieval/image_retrieval_recall@1")
    if recall is not None:
        chance = summary.get("retrieval/image_retrieval_chance@1")
        parts.append(f"R@1 {recall:.1%}" + (f" (chance {chance:.1%})" if chance is not None else ""))
    return ", ".join(parts)


def _training(summary: Mapping[str, Any]) -> str:
    parts = []
    if "val_accuracy" in summary:
        parts.append(f"val accuracy {summary['val_accuracy']:.1%}")
    elif "train_loss" in summary:
        parts.append(f"loss {summary['train_loss']:.3f}")
    if "images_per_s" in summary:
        parts.append(f"{summary['images_per_s']:,.0f} img/s")
    if "parameters" in summary:
        parts.append(f"{summary['parameters'] / 1e6:.2f}M parameters")
    if summary.get("damaged_samples"):
        parts.append(f"{summary['damaged_samples']} damaged samples left out")
    if lost := summary.get("lost_decoding_processes"):
        parts.append(f"{lost} decoding process{'' if lost == 1 else 'es'} lost and replaced")
    return ", ".join(parts)


def _registration(summary: Mapping[str, Any]) -> str:
    standing = "champion" if summary.get("champion") == summary.get("version") else "not promoted"
    return f"{summary.get('name')} version {summary.get('version')}, {standing}: {summary.get('reason')}"


def _report(summary: Mapping[str, Any]) -> str:
    return f"{summary.get('kilobytes', 0):,} kB over {summary.get('artifacts', 0)} artifacts"


_SPECIAL = {
    "shard-dataset": _shards,
    "compact-shards": _shards,
    "mix-datasets": _mixture,
    "teacher-outputs": _outputs,
    "join-columns": _columns,
    "build-ontology": _ontology,
    "train-teacher": _training,
    "distill-student": _training,
    "pretrain-clip": _training,
    "evaluate": _evaluation,
    "register-model": _registration,
    "run-report": _report,
}


def _first_values(summary: Mapping[str, Any]) -> str:
    scalars = [(name, value) for name, value in summary.items() if isinstance(value, str | int | float)]
    return ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in scalars[:_LIMIT])


def _shown(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return value
