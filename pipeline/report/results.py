"""Sections on what the models can do: accuracies with their floors, confusion, mistakes, retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.evaluation.metrics import wilson_interval
from pipeline.report.confusion import confused_pairs, confusion_figure
from pipeline.report.facts import Evaluation, Run
from pipeline.report.gallery import Gallery
from pipeline.report.html import Child, Markup, details, join, table, tag
from pipeline.report.wording import percent, spoken

_PAIRS_SHOWN = 10
_STRIP_PX, _STRIP_HEIGHT_PX = 190, 18


def accuracy_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(what, prefix, suffix) of every accuracy that was measured, the whole first."""
    rows = []
    for prefix, kind in (("accuracy", ""), ("zero_shot", "zero-shot, ")):
        start = f"{prefix}/samples"
        suffixes = [name.removeprefix(start) for name in evaluation.metrics if name.startswith(start)]
        rows += [(kind + _part(suffix), prefix, suffix) for suffix in suffixes]
    order = {"": 0, "_seen_concepts": 1, "_unseen_concepts": 2}
    return sorted(rows, key=lambda row: (row[1], order.get(row[2], 3), row[2]))


def accuracy_section(run: Run) -> Markup | None:
    """Every accuracy with its interval, and with what chance and the most frequent answer score there."""
    body: list[list[Child]] = []
    for evaluation in run.evaluations:
        metrics = evaluation.metrics
        for what, prefix, suffix in accuracy_rows(evaluation):
            for k in (1, 5):
                name = f"{prefix}/top{k}"
                if f"{name}{suffix}" not in metrics or (k == 5 and suffix):
                    continue
                floor = "" if k == 1 else f"_top{k}"
                value, low, high = (metrics[f"{name}{part}{suffix}"] for part in ("", "_low", "_high"))
                chance, majority = (metrics[f"{prefix}/{part}{floor}{suffix}"] for part in ("chance", "majority"))
                body.append(
                    [
                        tag("strong", spoken(evaluation.subject))
                        if not suffix and k == 1
                        else spoken(evaluation.subject),
                        what if k == 1 else f"{what}, among the 5 best",
                        tag("strong", percent(value)),
                        join(_strip(value, low, high, chance, majority)),
                        f"{low:.1%} – {high:.1%}",
                        percent(chance),
                        percent(majority),
                        f"{metrics[f'{prefix}/samples{suffix}']:,.0f}",
                    ]
                )
    if not body:
        return None
    head = ["model", "measured on", "right", "0 – 100%", "95% interval", "chance", "majority", "images"]
    extra = [_other_measures(evaluation) for evaluation in run.evaluations]
    return tag(
        "section",
        tag("h2", "How often they are right"),
        tag(
            "p",
            "The bar is the 95% interval (Wilson), the dot the accuracy; the thin tick is chance, the thick one the "
            "majority rate: what always answering the most frequent label of the training split scores on the same "
            "images. Unseen concepts are those of which training saw no image by any artist.",
            class_="lead",
        ),
        table(head, body, numeric=frozenset({2, 4, 5, 6, 7})),
        *[part for part in extra if part is not None],
        id="accuracy",
    )


def confusion_section(run: Run) -> Markup | None:
    """The confusion matrix of each classifier, the last one open, and its most frequent mix-ups."""
    measured = [one for one in run.evaluations if one.confusion is not None and one.confusion.sum() > 0]
    if not measured:
        return None
    parts: list[Child] = []
    # The student is what is registered; with a student the others' matrices are folded away.
    main = next((one for one in measured if one.subject == "student"), measured[0])
    for evaluation in [main, *[one for one in measured if one is not main]]:
        confusion = evaluation.confusion
        assert confusion is not None
        names = _label_names(run, len(confusion))
        figure = tag("div", confusion_figure(confusion, names), class_="scroll", tabindex=0)
        if evaluation is main:
            parts += [tag("h3", spoken(evaluation.subject).capitalize()), figure, _pairs(evaluation, names)]
        else:
            parts.append(details(f"The same for the {spoken(evaluation.subject)}", figure, _pairs(evaluation, names)))
    return tag("section", tag("h2", "What is taken for what"), *parts, id="confusion")


def mistakes_section(run: Run, gallery: Gallery, most: int) -> Markup | None:
    """The wrong answers given with most confidence, with their pictures."""
    parts: list[Child] = []
    for evaluation in run.evaluations:
        if not evaluation.mistakes:
            continue
        tiles = [
            tag(
                "div",
                gallery.thumb(mistake["id"], f"{mistake['key']}: a {mistake['label']}"),
                tag("div", tag("span", "true ", class_="quiet"), tag("span", mistake["label"], class_="true")),
                tag("div", tag("span", "said ", class_="quiet"), tag("span", mistake["predicted"], class_="false")),
                tag("div", f"{mistake['score']:.0%} sure", class_="quiet"),
                class_="tile",
            )
            for mistake in evaluation.mistakes[:most]
        ]
        grid = tag("div", tiles, class_="tiles")
        if not parts or evaluation.subject == "student":
            parts.append(join(tag("h3", spoken(evaluation.subject).capitalize()), grid))
        else:
            parts.append(details(f"Those of the {spoken(evaluation.subject)}", grid))
    if not parts:
        return None
    lead = tag("p", "Wrong answers, the most confident first.", class_="lead")
    return tag("section", tag("h2", "Worst mistakes"), lead, *parts, id="mistakes")


def retrieval_section(run: Run, gallery: Gallery, most: int) -> Markup | None:
    """Recall in both directions with chance beside it, and queries with their answers."""
    measured = [one for one in run.evaluations if any(name.startswith("retrieval/") for name in one.metrics)]
    parts: list[Child] = []
    for evaluation in measured:
        parts.append(_recall_table(evaluation))
        texts = evaluation.examples.get("text_to_images", [])[:most]
        images = evaluation.examples.get("image_to_texts", [])[:most]
        if texts:
            parts += [
                tag("h3", "Asked with a text: the five nearest pictures"),
                tag(
                    "p",
                    "Right ones are framed. Queries are a fixed random sample, good and bad as they fall.",
                    class_="note",
                ),
                tag("div", [_text_query(query, gallery) for query in texts]),
            ]
        if images:
            parts += [
                tag("h3", "Asked with a picture: the five nearest captions"),
                tag("div", [_image_query(query, gallery) for query in images]),
            ]
    if not parts:
        return None
    return tag("section", tag("h2", "Finding pictures by text, and texts by picture"), *parts, id="retrieval")


def _recall_table(evaluation: Evaluation) -> Markup:
    metrics = evaluation.metrics
    ks = sorted({int(name.rpartition("@")[2]) for name in metrics if "_recall@" in name})
    rows: list[list[Child]] = []
    for pool, told in (("retrieval", "all concepts"), ("retrieval_unseen_concepts", "unseen concepts only")):
        for direction, asked in (("image_retrieval", "text → image"), ("text_retrieval", "image → text")):
            start = f"{pool}/{direction}"
            if f"{start}_queries" not in metrics:
                continue
            queries = int(metrics[f"{start}_queries"])
            cells: list[Child] = [tag("strong", asked), told]
            for k in ks:
                value, chance = metrics[f"{start}_recall@{k}"], metrics[f"{start}_chance@{k}"]
                low, high = wilson_interval(round(value * queries), queries)
                told_range = f"95% interval {low:.1%} to {high:.1%}"
                cells.append(
                    join(
                        tag("strong", percent(value), title=told_range),
                        tag("div", f"{low:.1%} – {high:.1%}", class_="quiet"),
                        tag("div", f"chance {percent(chance)}", class_="quiet"),
                    )
                )
            cells += [
                f"{metrics[f'{start}_median_rank']:,.0f}",
                f"{metrics[f'{start}_mean_rank']:,.1f}",
                f"{queries:,}",
                f"{metrics[f'{start}_candidates']:,.0f}",
            ]
            rows.append(cells)
    head = ["", "among", *[f"recall@{k}" for k in ks], "median rank", "mean rank", "queries", "candidates"]
    return table(head, rows, numeric=frozenset(range(2, len(head))))


def _text_query(query: dict[str, Any], gallery: Gallery) -> Markup:
    answers = [
        gallery.thumb(answer["id"], f"{answer['text']} ({answer['score']:.2f})", "right" if answer["right"] else "")
        for answer in query["answers"]
    ]
    return tag("div", _asked(query["text"], query), tag("div", answers, class_="answers"), class_="query")


def _image_query(query: dict[str, Any], gallery: Gallery) -> Markup:
    answers = [
        tag("li", answer["text"], class_="right" if answer["right"] else None, title=f"cosine {answer['score']:.2f}")
        for answer in query["answers"]
    ]
    asked = tag("div", gallery.thumb(query["id"], query["text"]), _asked(query["text"], query))
    return tag("div", asked, tag("ol", answers, class_="texts"), class_="query")


def _asked(text: str, query: dict[str, Any]) -> Markup:
    seen = "unseen concept" if query["unseen_concept"] else "seen concept"
    return tag(
        "div", text, tag("span", f"{seen} · first right answer at {query['rank']:,.0f}", class_="quiet"), class_="asked"
    )


def _strip(value: float, low: float, high: float, chance: float, majority: float) -> Markup:
    """A scale from 0 to 1 with the interval, the value, chance and majority on it."""

    def x(share: float) -> str:
        return f"{4 + share * (_STRIP_PX - 8):.1f}"

    middle = _STRIP_HEIGHT_PX / 2
    told = f"{value:.1%}, interval {low:.1%} to {high:.1%}, chance {chance:.1%}, majority {majority:.1%}"
    return tag(
        "svg",
        tag("title", told),
        tag("line", x1=x(0), x2=x(1), y1=middle, y2=middle, stroke="var(--line)", stroke_width=2),
        tag("line", x1=x(chance), x2=x(chance), y1=3, y2=15, stroke="var(--muted)", stroke_width=1),
        tag("line", x1=x(majority), x2=x(majority), y1=3, y2=15, stroke="var(--muted)", stroke_width=2.5),
        tag(
            "line", x1=x(low), x2=x(high), y1=middle, y2=middle, stroke="var(--s1)", stroke_width=5, stroke_opacity=0.4
        ),
        tag("circle", cx=x(value), cy=middle, r=4, fill="var(--s1)"),
        class_="strip",
        viewBox=f"0 0 {_STRIP_PX} {_STRIP_HEIGHT_PX}",
        role="img",
        aria_label=told,
    )


def _pairs(evaluation: Evaluation, names: Sequence[str]) -> Markup | None:
    assert evaluation.confusion is not None
    pairs = confused_pairs(evaluation.confusion, _PAIRS_SHOWN)
    if not pairs:
        return None
    rows: list[list[Child]] = [
        [names[pair.true], names[pair.predicted], f"{pair.count} of {pair.of}", f"{pair.count / pair.of:.0%}"]
        for pair in pairs
    ]
    title = f"The {len(rows)} most frequent mix-ups"
    return details(title, table(["true", "answered", "images", "share"], rows, numeric=frozenset({2, 3})))


def _other_measures(evaluation: Evaluation) -> Markup | None:
    told = {
        "accuracy/balanced": "mean over classes",
        "accuracy/macro_f1": "macro F1",
        "accuracy/calibration_error": "calibration error",
        "zero_shot/calibration_error": "zero-shot calibration error",
    }
    found = [f"{words} {evaluation.metrics[name]:.1%}" for name, words in told.items() if name in evaluation.metrics]
    if not found:
        return None
    return tag("p", tag("strong", spoken(evaluation.subject)), ": " + ", ".join(found) + ".", class_="note")


def _part(suffix: str) -> str:
    if suffix.startswith("_source/"):
        return f"by {suffix.removeprefix('_source/')}"
    return {"": "all images", "_seen_concepts": "seen concepts", "_unseen_concepts": "unseen concepts"}.get(
        suffix, suffix
    )


def _label_names(run: Run, count: int) -> list[str]:
    names = [entry["label"] for entry in run.data_card.get("per_label", [])][:count]
    return [*names, *[f"class {number}" for number in range(len(names), count)]]
