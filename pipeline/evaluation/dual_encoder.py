"""Retrieval of a dual encoder over one split: the pools, the ranks, and examples for a reader.

Every image of the split is a query for its captions, every distinct caption a query for its images. A
candidate is right if it shares a concept (content group) with the query, so an image may have several right
captions and a caption several right images. The same is measured among the concepts not in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.counter_rng import generator
from pipeline.evaluation.retrieval import Positives, best_candidates, first_positive_ranks, retrieval_metrics
from pipeline.sharding.format.index import SampleIndex

_SHOWN = 5


@dataclass(frozen=True)
class CaptionPool:
    """The images of a split that have captions, and the distinct captions they have.

    Attributes:
        ids: [I] row numbers of the index.
        groups: [I] content group of each image.
        texts: T distinct captions, in the order in which they first occur.
        text_groups: for each text the content groups that it is a caption of.
        own_text: [I] index in `texts` of each image's first caption.
    """

    ids: NDArray[np.int64]
    groups: NDArray[np.int64]
    texts: list[str]
    text_groups: list[list[int]]
    own_text: NDArray[np.int64]

    @classmethod
    def collect(cls, index: SampleIndex, rows: NDArray[np.int64], *, only_first: bool) -> CaptionPool:
        """The pool of `rows`; rows without captions are left out.

        Args:
            only_first: take only the first caption of each image.
        """
        numbers: dict[str, int] = {}
        text_groups: list[set[int]] = []
        ids, own_text = [], []
        for id in rows:
            captions = index.captions(int(id))
            if not captions:
                continue
            ids.append(int(id))
            for caption in captions[:1] if only_first else captions:
                number = numbers.setdefault(caption, len(numbers))
                if number == len(text_groups):
                    text_groups.append(set())
                text_groups[number].add(int(index.groups[id]))
            own_text.append(numbers[captions[0]])
        captioned = np.array(ids, dtype=np.int64)
        groups = index.groups[captioned].astype(np.int64)
        return cls(
            captioned, groups, list(numbers), [sorted(keys) for keys in text_groups], np.array(own_text, dtype=np.int64)
        )

    def restrict(self, members: NDArray[np.bool_]) -> tuple[CaptionPool, NDArray[np.int64], NDArray[np.int64]]:
        """A smaller pool: the images where `members` is true, and the texts that are captions of their groups.

        Args:
            members: bool [I].
        Returns:
            The smaller pool, and the positions of its images and of its texts in this pool.
        """
        images = np.flatnonzero(members)
        groups = set(self.groups[images].tolist())
        texts = [t for t, keys in enumerate(self.text_groups) if groups.intersection(keys)]
        renumber = {old: new for new, old in enumerate(texts)}
        pool = CaptionPool(
            self.ids[images],
            self.groups[images],
            [self.texts[t] for t in texts],
            [[key for key in self.text_groups[t] if key in groups] for t in texts],
            np.array([renumber[t] for t in self.own_text[images].tolist()], dtype=np.int64),
        )
        return pool, images, np.array(texts, dtype=np.int64)

    def positives(self) -> tuple[Positives, Positives]:
        """The right texts of each image, and the right images of each text."""
        images: list[list[int]] = [[group] for group in self.groups.tolist()]
        return Positives.from_keys(images, self.text_groups), Positives.from_keys(self.text_groups, images)


@dataclass(frozen=True)
class RetrievalResult:
    """Ranks in both directions over one pool, and the metrics computed from them.

    Attributes:
        text_ranks: [I] for each image as the query, the rank (from 1) of its best right text.
        image_ranks: [T] for each text as the query, the rank (from 1) of its best right image.
    """

    text_ranks: NDArray[np.float64]
    image_ranks: NDArray[np.float64]
    metrics: dict[str, float]


def measure_retrieval(pool: CaptionPool, images: Tensor, texts: Tensor, ks: Sequence[int]) -> RetrievalResult:
    """Measures retrieval in both directions over a pool.

    Args:
        images: [I, E] unit vectors of the pool's images.
        texts: [T, E] unit vectors of its texts.
        ks: the k of recall@k.
    """
    right_texts, right_images = pool.positives()
    text_ranks = first_positive_ranks(images, texts, right_texts)
    image_ranks = first_positive_ranks(texts, images, right_images)
    metrics = {
        **retrieval_metrics("text_retrieval", text_ranks, right_texts, len(texts), ks),
        **retrieval_metrics("image_retrieval", image_ranks, right_images, len(images), ks),
    }
    return RetrievalResult(text_ranks, image_ranks, metrics)


def retrieval_examples(
    pool: CaptionPool,
    index: SampleIndex,
    images: Tensor,
    texts: Tensor,
    result: RetrievalResult,
    unseen: NDArray[np.bool_],
    count: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """The five best candidates of a fixed random sample of queries, to be judged by a reader.

    Half of the queries are about concepts that are not in training, if there are any; queries are not selected
    by their results.

    Args:
        unseen: [I] whether each image shows a concept that is not in training.
    """
    right_texts, right_images = pool.positives()
    unseen_groups = set(pool.groups[unseen].tolist())
    unseen_text = np.array([not unseen_groups.isdisjoint(keys) for keys in pool.text_groups], dtype=np.bool_)
    text_queries = _mixed_sample(unseen_text, count, seed, "text-examples")
    image_queries = _mixed_sample(unseen, count, seed, "image-examples")
    found_images = best_candidates(texts[text_queries], images, _SHOWN)
    found_texts = best_candidates(images[image_queries], texts, _SHOWN)
    return {
        "text_to_images": [
            {
                "text": pool.texts[query],
                "unseen_concept": bool(unseen_text[query]),
                "rank": float(result.image_ranks[query]),
                "answers": [
                    {
                        "id": int(pool.ids[n]),
                        "key": index.key(int(pool.ids[n])),
                        "text": pool.texts[pool.own_text[n]],
                        "score": round(float(score), 4),
                        "right": bool(n in right_images.of(query)),
                    }
                    for n, score in zip(numbers, scores, strict=True)
                ],
            }
            for query, numbers, scores in zip(text_queries.tolist(), *found_images, strict=True)
        ],
        "image_to_texts": [
            {
                "id": int(pool.ids[query]),
                "key": index.key(int(pool.ids[query])),
                "text": pool.texts[pool.own_text[query]],
                "unseen_concept": bool(unseen[query]),
                "rank": float(result.text_ranks[query]),
                "answers": [
                    {
                        "text": pool.texts[n],
                        "score": round(float(score), 4),
                        "right": bool(n in right_texts.of(query)),
                    }
                    for n, score in zip(numbers, scores, strict=True)
                ],
            }
            for query, numbers, scores in zip(image_queries.tolist(), *found_texts, strict=True)
        ],
    }


def _mixed_sample(marked: NDArray[np.bool_], count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Up to `count` indices in ascending order, half of them marked ones if there are that many."""
    order = generator(seed, purpose).permutation(len(marked))
    yes, no = order[marked[order]], order[~marked[order]]
    take = min(len(yes), max(count // 2, count - len(no)))
    return np.sort(np.concatenate([yes[:take], no[: count - take]])).astype(np.int64)
