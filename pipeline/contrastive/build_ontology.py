"""build-ontology: the data set's taxonomy, cut down to the concepts that can fill a batch.

A concept stays if enough different contents are below it to compose batches from without repeating
any; a parent stays only if it joins two or more concepts that stay, else its child takes its place.
Pairs of a concept that went count for the nearest concept above it that stayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.config import Config
from pipeline.contrastive.ontology import Ids, Ontology, depth_first, tree
from pipeline.errors import InputError
from pipeline.sharding.format.choice import KeepRanges, captions_from_field, keep_field, open_columns
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import Keep
from pipeline.stage import Workspace


class OntologyConfig(Config):
    """Which concepts stay, and which pairs are held out to measure them."""

    min_count: int = Field(16, ge=2, description="A concept stays if this many different contents are below it.")
    pairs_per_node: int = Field(
        8,
        ge=1,
        le=65536,
        description="Most pairs that one batch takes from a concept; it stays only with twice as many contents.",
    )
    use_validation_split: bool = Field(True, description="Measure concepts on the pairs of the validation split.")
    held_out_share: float = Field(
        0.0, ge=0, lt=0.5, description="Share of the training images that is held out of training to measure concepts."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Chooses the held-out images.")
    captions_from: str | None = captions_from_field()
    keep: KeepRanges = keep_field()

    @property
    def needed(self) -> int:
        """Different contents that a concept needs to stay."""
        return max(self.min_count, 2 * self.pairs_per_node)


class BuildOntology:
    """Inputs {"shards"}, "columns" if some were joined; output: ontology.json and the arrays of `Ontology`."""

    name: ClassVar[str] = "build-ontology"
    version: ClassVar[int] = 1

    def run(self, config: OntologyConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        shards = inputs["shards"]
        index, columns = open_columns(
            inputs.get("columns"), SampleIndex.open(shards), keep=config.keep, captions_from=config.captions_from
        )
        entries = taxonomy_of(index, shards.uri)
        work.progress(note="reading captions")
        captions = caption_numbers(index, np.arange(len(index), dtype=np.int64))
        training = index.rows("train")
        training = training[captions[training] >= 0]
        if columns is not None and config.keep:
            training = training[columns.kept(config.keep, 0, len(index))[training]]
        if not len(training):
            raise InputError(
                f"{shards.uri}: no training sample has a caption{' and is kept' if config.keep else ''}, so there is "
                "nothing to align images with; shard a data set with captions"
            )
        held_out = np.zeros(0, np.int64)
        if config.use_validation_split:
            held_out = index.rows("val")
            held_out = held_out[captions[held_out] >= 0]
        if config.held_out_share > 0:
            apart = image_numbers(index, training, config.seed) < config.held_out_share
            held_out = np.sort(np.concatenate([held_out, training[apart]]))
            training = training[~apart]
        work.progress(note="choosing concepts")
        ontology = build(
            entries,
            np.asarray(index.nodes, np.int64),
            content_numbers(index),
            captions,
            training,
            held_out,
            needed=config.needed,
        )
        rule = (
            f"A concept stays with at least {config.needed} different training contents; a parent stays if it joins "
            "two or more concepts that stay."
        )
        ontology.write(work.output, rule)
        leaves = sum(not node.children for node in ontology.nodes[1:])
        return {
            "nodes": len(ontology),
            "leaves": leaves,
            "depth": max(node.depth for node in ontology.nodes),
            "of_nodes": len(entries),
            "training_pairs": len(training),
            "held_out_pairs": len(held_out),
        }


def check_choice(ontology: Artifact, columns: Artifact | None, captions_from: str | None, keep: Keep) -> None:
    """Refuses an ontology whose pairs are not those that are to be trained on.

    Raises:
        InputError: it was made with other captions, or of other samples.
    """
    made = {"captions_from": ontology.config.get("captions_from"), "keep": ontology.config.get("keep", {})}
    wanted = {"captions_from": captions_from, "keep": {name: list(ends) for name, ends in keep.items()}}
    of_columns = columns.uri if columns is not None and (captions_from is not None or keep) else None
    if made != wanted or (of_columns is not None and ontology.manifest["inputs"].get("columns") != of_columns):
        raise InputError(
            f"{ontology.uri}: was made with captions_from={made['captions_from']}, keep={made['keep']}; build one with "
            f"captions_from={captions_from}, keep={wanted['keep']} and the same columns"
        )


def taxonomy_of(index: SampleIndex, where: str) -> list[tuple[str, int]]:
    """The (name, parent) pairs of a data set's taxonomy, parents before children.

    Raises:
        InputError: it has no taxonomy, or one that is not a tree with its root first.
    """
    entries = [(node.name, node.parent) for node in index.taxonomy]
    if not entries:
        raise InputError(
            f"{where}: the data set has no taxonomy, from which the concepts of the curriculum are made; "
            "shard one that has (source emoji), or train with the policy shuffled"
        )
    for number, (name, parent) in enumerate(entries):
        if not (-1 <= parent < number) or (parent == -1) != (number == 0):
            raise InputError(
                f"{where}: node {number} ({name}) of its taxonomy has parent {parent}; "
                "the root comes first and parents come before their children"
            )
    return entries


def build(
    entries: Sequence[tuple[str, int]],
    node_of: Ids,
    contents: Ids,
    captions: Ids,
    training: Ids,
    held_out: Ids,
    *,
    needed: int,
) -> Ontology:
    """The ontology of a taxonomy.

    Args:
        entries: (name, parent) of the taxonomy's nodes, root first, parents before children.
        node_of: [samples] deepest node of a sample, -1 for none: then it counts for the root.
        contents: [samples], equal for equal content.
        captions: [samples], equal for equal captions.
        training: ids of the training pairs.
        held_out: ids of the pairs that concepts are measured on.
        needed: different contents that a concept needs to stay.
    """
    below: list[set[int]] = [set() for _ in entries]
    for node, content in {(int(n), int(c)) for n, c in zip(node_of[training], contents[training], strict=True)}:
        below[max(node, 0)].add(content)
    for number in range(len(entries) - 1, 0, -1):
        below[entries[number][1]] |= below[number]

    # From the leaves up, what stands for the subtree of a node: itself, its only child that stays, or nothing.
    kept_children: list[list[int]] = [[] for _ in entries]
    for number in range(len(entries) - 1, 0, -1):
        stands = kept_children[number]
        if len(stands) != 1:
            stands = [number] if len(below[number]) >= needed else []
        kept_children[entries[number][1]].extend(stands)

    kept = [0]
    new_number = {0: 0}
    parents = [-1]
    for number in kept:  # grows while it is walked: breadth first
        for child in sorted(kept_children[number]):
            parents.append(new_number[number])
            new_number[child] = len(kept)
            kept.append(child)

    nearest = np.zeros(len(entries), np.int64)
    for number, (_, parent) in enumerate(entries):
        nearest[number] = new_number.get(number, nearest[max(parent, 0)])
    nodes = tree([(entries[number][0], parent) for number, parent in zip(kept, parents, strict=True)])
    home = nearest[np.maximum(node_of, 0)]
    postings, spans = depth_first(nodes, home[training], training)
    measured, measured_spans = depth_first(nodes, home[held_out], held_out)
    return Ontology(nodes, postings, measured, np.concatenate([spans, measured_spans], axis=1), contents, captions)


def content_numbers(index: SampleIndex) -> Ids:
    """A number a sample, equal where content is: its group, else one from its bytes."""
    contents = np.array(index.groups, np.int64)
    for row in np.flatnonzero(contents < 0):
        contents[row] = -1 - (_hash64(index.content_hash(int(row))) >> 1)
    return contents


def caption_numbers(index: SampleIndex, ids: Ids) -> Ids:
    """A number a sample, equal where the first caption is; -1 where there is no caption."""
    firsts = (next(iter(index.captions(int(row))), "") for row in ids)
    return np.fromiter((_hash64(text) >> 1 if text.strip() else -1 for text in firsts), np.int64, len(ids))


def image_numbers(index: SampleIndex, ids: Ids, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A number in [0, 1) a sample, the same for equal images, so that a duplicate is held out with its twin."""
    hashes = (_hash64(f"{seed}/{index.content_hash(int(row))}") for row in ids)
    return np.fromiter((number / 2.0**64 for number in hashes), np.float64, len(ids))


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
