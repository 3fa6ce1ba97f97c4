"""The objects with which a worker trains a dual encoder: model, task, policy, loader and metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.dual_encoder import build_model, image_preprocessing
from pipeline.contrastive.held_out import HeldOutPairs
from pipeline.contrastive.inputs import Inputs
from pipeline.contrastive.measures import CurriculumRefresh, ValidationRetrieval
from pipeline.contrastive.pair_encoder import PairEncoder
from pipeline.contrastive.task import ContrastiveTask
from pipeline.contrastive.text_backbone import build_tokenizer
from pipeline.contrastive.tonics import CurriculumPolicy
from pipeline.errors import InputError
from pipeline.loading.loader import build_loader
from pipeline.loading.policies.base import SamplingPolicy
from pipeline.loading.policies.mixture import MixtureConfig, samples_per_epoch
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.loading.policies.streams import StreamsConfig
from pipeline.loading.reader import SampleReader
from pipeline.training.input_artifacts import open_artifact
from pipeline.training.task import TrainingObjects
from pipeline.training.training_config import TrainingConfig


@dataclass(frozen=True)
class ContrastiveRecipe:
    """The TrainingRecipe of a dual encoder.

    Args:
        inputs: name -> STAGE/KEY of the artifacts that `Inputs.open` opens.
    """

    config: ContrastiveConfig
    store_url: str
    inputs: tuple[tuple[str, str], ...]

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        config, seed = self.config, self.config.training.seed
        artifacts = {name: open_artifact(self.store_url, artifact_name) for name, artifact_name in self.inputs}
        inputs = Inputs.open(artifacts, captions_from=config.captions_from, keep=config.keep)
        policy, held_out = build_policy(config, inputs)
        samples = len(inputs.training_pairs())
        preprocessing = image_preprocessing(config, inputs.classifier)
        tokenizer = build_tokenizer(config.text, inputs.text_weights)
        reader = SampleReader.open(inputs.shards, remote=config.loader.remote, verify=config.loader.verify)
        loader = build_loader(
            config.loader,
            reader,
            inputs.index,
            policy,
            image_size=preprocessing.image_size,
            channels=preprocessing.channels,
            seed=seed,
            samples=samples,
            rank=rank,
            world=world,
            tokenizer=tokenizer,
            captions=config.captions,
            columns=inputs.columns,
            device=device,
        )
        encoder = PairEncoder(reader, inputs.index, preprocessing, tokenizer, device, config.loader.threads)
        pairs = inputs.validation_pairs(config.validation_pairs, seed)
        evaluate = None
        if len(pairs) > 1:
            groups = np.asarray(inputs.index.groups)[pairs].astype(np.int64)
            contents = np.where(groups >= 0, groups, -1 - pairs)  # a pair in no group is its own content
            evaluate = ValidationRetrieval(encoder, pairs, contents, rank, world)
        refresh = None
        if isinstance(policy, CurriculumPolicy) and held_out is not None:
            refresh = CurriculumRefresh(policy, held_out, encoder, rank, world)
        return TrainingObjects(
            build_model(config, inputs).to(device),
            ContrastiveTask(preprocessing, world=world, freeze_image=config.freeze_tower),
            loader,
            epoch_samples=samples_per_epoch(policy, samples),
            evaluate=evaluate,
            refresh=refresh,
        )


def build_policy(config: ContrastiveConfig, inputs: Inputs) -> tuple[SamplingPolicy, HeldOutPairs | None]:
    """The policy, and for a curriculum the held-out pairs on which its refreshes measure accuracy.

    Raises:
        InputError: the policy cannot be built from these inputs.
    """
    training, policy = config.training, config.policy
    batch = config.loader.distinct_samples(training.global_batch)
    if isinstance(policy, ShuffledConfig | StreamsConfig | MixtureConfig):
        rows = inputs.training_pairs()
        if len(rows) == 0:
            within = " and is within keep" if config.keep else ""
            raise InputError(
                f"{inputs.shards.name}: no training sample has a caption{within}; shard a data set with captions"
            )
        return policy.build(inputs.index, RowRuns.of_rows(rows), batch, training.seed), None
    if inputs.ontology is None:
        raise InputError("policy tonics: needs an ontology; run build-ontology first, or set policy.kind=shuffled")
    curriculum = policy.build(inputs.ontology, batch, training.seed)
    held_out = None
    if curriculum.ready_until() is not None:
        held_out = HeldOutPairs(inputs.ontology, policy.held_out_batch, policy.held_out_batches, training.seed)
    return curriculum, held_out
