"""Metrics during training of a dual encoder: retrieval on the validation split, accuracy of the frontier.

The frontier is the nodes of the ontology from which the curriculum (tonics.py) draws batches.
Rank 0 computes both and broadcasts them, so that all ranks act on the same numbers even if their devices
round differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from pipeline.contrastive.held_out import HeldOutPairs
from pipeline.contrastive.ontology import Ontology, SampleIds
from pipeline.contrastive.pair_encoder import PairEncoder
from pipeline.contrastive.tonics import CurriculumPolicy
from pipeline.evaluation.retrieval import Positives, first_positive_ranks, recall_at

_PREFIX = "curriculum"


@dataclass(frozen=True)
class ValidationRetrieval:
    """Recall at 1 and 5 among the validation pairs; a pair with the same content is a correct answer.

    Args:
        ids: the validation pairs; each image and each text is a query.
        contents: int64 [len(ids)], equal for pairs with the same content.
    """

    encoder: PairEncoder
    ids: SampleIds
    contents: NDArray[np.int64]
    rank: int
    world: int

    def __call__(self, model: nn.Module) -> dict[str, float]:
        names = ("val/text_recall_at_1", "val/text_recall_at_5", "val/image_recall_at_1", "val/image_recall_at_5")
        values = [0.0] * len(names)
        if self.rank == 0:
            images, texts = self.encoder.features(model, self.ids)
            keys = [[int(content)] for content in self.contents]
            positives = Positives.from_keys(keys, keys)
            text_ranks = first_positive_ranks(images, texts, positives)
            image_ranks = first_positive_ranks(texts, images, positives)
            values = [recall_at(ranks, k) for ranks in (text_ranks, image_ranks) for k in (1, 5)]
        return dict(zip(names, broadcast_from_rank_0(values, self.encoder.device, self.world), strict=True))


@dataclass(frozen=True)
class CurriculumRefresh:
    """Measures the frontier's accuracy, refreshes the curriculum with it, and returns the metrics for metrics.jsonl."""

    policy: CurriculumPolicy
    held_out: HeldOutPairs
    encoder: PairEncoder
    rank: int
    world: int

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        policy, frontier = self.policy, self.policy.frontier
        drawn = policy.batch_statistics(step - policy.config.refresh_every_steps, step)
        values = [0.0] * len(frontier)
        if self.rank == 0:
            ids = self.held_out.ids(frontier)
            images, texts = self.encoder.features(model, ids)
            values = [self.held_out.accuracy(node, ids, images, texts) for node in frontier]
        accuracies = dict(zip(frontier, broadcast_from_rank_0(values, self.encoder.device, self.world), strict=True))
        policy.refresh(accuracies)

        names = metric_names(policy.ontology)
        metrics = {
            f"{_PREFIX}/version": float(policy.version),
            f"{_PREFIX}/entropy": -sum(p * log(p) for p in policy.probability.values()),
            f"{_PREFIX}/nodes": float(len(policy.probability)),
            f"{_PREFIX}/topped_up": drawn.topped_up,
            f"{_PREFIX}/relaxed": drawn.relaxed,
            f"{_PREFIX}/chance": self.held_out.chance,
            f"{_PREFIX}/held_out_own": sum(map(self.held_out.own_share, frontier)) / len(frontier),
        }
        for node, accuracy in accuracies.items():
            metrics[f"{_PREFIX}/accuracy/{names[node]}"] = accuracy
            metrics[f"{_PREFIX}/hits/{names[node]}"] = float(drawn.hits[node])
        for node, p in policy.probability.items():
            metrics[f"{_PREFIX}/probability/{names[node]}"] = p
        return metrics


def broadcast_from_rank_0(values: Sequence[float], device: torch.device, world: int) -> list[float]:
    """Rank 0's values on every rank, bit for bit; all ranks must pass the same number of values."""
    if world == 1:
        return list(values)
    # Sent as integers, because some devices have no 64-bit floats.
    sent = torch.tensor(list(values), dtype=torch.float64).view(torch.int64).to(device)
    dist.broadcast(sent, src=0)
    received: list[float] = sent.cpu().view(torch.float64).tolist()
    return received


def metric_names(ontology: Ontology) -> list[str]:
    """A valid MLflow metric name for each node: its path, with characters that MLflow refuses replaced."""
    allowed = set("_-./ :")
    paths = [
        "".join(c if (c.isascii() and c.isalnum()) or c in allowed else "-" for c in n.path) for n in ontology.nodes
    ]
    return [path if paths.count(path) == 1 else f"{path}:{number}" for number, path in enumerate(paths)]


def curriculum_lines(rows: Iterable[Mapping[str, Any]], ontology: Ontology) -> list[dict[str, Any]]:
    """The lines of curriculum.jsonl, one per refresh, from the rows of metrics.jsonl.

    accuracy is measured for each frontier node at this step, and determines the state after the refresh: frontier, P
    (the probability of each of its nodes) and entropy. chance is the accuracy of guessing, held_out_own the mean
    fraction of a node's held-out pairs that no ancestor supplied. hits, topped_up and relaxed (see `BatchStatistics`)
    cover the steps since the previous refresh.
    """
    names, paths = metric_names(ontology), [node.path for node in ontology.nodes]
    lines = []
    for row in rows:
        if f"{_PREFIX}/version" not in row:
            continue
        by_node = {
            kind: {
                path: row[f"{_PREFIX}/{kind}/{name}"]
                for name, path in zip(names, paths, strict=True)
                if f"{_PREFIX}/{kind}/{name}" in row
            }
            for kind in ("probability", "accuracy", "hits")
        }
        lines.append(
            {
                "step": row["step"],
                "version": int(row[f"{_PREFIX}/version"]),
                "frontier": list(by_node["probability"]),
                "P": by_node["probability"],
                "accuracy": by_node["accuracy"],
                "hits": {path: int(hits) for path, hits in by_node["hits"].items()},
                **{
                    name: row[f"{_PREFIX}/{name}"]
                    for name in ("chance", "held_out_own", "entropy", "topped_up", "relaxed")
                },
            }
        )
    return lines
