"""Section "Registered models": which version is champion and why, what each costs, and the code that loads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts import Artifact
from pipeline.html.markup import Markup, tag
from pipeline.report.run_data import RunData
from pipeline.report.weak_points import weak_points_text
from pipeline.report.wording import display_name, magnitude


def registered_models_section(run: RunData, *, mistakes: bool) -> Markup | None:
    """A card for each registered model, that of a champion with its weak points; None if there is none.

    Args:
        mistakes: the page has the section of suspected label errors, to which a link leads.
    """
    champions = champions_of(run)
    weak_points = {
        evaluation.subject: weak_points_text(run, evaluation, mistakes=mistakes) for evaluation in run.evaluations
    }
    cards = []
    for name, artifact in run.registrations.items():
        model = model_name(run, artifact)
        weak = weak_points.get(model or "") if standing(name, artifact.summary, champions) == "champion" else None
        notes = run.artifacts[model].summary.get("notes", ()) if model is not None else ()
        cards.append(_card(name, artifact.summary, champions, model, weak, notes))
    return tag("div", cards, class_="cards wide") if cards else None


def champions_of(run: RunData) -> dict[str, Any]:
    """Registered name -> the version that is champion at the end of the run; None if its summary names none.

    The latest registration decides: a cached one states the champion of an earlier run.
    """
    by_time = sorted(
        run.registrations.items(), key=lambda item: item[1].manifest.get("origin", {}).get("committed", 0.0)
    )
    return {registered_name(name, artifact.summary): artifact.summary.get("champion") for name, artifact in by_time}


def registered_name(name: str, summary: Mapping[str, Any]) -> str:
    """The model's name in the registry; `name` is the registration's name in the run."""
    return str(summary.get("name", summary.get("model", name.removesuffix("-registration"))))


def standing(name: str, summary: Mapping[str, Any], champions: Mapping[str, Any]) -> str:
    """ "champion", "not promoted", or "replaced by version N" if another version became champion later in the run."""
    if not summary.get("promoted"):
        return "not promoted"
    champion = champions[registered_name(name, summary)]
    return "champion" if champion in (None, summary.get("version")) else f"replaced by version {champion}"


def champion_classifier(run: RunData) -> str:
    """Which of the run's classifiers is champion at its end: "student" or "teacher"; "student" if none is."""
    name = champion_registration(run)
    return "student" if name is None else str(model_name(run, run.registrations[name]))


def champion_registration(run: RunData) -> str | None:
    """The name in the run of the registration whose student or teacher is champion at its end; None if none is."""
    champions = champions_of(run)
    for name, artifact in run.registrations.items():
        is_classifier = model_name(run, artifact) in ("student", "teacher")
        if is_classifier and standing(name, artifact.summary, champions) == "champion":
            return name
    return None


def model_name(run: RunData, registration: Artifact) -> str | None:
    """The name in the run of the registered model, e.g. "student"; None if the model is not an artifact of the run."""
    model = registration.manifest["inputs"].get("model")
    return next((name for name, artifact in run.artifacts.items() if artifact.name == model), None)


def cost_line(summary: Mapping[str, Any]) -> str:
    """Parameters, size and latency of a model; empty for a registration that did not measure them."""
    if "latency_ms" not in summary:
        return ""
    return (
        f"{magnitude(int(summary['parameters']))} parameters, {summary['megabytes']:.1f} MB, "
        f"{summary['latency_ms']:.1f} ms per image on the CPU of the run"
    )


def _card(
    name: str,
    summary: Mapping[str, Any],
    champions: Mapping[str, Any],
    model: str | None,
    weak: Markup | None,
    notes: Sequence[str],
) -> Markup:
    version = f" version {summary['version']}" if "version" in summary else ""
    subject = f", {display_name(model)}" if model is not None else ""
    role = standing(name, summary, champions)
    lookup, champion = summary.get("lookup"), champions[registered_name(name, summary)]
    return tag(
        "div",
        tag(
            "h3",
            f"{registered_name(name, summary)}{version}{subject}",
            tag("span", role, class_="pill good" if role == "champion" else "pill hold"),
        ),
        tag("p", _sentence(_reason(summary))) if summary.get("reason") else None,
        *(tag("p", _sentence(str(note))) for note in notes),
        tag("p", cost_line(summary), class_="label") if cost_line(summary) else None,
        tag("p", _sentence(str(summary["against_teacher"]))) if summary.get("against_teacher") else None,
        tag("p", weak) if weak is not None else None,
        tag("p", f"The champion is version {champion}.", class_="label")
        if champion is not None and role == "not promoted"
        else None,
        tag("pre", str(lookup), tabindex=0) if lookup and not role.startswith("replaced") else None,
        tag("p", "registry: ", _registry(name, summary), class_="note") if "tracking_uri" in summary else None,
        class_="card",
    )


def _reason(summary: Mapping[str, Any]) -> str:
    """The gate's reason; "the champion" in that of a promoted version is the one that it replaced."""
    reason = str(summary["reason"])
    return reason.replace("than the champion", "than the previous champion", 1) if summary.get("promoted") else reason


def _registry(name: str, summary: Mapping[str, Any]) -> Markup:
    """The registry's URI; that of a server links to the page of the version."""
    uri = str(summary["tracking_uri"])
    shown = tag("code", uri)
    if not uri.startswith(("http://", "https://")) or "version" not in summary:
        return shown
    page = f"{uri.rstrip('/')}/#/models/{registered_name(name, summary)}/versions/{summary['version']}"
    # Without the query, MLflow opens its view for GenAI.
    return tag("a", shown, href=f"{page}?workflowType=machine_learning")


def _sentence(text: str) -> str:
    """A reason as a complete sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
