"""Sections on the trainings: loss and validation metrics over time, and the curriculum."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipeline.html.markup import Child, Markup, details, join, table, tag
from pipeline.report.facts import Run, Training
from pipeline.report.figures import Series, line_figure, stack_figure
from pipeline.report.wording import duration, percent, spoken

_OPENINGS_SHOWN = 60
_LEVELS = {0: "whole set", 1: "groups", 2: "subgroups"}


def learning_section(run: Run) -> Markup | None:
    """Loss and validation metrics over the training; classifiers share a figure."""
    parts: list[Child] = []
    dual = [
        one for one in run.trainings if _series(one, "val/image_recall_at_1") or one.artifact.stage == "pretrain-clip"
    ]
    classifiers = [one for one in run.trainings if one not in dual]
    if classifiers:
        names = " and ".join(spoken(one.name) for one in classifiers)
        floor = [one.artifact.summary.get("val_majority") for one in classifiers]
        levels = [value for value in floor if isinstance(value, float)][:1]
        parts += _figures(
            (
                f"loss-{classifiers[0].name}",
                f"Training loss of the {names}",
                _lines(classifiers, "train/loss"),
                False,
                [],
            ),
            (
                f"accuracy-{classifiers[0].name}",
                f"Accuracy of the {names} on the validation split (unseen concepts)",
                _lines(classifiers, "val/accuracy"),
                True,
                levels,
            ),
        )
    for training in dual:
        recalls = [
            Series(told, points, color)
            for color, (key, told) in enumerate(
                [
                    ("val/image_recall_at_1", "text → image, R@1"),
                    ("val/text_recall_at_1", "image → text, R@1"),
                    ("val/image_recall_at_5", "text → image, R@5"),
                    ("val/text_recall_at_5", "image → text, R@5"),
                ]
            )
            if (points := _series(training, key))
        ]
        parts += _figures(
            (
                f"loss-{training.name}",
                f"Contrastive loss of the {spoken(training.name)}",
                _lines([training], "train/loss"),
                False,
                [],
            ),
            (
                f"recall-{training.name}",
                f"Retrieval of the {spoken(training.name)} on the validation split",
                recalls,
                True,
                [],
            ),
        )
    if not parts:
        return None
    facts = [_training_row(one) for one in run.trainings if one.facts]
    head = ["model", "parameters", "steps", "training", "images/s", "device", "workers"]
    return join(
        tag("div", parts, class_="figures"),
        table(head, facts, numeric=frozenset({1, 2, 3, 4, 6})) if facts else None,
    )


def curriculum_section(run: Run) -> Markup | None:
    """The levels that the curriculum sampled over time, and the accuracy at each."""
    parts: list[Child] = []
    for training in run.trainings:
        lines = training.curriculum
        if not lines:
            continue
        root = run.ontology[0]["path"] if run.ontology else next(iter(lines[0]["P"]), "")
        depths = {path: 0 if path == root else path.count("/") + 1 for line in lines for path in line["P"]}
        levels = sorted(set(depths.values()))
        told = [_LEVELS.get(level, f"level {level}") for level in levels]
        steps = [float(line["step"]) for line in lines]
        mass = [
            [sum(p for path, p in line["P"].items() if depths[path] == level) for line in lines] for level in levels
        ]
        accuracy = []
        for color, (level, name) in enumerate(zip(levels, told, strict=True)):
            points = [
                (float(line["step"]), float(np.mean(found)))
                for line in lines
                if (found := [a for path, a in line["accuracy"].items() if depths.get(path) == level])
            ]
            if points:
                accuracy.append(Series(name, points, color))
        threshold = training.artifact.config.get("policy", {}).get("threshold")
        levels_drawn = [float(level) for level in (lines[-1].get("chance"), threshold) if level is not None]
        end = max(steps[-1], float(training.facts.get("steps", 0)))
        bounds = [0.0, *steps, end]
        held = [[1.0 if level == levels[0] else 0.0, *row, row[-1]] for level, row in zip(levels, mass, strict=True)]
        figures = join(
            tag(
                "figure",
                stack_figure(
                    f"mass-{training.name}",
                    "Probability of each level",
                    bounds,
                    list(zip(told, held, strict=True)),
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
                    levels=levels_drawn,
                ),
                tag(
                    "figcaption",
                    "Accuracy on held-out pairs of the frontier's nodes, mean of each level; "
                    "dashed: chance, and above it the threshold at which a node opens.",
                ),
            ),
        )
        opened = _openings(lines, root)
        rows: list[list[Child]] = [[f"{step:,}", path, percent(p)] for step, path, p in opened[:_OPENINGS_SHOWN]]
        last = lines[-1]
        parts += [
            tag(
                "p",
                f"{len(lines)} refreshes; the final frontier has "
                f"{len(last['frontier']):,} of {max(len(run.ontology), len(depths)):,} nodes.",
                class_="lead",
            ),
            tag("div", figures, class_="figures"),
            details(
                f"When nodes were opened: {len(opened)}"
                + (f", the first {_OPENINGS_SHOWN} of them" if len(opened) > _OPENINGS_SHOWN else ""),
                table(["step", "node", "probability then"], rows, numeric=frozenset({0, 2})),
            )
            if rows
            else None,
            _frontier(lines),
        ]
    if not parts:
        return None
    return join(*parts)


def _figures(*wanted: tuple[str, str, list[Series], bool, list[float]]) -> list[Child]:
    return [
        tag(
            "figure",
            line_figure(key, title, series, x_label="epoch", share=share, levels=levels),
            tag("figcaption", title + "."),
        )
        for key, title, series, share, levels in wanted
        if series
    ]


def _lines(trainings: list[Training], key: str) -> list[Series]:
    return [
        Series(spoken(training.name), points, color)
        for color, training in enumerate(trainings)
        if (points := _series(training, key))
    ]


def _series(training: Training, key: str) -> list[tuple[float, float]]:
    return [
        (float(row.get("epoch", row["step"])), float(row[key])) for row in training.rows if row.get(key) is not None
    ]


def _training_row(training: Training) -> list[Child]:
    facts: dict[str, Any] = training.facts
    return [
        tag("strong", spoken(training.name)),
        f"{facts.get('parameters', 0):,}",
        f"{facts.get('steps', 0):,}",
        duration(float(facts.get("seconds", 0.0))),
        f"{facts.get('images_per_s', 0):,.0f}",
        str(facts.get("device", "")),
        str(facts.get("world", 1)),
    ]


def _openings(lines: list[dict[str, Any]], root: str) -> list[tuple[int, str, float]]:
    """(step, node, its probability at that step) for each time a node entered the frontier."""
    known = {root}
    found = []
    for line in lines:
        found += [(int(line["step"]), path, float(p)) for path, p in line["P"].items() if path not in known]
        known = set(line["P"])
    return found


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
