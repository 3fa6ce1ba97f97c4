"""The page: title, decisions, key numbers, then the sections that have content."""

from __future__ import annotations

from pipeline.artifacts import Artifact
from pipeline.html.document import document, number_card
from pipeline.html.markup import Child, Markup, join, tag
from pipeline.report.explanations import explanations_section
from pipeline.report.gallery import Gallery
from pipeline.report.leaks import leaks_section
from pipeline.report.learning import curriculum_section, learning_section
from pipeline.report.overview import data_section, lineage_section, stages_section
from pipeline.report.results import accuracy_section, confusion_section, mistakes_section
from pipeline.report.retrieval import retrieval_section
from pipeline.report.run_data import Evaluation, RunData
from pipeline.report.wording import display_name, duration, percent


def page(run: RunData, *, title: str, mistakes: int, explanations: int, queries: int) -> str:
    """The whole report as one self-contained HTML document.

    Args:
        title: the heading.
        mistakes: maximum number of pictures of mistakes per model.
        explanations: maximum number of pictures on which the classifiers' predictions are explained.
        queries: maximum number of retrieval queries per direction.
    """
    gallery = Gallery(run.shards)
    sections: list[tuple[str, str, Markup | None]] = [
        ("stages", "Stages", stages_section(run)),
        ("accuracy", "Accuracy", accuracy_section(run)),
        ("learning", "Learning", learning_section(run)),
        ("confusion", "Confusion matrix", confusion_section(run)),
        ("mistakes", "Worst mistakes", mistakes_section(run, gallery, mistakes)),
        ("seen", "Explanations", explanations_section(run, gallery, explanations)),
        ("curriculum", "Curriculum", curriculum_section(run)),
        ("retrieval", "Retrieval", retrieval_section(run, gallery, queries)),
        ("data", "Data", data_section(run, gallery)),
        ("leaks", "Leaks", leaks_section(run)),
        ("lineage", "Lineage", lineage_section(run)),
    ]
    return document(
        title,
        kind="run report",
        heading=title,
        introduction=[tag("p", _lead(run), class_="lead"), _decisions(run), _key_numbers(run)],
        sections=sections,
        footer=_origin(run),
    )


def _lead(run: RunData) -> str:
    card = run.data_card
    if not card:
        return f"{len(run.artifacts)} artifacts."
    return (
        f"{card.get('title', 'Data')}: {card.get('samples', 0):,} images, {card.get('labels', 0):,} labels. "
        f"{len(run.artifacts)} artifacts, {duration(run.seconds)} in total."
    )


def _decisions(run: RunData) -> Markup | None:
    """The registered models, whether each became champion and why, and the code that loads it."""
    cards = [_decision(name, artifact) for name, artifact in run.registrations.items()]
    return tag("div", cards, class_="cards wide") if cards else None


def _decision(name: str, artifact: Artifact) -> Markup:
    summary = artifact.summary
    model = str(summary.get("name", summary.get("model", name.removesuffix("-registration"))))
    promoted = bool(summary.get("promoted"))
    pill = tag("span", "champion", class_="pill good") if promoted else tag("span", "not promoted", class_="pill hold")
    version = f" version {summary['version']}" if "version" in summary else ""
    lookup, champion = summary.get("lookup"), summary.get("champion")
    return tag(
        "div",
        tag("h3", f"{model}{version}", pill),
        tag("p", _sentence(str(summary["reason"]))) if summary.get("reason") else None,
        tag("p", f"The champion stays version {champion}.", class_="label")
        if champion is not None and not promoted
        else None,
        tag("pre", str(lookup), tabindex=0) if lookup else None,
        tag("p", "registry: ", tag("code", str(summary["tracking_uri"])), class_="note")
        if "tracking_uri" in summary
        else None,
        class_="card",
    )


def _sentence(text: str) -> str:
    """A reason as a complete sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _key_numbers(run: RunData) -> Markup | None:
    cards: list[Markup] = []
    for evaluation in run.evaluations:
        cards += _numbers_of(evaluation)
    return tag("div", cards, class_="cards") if cards else None


def _numbers_of(evaluation: Evaluation) -> list[Markup]:
    metrics = evaluation.metrics
    subject = display_name(evaluation.subject).capitalize()
    cards = []
    for prefix, measure in (("accuracy", "accuracy"), ("zero_shot", "zero-shot accuracy")):
        if f"{prefix}/top1" in metrics:
            baselines = (
                f"chance {percent(metrics[f'{prefix}/chance'])}, majority {percent(metrics[f'{prefix}/majority'])}"
            )
            label = f"{subject}: {measure} on {metrics[f'{prefix}/samples']:,.0f} images"
            cards.append(number_card(label, percent(metrics[f"{prefix}/top1"]), baselines))
    key = "retrieval/image_retrieval"
    if f"{key}_recall@1" in metrics:
        of = f"chance {percent(metrics[f'{key}_chance@1'])}, of {metrics[f'{key}_candidates']:,.0f} images"
        cards.append(number_card(f"{subject}: text → image R@1", percent(metrics[f"{key}_recall@1"]), of))
    return cards


def _origin(run: RunData) -> Markup:
    commits = {str(a.manifest["origin"]["commit"]) for a in run.artifacts.values() if "commit" in a.manifest["origin"]}
    versions = {str(a.manifest["origin"].get("tutelage", "unknown")) for a in run.artifacts.values()}
    content: list[Child] = ["Generated by Tutelage ", ", ".join(sorted(versions)) or "unknown"]
    if commits:
        content += [", commit ", tag("code", ", ".join(sorted(commit[:12] for commit in commits)))]
    return join(*content, ".")
