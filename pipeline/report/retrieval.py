"""The section on retrieval: recall in both directions compared with chance, and queries with their results."""

from __future__ import annotations

from typing import Any

from pipeline.evaluation.metrics import wilson_interval
from pipeline.html.markup import Child, Markup, join, table, tag
from pipeline.report.gallery import Gallery
from pipeline.report.run_data import Evaluation, RunData
from pipeline.report.wording import percent

_HALF_UNSEEN = "; half of them are about unseen concepts"


def retrieval_section(run: RunData, gallery: Gallery, limit: int) -> Markup | None:
    """Recall in both directions compared with chance, and up to `limit` queries of each with their results."""
    measured = [
        evaluation
        for evaluation in run.evaluations
        if any(name.startswith("retrieval/") for name in evaluation.metrics)
    ]
    content: list[Child] = []
    for evaluation in measured:
        content.append(_recall_table(evaluation, "all concepts" if run.has_concepts else "all images"))
        unseen = any(name.startswith("retrieval_unseen_concepts/") for name in evaluation.metrics)
        texts = evaluation.examples.get("text_to_images", [])[:limit]
        images = evaluation.examples.get("image_to_texts", [])[:limit]
        if texts:
            content += [
                tag("h3", "Text queries: the five nearest images"),
                tag(
                    "p",
                    "Correct results are framed; the rank is that of the first correct one. Queries are a fixed "
                    f"random sample, not selected by result{_HALF_UNSEEN if unseen else ''}.",
                    class_="note",
                ),
                tag("div", [_text_query(query, gallery, unseen) for query in texts], class_="queries"),
            ]
        if images:
            content += [
                tag("h3", "Image queries: the five nearest captions"),
                tag("div", [_image_query(query, gallery, unseen) for query in images], class_="queries"),
            ]
    if not content:
        return None
    return join(*content)


def _recall_table(evaluation: Evaluation, all_images: str) -> Markup:
    metrics = evaluation.metrics
    ks = sorted({int(name.rpartition("@")[2]) for name in metrics if "_recall@" in name})
    rows: list[list[Child]] = []
    for pool, pool_name in (("retrieval", all_images), ("retrieval_unseen_concepts", "unseen concepts only")):
        for direction, direction_name in (("image_retrieval", "text → image"), ("text_retrieval", "image → text")):
            start = f"{pool}/{direction}"
            if f"{start}_queries" not in metrics:
                continue
            queries = int(metrics[f"{start}_queries"])
            cells: list[Child] = [tag("strong", direction_name), pool_name]
            for k in ks:
                value, chance = metrics[f"{start}_recall@{k}"], metrics[f"{start}_chance@{k}"]
                low, high = wilson_interval(round(value * queries), queries)
                interval = f"95% interval {low:.1%} to {high:.1%}"
                cells.append(
                    join(
                        tag("strong", percent(value), title=interval),
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
    return table(head, rows, numeric=frozenset(range(2, len(head))), class_="broad")


def _text_query(query: dict[str, Any], gallery: Gallery, unseen: bool) -> Markup:
    answers = [
        gallery.thumb(answer["id"], f"{answer['text']} ({answer['score']:.2f})", "right" if answer["right"] else "")
        for answer in query["answers"]
    ]
    return tag(
        "div", _query_heading(query["text"], query, unseen), tag("div", answers, class_="answers"), class_="query"
    )


def _image_query(query: dict[str, Any], gallery: Gallery, unseen: bool) -> Markup:
    answers = [
        tag("li", answer["text"], class_="right" if answer["right"] else None, title=f"cosine {answer['score']:.2f}")
        for answer in query["answers"]
    ]
    answered = tag("div", _query_heading(query["text"], query, unseen), tag("ol", answers, class_="texts"))
    return tag("div", gallery.thumb(query["id"], query["text"]), answered, class_="query picture")


def _query_heading(text: str, query: dict[str, Any], unseen: bool) -> Markup:
    """The query and its rank; whether its concept was seen in training, if the data distinguish that."""
    seen = f"{'un' if query['unseen_concept'] else ''}seen concept · " if unseen else ""
    return tag("div", text, tag("span", f"{seen}rank {query['rank']:,.0f}", class_="quiet"), class_="question")
