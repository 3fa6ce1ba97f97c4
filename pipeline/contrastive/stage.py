"""The stage pretrain-clip: image-caption pairs and a classifier -> a dual encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.artifacts import Artifact
from pipeline.config import canonical_json
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.dual_encoder import build_model, image_preprocessing, model_kwargs, weight_loading_reports
from pipeline.contrastive.inputs import Inputs
from pipeline.contrastive.measures import curriculum_lines
from pipeline.contrastive.recipe import ContrastiveRecipe, build_policy
from pipeline.exported_model import FOLDER, ExportedModel
from pipeline.stage import Workspace
from pipeline.training.progressive import check_sizes
from pipeline.training.runner import TrainingResult, execute, training_headline
from pipeline.training.starting_weights import write_report


class PretrainClip:
    """Trains an image backbone and a text backbone together, under the curriculum or on shuffled pairs."""

    name: ClassVar[str] = "pretrain-clip"
    version: ClassVar[int] = 3

    def recipe(self, config: ContrastiveConfig, inputs: Mapping[str, str], store_url: str) -> ContrastiveRecipe:
        """The recipe from the inputs' STAGE/KEY by name."""
        return ContrastiveRecipe(config, store_url, tuple(sorted(inputs.items())))

    def run(self, config: ContrastiveConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Writes model/, metrics.jsonl, training.json and curriculum.jsonl to `work.output`.

        Args:
            inputs: "shards"; "ontology" for the policy tonics; "tower", the classifier whose backbone the image
                backbone starts from, unless a new one is trained; "image-weights" and "text-weights", imported weights,
                if new_tower.model.pretrained or text.pretrained is set; "columns", joined columns, if
                `captions_from` or `keep` is set.
        """
        config.text.check()
        opened = Inputs.open(inputs, captions_from=config.captions_from, keep=config.keep)
        # Built here only to raise its errors before workers are started.
        build_policy(config, opened)
        reports = weight_loading_reports(config, inputs)
        model = build_model(config, opened)
        check_sizes(model.image.to("meta"), config.loader, image_preprocessing(config, opened.classifier).channels)

        artifact_names = {name: artifact.name for name, artifact in inputs.items()}
        recipe = self.recipe(config, artifact_names, work.store.storage.url)
        result = execute(recipe, config.runner, work, params={**json.loads(canonical_json(config)), **artifact_names})

        lines = curriculum_lines(result.metric_rows, opened.ontology) if opened.ontology is not None else []
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (work.output / "curriculum.jsonl").write_text(text, encoding="utf-8")
        ExportedModel.write(
            work.output / FOLDER,
            result.state,
            kind="dual-encoder",
            architecture="clip",
            kwargs=model_kwargs(config, opened),
            preprocessing=image_preprocessing(config, opened.classifier),
            labels=opened.index.label_names,
            templates=config.templates,
            vocabulary=opened.text_weights.vocabulary if opened.text_weights is not None else None,
        )
        for report in reports:
            write_report(report, work.output)
        return summary(result, lines)


def summary(result: TrainingResult, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The headline numbers of a training run, with the refreshes and the frontier size of the curriculum."""
    measured = {
        name.replace("/", "_"): round(value, 4)
        for name in ("val/text_recall_at_1", "val/image_recall_at_1", "train/loss")
        if (value := result.last(name)) is not None
    }
    frontier_size = len(lines[-1]["frontier"]) if lines else 1
    reported = {**measured, **result.summary_values()}
    headline = training_headline(reported)
    if "val_image_recall_at_1" in reported:
        headline = f"val R@1 {reported['val_image_recall_at_1']:.1%}, {headline}"
    return {**reported, "refreshes": len(lines), "frontier": frontier_size, "headline": headline}
