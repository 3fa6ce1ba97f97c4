"""The section of explanations: the same images for each classifier, its prediction, and the explanation map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from torch import Tensor

from model_defs.counting import count_macs, on_meta
from pipeline.artifacts import Artifact
from pipeline.explain.drawing import png
from pipeline.explain.explanation import CAPTIONS, Explanation, Method
from pipeline.explain.explanations import explain, fitting_methods, model_image
from pipeline.exported_model import FOLDER, ExportedModel
from pipeline.html.markup import Markup, join, tag
from pipeline.html.pictures import picture_uri
from pipeline.report.gallery import Gallery
from pipeline.report.run_data import RunData
from pipeline.report.wording import display_name
from pipeline.sharding.format.index import SampleIndex

_MAPS: tuple[Method, ...] = ("grad-cam", "rollout", "occlusion")  # methods with one picture per image
_OCCLUSION_PASSES = 82  # forward passes per image for occlusion, including the reference pass
_MAX_MACS = 100e9  # limit for occlusion in a report: about two seconds on one core
_PICTURE_PX, _PICTURE_BYTES = 192, 12_000


def explanations_section(run: RunData, gallery: Gallery, limit: int) -> Markup | None:
    """Teacher and student on the same images of the evaluated split, both correct and wrong predictions.

    Args:
        limit: maximum number of pictures.
    """
    outcomes = {
        evaluation.subject: evaluation.outcomes
        for evaluation in run.evaluations
        # The baseline has the teacher's features before its training: a third picture would add little.
        if evaluation.subject != "baseline"
        and evaluation.outcomes
        and _is_classifier(run.artifacts.get(evaluation.subject))
    }
    if run.shards is None or not outcomes or not limit:
        return None
    pictures = {id: data for id in chosen_ids(outcomes, limit) if (data := gallery.data(id)) is not None}
    explained = {
        subject: explanations
        for subject in outcomes
        if pictures and (explanations := _explanations(run.artifacts[subject], pictures))
    }
    if not explained:
        return None
    index = SampleIndex.open(run.shards)
    cards = []
    for number, id in enumerate(pictures):
        true = index.label_names[int(index.labels[id])]
        predictions = [_prediction(subject, explanations[number], true) for subject, explanations in explained.items()]
        first = next(iter(explained.values()))[number]
        shown = tag("div", _img(first, 0, f"{index.key(id)}: a {true}"), tag("span", true, class_="true"))
        cards.append(tag("div", shown, *predictions, class_="card"))
    return join(
        tag(
            "p",
            "Correct and wrong predictions, evenly spaced over the split; correct labels are green, wrong ones red. "
            "The darker a region, the more it contributes to the prediction.",
            class_="lead",
        ),
        tag("div", cards, class_="explanations"),
        [
            tag("p", _method_note(subject, explanations[0]), class_="note")
            for subject, explanations in explained.items()
        ],
    )


def chosen_ids(outcomes: Mapping[str, Mapping[int, bool]], limit: int) -> list[int]:
    """At most `limit` samples to show: in turn samples that all models, some models and no model predicted correctly.

    Each of the three kinds is evenly spread over the ids.

    Args:
        outcomes: for each model, whether its prediction for a sample was correct.
    """
    common = sorted(set.intersection(*(set(of_model) for of_model in outcomes.values())))
    kinds: dict[int, list[int]] = {}
    for id in common:
        right = sum(of_model[id] for of_model in outcomes.values())
        kinds.setdefault(2 if right == len(outcomes) else 0 if right == 0 else 1, []).append(id)
    spread = [_spread(kinds[kind], limit) for kind in sorted(kinds, reverse=True)]
    alternating = [id for ids_of_turn in zip_longest(*spread) for id in ids_of_turn if id is not None]
    return alternating[:limit]


def _spread(ids: Sequence[int], limit: int) -> list[int]:
    """At most `limit` evenly spaced ids, starting in the middle of the first interval."""
    count = min(len(ids), limit)
    return [ids[(2 * number + 1) * len(ids) // (2 * count)] for number in range(count)]


def _is_classifier(artifact: Artifact | None) -> bool:
    if artifact is None or f"{FOLDER}/architecture.json" not in artifact.files:
        return False
    return ExportedModel.open(artifact).kind == "classifier"


def _explanations(artifact: Artifact, pictures: Mapping[int, bytes]) -> list[Explanation]:
    """One explanation per picture, or none if every method that draws maps would take too long."""
    exported = ExportedModel.open(artifact)
    method = _affordable(exported, len(pictures))
    if method is None:
        return []
    images: list[Tensor] = [model_image(exported, data, name=str(id)) for id, data in pictures.items()]
    return explain(exported, images, method=method)


# The first fitting method that draws a map and is fast enough for these pictures; None if there is none.
def _affordable(exported: ExportedModel, pictures: int) -> Method | None:
    model = on_meta(exported.architecture, **exported.kwargs)
    preprocessing = exported.preprocessing
    for method in fitting_methods(model, preprocessing.image_size, preprocessing.channels):
        if method == "occlusion" and count_macs(model) * _OCCLUSION_PASSES * pictures > _MAX_MACS:
            continue
        if method in _MAPS:
            return method
    return None


def _prediction(subject: str, explanation: Explanation, true: str) -> Markup:
    right = explanation.answer == true
    return tag(
        "div",
        _img(explanation, 1, f"explanation of the {display_name(subject)}"),
        tag("div", display_name(subject), class_="quiet"),
        tag("span", explanation.answer, class_="true" if right else "false"),
        tag("span", f" {explanation.score:.0%}", class_="quiet"),
    )


def _img(explanation: Explanation, panel: int, description: str) -> Markup | None:
    data = png(explanation.panels[panel].picture)
    uri = picture_uri(data, max_px=_PICTURE_PX, max_bytes=_PICTURE_BYTES)
    return None if uri is None else tag("img", src=uri, alt=description, title=description)


def _method_note(subject: str, explanation: Explanation) -> Markup:
    return join(tag("strong", display_name(subject)), f": {CAPTIONS[explanation.method]}")
