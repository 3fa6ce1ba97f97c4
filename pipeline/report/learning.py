"""Sections on the trainings: loss and validation metrics over time, and the curriculum."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipeline.counted import counted
from pipeline.html.markup import Child, Markup, details, join, table, tag
from pipeline.report.figures import Series, line_figure, stack_figure
from pipeline.report.run_data import RunData, Training
from pipeline.report.wording import display_name, duration, percent

_MAX_OPENINGS = 60  # rows of the table of opened nodes
_LEVELS = {0: "whole set", 1: "groups", 2: "subgroups"}


def learning_section(run: RunData) -> Markup | None:
    """Loss and validation metrics over the training; classifiers share a figure."""
    content: list[Child] = []
    dual_encoders = [
        training
        for training in run.trainings
        if _series(training, "val/image_recall_at_1") or training.artifact.stage == "pretrain-clip"
    ]
    classifiers = [training for training in run.trainings if training not in dual_encoders]
    if classifiers:
        names = " and ".join(display_name(training.name) for training in classifiers)
        floor = [training.artifact.summary.get("val_majority") for training in classifiers]
        levels = [value for value in floor if isinstance(value, float)][:1]
        content += _figures(
            (
                f"loss-{classifiers[0].name}",
                f"Training loss of the {names}",
                _lines(classifiers, "train/loss"),
                False,
                [],
            ),
            (
                f"accuracy-{classifiers[0].name}",
                f"Accuracy of the {names} on the validation split{' (unseen concepts)' if run.has_concepts else ''}",
                _accuracy_lines(classifiers),
                True,
                levels,
            ),
        )
    for training in dual_encoders:
        recalls = [
            Series(name, points, color)
            for color, (key, name) in enumerate(
                [
                    ("val/image_recall_at_1", "text → image, R@1"),
                    ("val/text_recall_at_1", "image → text, R@1"),
                    ("val/image_recall_at_5", "text → image, R@5"),
                    ("val/text_recall_at_5", "image → text, R@5"),
                ]
            )
            if (points := _series(training, key))
        ]
        content += _figures(
            (
                f"loss-{training.name}",
                f"Contrastive loss of the {display_name(training.name)}",
                _lines([training], "train/loss"),
                False,
                [],
            ),
            (
                f"recall-{training.name}",
                f"Retrieval of the {display_name(training.name)} on the validation split",
                recalls,
                True,
                [],
            ),
        )
    if not content:
        return None
    rows_of_trainings = [_training_row(training) for training in run.trainings if training.statistics]
    head = ["model", "parameters", "steps", "training", "images/s", "device", "workers"]
    return join(
        tag("div", content, class_="figures"),
        table(head, rows_of_trainings, numeric=frozenset({1, 2, 3, 4, 6})) if rows_of_trainings else None,
        *(
            tag(
                "p", tag("strong", display_name(training.name)), f" {training.statistics['bottleneck']}.", class_="note"
            )
            for training in run.trainings
            if "bottleneck" in training.statistics
        ),
    )


def curriculum_section(run: RunData) -> Markup | None:
    """The levels that the curriculum sampled over time, and the accuracy at each."""
    content: list[Child] = []
    for training in run.trainings:
        lines = training.curriculum
        if not lines:
            continue
        root = run.ontology[0]["path"] if run.ontology else next(iter(lines[0]["P"]), "")
        depths = {path: 0 if path == root else path.count("/") + 1 for line in lines for path in line["P"]}
        levels = sorted(set(depths.values()))
        level_names = [_LEVELS.get(level, f"level {level}") for level in levels]
        steps = [float(line["step"]) for line in lines]
        mass = [
            [sum(p for path, p in line["P"].items() if depths[path] == level) for line in lines] for level in levels
        ]
        accuracy = []
        for color, (level, name) in enumerate(zip(levels, level_names, strict=True)):
            points = [
                (float(line["step"]), float(np.mean(accuracies)))
                for line in lines
                if (accuracies := [a for path, a in line["accuracy"].items() if depths.get(path) == level])
            ]
            if points:
                accuracy.append(Series(name, points, color))
        threshold = training.artifact.config.get("policy", {}).get("threshold")
        drawn_levels = [float(level) for level in (lines[-1].get("chance"), threshold) if level is not None]
        end = max(steps[-1], float(training.statistics.get("steps", 0)))
        bounds = [0.0, *steps, end]
        padded = [[1.0 if level == levels[0] else 0.0, *row, row[-1]] for level, row in zip(levels, mass, strict=True)]
        figures = join(
            tag(
                "figure",
                stack_figure(
                    f"mass-{training.name}",
                    "Probability of each level",
                    bounds,
                    list(zip(level_names, padded, strict=True)),
                    x_label="step",
                ),
                tag("figcaption", "Level of the ontology that the pairs of a batch are drawn from."),
            ),
            tag(
                "figure",
                line_figure(
                    f"frontier-{training.name}",
                    "Accuracy of the frontier",
                    accuracy,
                    x_label="step",
                    share=True,
                    levels=drawn_levels,
                ),
                tag(
                    "figcaption",
                    "Accuracy on held-out pairs of the frontier's nodes, mean of each level; "
                    "dashed: chance, and above it the threshold at which a node opens.",
                ),
            ),
        )
        opened = _openings(lines, root)
        rows: list[list[Child]] = [[f"{step:,}", path, percent(p)] for step, path, p in opened[:_MAX_OPENINGS]]
        last = lines[-1]
        content += [
            tag(
                "p",
                f"{counted(len(lines), 'refresh', 'refreshes')}; the final frontier has "
                f"{len(last['frontier']):,} of {counted(max(len(run.ontology), len(depths)), 'node')}.",
                class_="lead",
            ),
            tag("div", figures, class_="figures"),
            details(
                f"When nodes were opened: {len(opened)}"
                + (f", the first {_MAX_OPENINGS} of them" if len(opened) > _MAX_OPENINGS else ""),
                table(["step", "node", "probability then"], rows, numeric=frozenset({0, 2})),
            )
            if rows
            else None,
            _frontier(lines),
        ]
    if not content:
        return None
    return join(*content)


# The figures of (key, title, series, share, levels), the arguments of `line_figure`.
def _figures(*figures: tuple[str, str, list[Series], bool, list[float]]) -> list[Child]:
    return [
        tag(
            "figure",
            line_figure(key, title, series, x_label="epoch", share=share, levels=levels),
            tag("figcaption", title + "."),
        )
        for key, title, series, share, levels in figures
        # One point is no line: a short training has one, and the stage's headline says its value.
        if any(len(line.points) > 1 for line in series)
    ]


def _lines(trainings: list[Training], key: str) -> list[Series]:
    return [
        Series(display_name(training.name), points, color)
        for color, training in enumerate(trainings)
        if (points := _series(training, key))
    ]


def _accuracy_lines(classifiers: list[Training]) -> list[Series]:
    """The accuracy of what is exported, and with a moving average (EMA) also that of the other weights."""
    others = [
        (f"{display_name(training.name)}, {words} weights", points)
        for training in classifiers
        for key, words in (("val/accuracy_raw", "raw"), ("val/accuracy_ema", "EMA"))
        if (points := _series(training, key))
    ]
    exported = _lines(classifiers, "val/accuracy")
    return [*exported, *(Series(name, points, len(classifiers) + n) for n, (name, points) in enumerate(others))]


def _series(training: Training, key: str) -> list[tuple[float, float]]:
    return [
        (float(row.get("epoch", row["step"])), float(row[key])) for row in training.rows if row.get(key) is not None
    ]


def _training_row(training: Training) -> list[Child]:
    statistics: dict[str, Any] = training.statistics
    return [
        tag("strong", display_name(training.name)),
        f"{statistics.get('parameters', 0):,}",
        f"{statistics.get('steps', 0):,}",
        duration(float(statistics.get("seconds", 0.0))),
        f"{statistics.get('images_per_s', 0):,.0f}",
        str(statistics.get("device", "")),
        str(statistics.get("world", 1)),
    ]


def _openings(lines: list[dict[str, Any]], root: str) -> list[tuple[int, str, float]]:
    """(step, node, its probability at that step) for each time a node entered the frontier."""
    known = {root}
    openings = []
    for line in lines:
        openings += [(int(line["step"]), path, float(p)) for path, p in line["P"].items() if path not in known]
        known = set(line["P"])
    return openings


def _frontier(lines: list[dict[str, Any]]) -> Markup:
    """The nodes of the final frontier: probability, accuracy when last measured, pairs drawn so far."""
    accuracy: dict[str, float] = {}
    hits: Counter[str] = Counter()
    for line in lines:
        accuracy.update(line["accuracy"])
        hits.update(line.get("hits", {}))
    nodes = sorted(lines[-1]["P"].items(), key=lambda item: (-item[1], item[0]))
    rows: list[list[Child]] = [
        [path, percent(p), percent(accuracy[path]) if path in accuracy else "not yet", f"{hits[path]:,}"]
        for path, p in nodes
    ]
    head = ["node", "probability", "accuracy", "pairs drawn"]
    return details("Final sampling distribution", table(head, rows, numeric=frozenset({1, 2, 3})))
