"""Retrieval between images and texts, with any number of right answers per query, in both directions.

In `text_retrieval_recall@k` the query is an image and texts are retrieved, in `image_retrieval_recall@k` the
reverse. A query is a hit at k if any of its right answers is among the k best candidates, that is if the rank
of its best right answer is at most k.

With equal scores, the rank is the expected one under a random order of the ties. A collapsed model with
equal scores everywhere thus ranks near the middle and hits nothing; it cannot profit from the order of the data.

Ranks are counted in chunks of queries, without a queries x candidates matrix of right answers.
Axes: Q queries, N candidates, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 16M scores of 4 bytes at once: 64 MB, with masks and comparisons about 150 MB.
_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Positives:
    """The right answers of each query, as two flat arrays.

    Attributes:
        offsets: [Q + 1]; the answers of query q are answers[offsets[q]:offsets[q + 1]].
        answers: candidate numbers, distinct within a query.
    """

    offsets: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def from_keys(cls, queries: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Positives:
        """The right answers of a query are the candidates that share a key with it.

        Keys are e.g. the concept of an image, and the one or more concepts of which a text is a caption.
        """
        candidates_of_key: dict[int, list[int]] = {}
        for number, keys in enumerate(candidates):
            for key in set(keys):
                candidates_of_key.setdefault(int(key), []).append(number)
        rows = [sorted({number for key in keys for number in candidates_of_key.get(int(key), ())}) for keys in queries]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(offsets, np.array([number for row in rows for number in row], dtype=np.int64))

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many right answers each query has, [Q]."""
        return np.diff(self.offsets)

    def of(self, query: int) -> NDArray[np.int64]:
        """The right answers of one query."""
        return self.answers[self.offsets[query] : self.offsets[query + 1]]


def first_positive_ranks(
    queries: Tensor, candidates: Tensor, positives: Positives, scores_at_once: int = _SCORES_AT_ONCE
) -> NDArray[np.float64]:
    """The rank of the best right answer of each query, from 1, [Q].

    Args:
        queries: [Q, E] unit vectors.
        candidates: [N, E] unit vectors on the same device.
        positives: every query has at least one.
        scores_at_once: how many scores may exist at a time.
    Raises:
        ValueError: a query without a right answer, or features that are not finite.
    """
    if len(positives.offsets) != len(queries) + 1:
        raise ValueError(f"{len(queries)} queries, but right answers for {len(positives.offsets) - 1}")
    if (positives.counts == 0).any():
        raise ValueError(f"query {int(np.argmin(positives.counts))} has no right answer among the candidates")
    if not (torch.isfinite(queries).all() and torch.isfinite(candidates).all()):
        raise ValueError("features hold values that are not finite")
    ranks = np.empty(len(queries), dtype=np.float64)
    rows = max(1, scores_at_once // max(1, len(candidates)))
    for start in range(0, len(queries), rows):
        stop = min(start + rows, len(queries))
        # The training loop evaluates under autocast, where different scores would tie in bfloat16.
        with torch.autocast(queries.device.type, enabled=False):
            scores = queries[start:stop].float() @ candidates.float().T  # [rows, N]
        low, high = positives.offsets[start], positives.offsets[stop]
        row = torch.from_numpy(np.repeat(np.arange(stop - start), positives.counts[start:stop])).to(scores.device)
        column = torch.from_numpy(positives.answers[low:high]).to(scores.device)
        positive_scores = scores[row, column]
        best = torch.full((stop - start,), -torch.inf, device=scores.device)
        best.scatter_reduce_(0, row, positive_scores, reduce="amax")
        tied_right = torch.zeros(stop - start, device=scores.device)
        tied_right.index_add_(0, row, (positive_scores == best[row]).float())
        higher = (scores > best[:, None]).sum(dim=1)  # none of them is right: best is the highest right one
        tied_wrong = (scores == best[:, None]).sum(dim=1) - tied_right
        # Of t wrong and p right ones in random order, t / (p + 1) wrong ones come before the first right one.
        expected = 1.0 + higher.double() + tied_wrong.double() / (tied_right.double() + 1.0)
        ranks[start:stop] = expected.cpu().numpy()
    return ranks


def best_candidates(queries: Tensor, candidates: Tensor, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of the k best candidates of each query and their cosines, both [Q, min(k, N)]."""
    scores, numbers = (queries.float() @ candidates.float().T).topk(min(k, len(candidates)), dim=1)
    return numbers.cpu().numpy(), scores.double().cpu().numpy()


def recall_at(ranks: NDArray[np.floating], k: int) -> float:
    """Fraction of queries with a right answer among the k best candidates."""
    if len(ranks) == 0:
        raise ValueError("no queries to measure")
    return float((ranks <= k).mean())


def chance_recall_at(positives: Positives, candidates: int, k: int) -> float:
    """Expected recall of a random order of the candidates: mean of 1 - C(N - p, k) / C(N, k)."""
    if len(positives.counts) == 0:
        raise ValueError("no queries to measure")
    missed = np.ones(len(positives.counts))
    for draw in range(min(k, candidates)):
        missed *= np.clip(candidates - positives.counts - draw, 0, None) / (candidates - draw)
    return float(1.0 - missed.mean())


def retrieval_metrics(
    direction: str, ranks: NDArray[np.floating], positives: Positives, candidates: int, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """The metrics of one direction by name, each recall with its chance level.

    Args:
        direction: "text_retrieval" (queries are images) or "image_retrieval" (queries are texts).
    """
    measured: dict[str, float] = {}
    for k in ks:
        measured[f"{direction}_recall@{k}"] = recall_at(ranks, k)
        measured[f"{direction}_chance@{k}"] = chance_recall_at(positives, candidates, k)
    measured[f"{direction}_mean_rank"] = float(np.mean(ranks))
    measured[f"{direction}_median_rank"] = float(np.median(ranks))
    measured[f"{direction}_queries"] = float(len(ranks))
    measured[f"{direction}_candidates"] = float(candidates)
    return measured
