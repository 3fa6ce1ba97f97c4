"""A comparison as one self-contained page: the result, the measures, the settings, and the pictures that differ."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.counted import counted
from pipeline.html.document import document
from pipeline.html.markup import Child, Markup, join, table, tag
from pipeline.report.comparison_rows import Costs, data_sentence, measure_rows
from pipeline.report.config_differences import ConfigDifference
from pipeline.report.gallery import Gallery
from pipeline.report.paired_evaluations import Comparison, DifferingSample

_PICTURES = 60  # at most, in each group
_GROUPS = (("only_b", "Only B is right"), ("only_a", "Only A is right"), ("both_wrong", "Both wrong, differently"))


def comparison_page(
    comparison: Comparison, arguments: tuple[str, str], configs: Sequence[ConfigDifference], costs: Costs | None
) -> str:
    """The HTML document.

    Args:
        arguments: A and B as the user named them.
        costs: of A and B, from `image_cost`; None: not known.
    """
    a, b = arguments
    models = tag(
        "dl",
        *[
            join(
                tag("dt", letter), tag("dd", tag("code", argument), " ", tag("span", evaluation.model, class_="quiet"))
            )
            for letter, argument, evaluation in zip("AB", arguments, (comparison.a, comparison.b), strict=True)
        ],
    )
    sentences = [tag("p", tag("strong", f"{sentence}.")) for sentence in comparison.sentences()]
    on_data = data_sentence(comparison)
    data = tag("p", f"{on_data[:1].upper()}{on_data[1:]}.", class_="lead")
    evaluations = f"Evaluations: {comparison.a.artifact.name} and {comparison.b.artifact.name}."
    return document(
        f"{a} and {b}",
        kind="comparison",
        heading="A and B compared",
        introduction=[models, *sentences, data],
        sections=[
            ("measures", "Measures", _measures(comparison, costs)),
            ("pictures", "Images on which they differ", _pictures(comparison)),
            ("settings", "Settings that differ", _settings(configs)),
        ],
        footer=evaluations,
        css="header.top dl { margin-bottom: 16px; }",
    )


def _measures(comparison: Comparison, costs: Costs | None) -> Markup:
    rows: list[list[Child]] = [
        [row.name, _with_interval(row.a, row.a_interval), _with_interval(row.b, row.b_interval), row.difference]
        for row in measure_rows(comparison, costs)
    ]
    test = comparison.accuracy_test
    note = None
    if test is not None:
        note = tag(
            "p",
            "Below each value: its own 95% interval, Wilson's for accuracies and recalls (balanced accuracy: with "
            "the effective number of images), else by the bootstrap. A measure that is the same in every resample of "
            "these images has none. For the difference, see the sentence above. It uses McNemar's exact test on the "
            f"same images: only B is right on {test.only_first:,}, only A on {test.only_second:,}.",
            class_="note",
        )
    return join(table(["", "A", "B", "B − A"], rows, numeric=frozenset({1, 2, 3})), note)


def _with_interval(value: str, interval: str) -> Markup:
    return join(value, tag("div", interval, class_="quiet") if interval else None)


def _settings(configs: Sequence[ConfigDifference]) -> Markup | None:
    if not configs:
        return None
    rows: list[list[Child]] = [[tag("code", setting.key), setting.a, setting.b] for setting in configs]
    return table(["setting", "A", "B"], rows)


def _pictures(comparison: Comparison) -> Markup | None:
    differing = comparison.differing()
    if not differing:
        return None
    gallery = Gallery(comparison.a.shards)
    groups: list[Child] = []
    for group, heading in _GROUPS:
        members = [sample for sample in differing if sample.group == group]
        if not members:
            continue
        shown = members[:_PICTURES]
        names = comparison.a.names(sample.id for sample in shown)
        count = counted(len(members), "image")
        first = f", the {len(shown)} most confident mistakes" if len(shown) < len(members) else ""
        groups += [
            tag("h3", f"{heading}: {count}{first}"),
            tag("div", [_tile(gallery, sample, names[sample.id]) for sample in shown], class_="tiles"),
        ]
    return join(*groups)


def _tile(gallery: Gallery, sample: DifferingSample, name: str) -> Markup:
    return tag(
        "div",
        gallery.thumb(sample.id, f"{name}: {sample.label}"),
        tag("div", name),
        tag("div", tag("span", "true ", class_="quiet"), sample.label),
        _answer("A", sample.a, sample.a_score, sample.a == sample.label),
        _answer("B", sample.b, sample.b_score, sample.b == sample.label),
        class_="tile",
    )


def _answer(letter: str, answer: str, score: float, right: bool) -> Markup:
    return tag(
        "div",
        tag("span", f"{letter} ", class_="quiet"),
        tag("span", answer, class_="true" if right else "false"),
        tag("span", f" {score:.0%}", class_="quiet"),
    )
