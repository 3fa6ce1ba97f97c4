"""The stage build-ontology: the data set's taxonomy, reduced to the concepts that can fill a batch.

A concept is retained if enough images of distinct content are below it to compose batches without repetition.
A parent is retained only if it joins two or more retained concepts; otherwise its child replaces it.
Pairs of a removed concept are assigned to its nearest retained ancestor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.contrastive.ontology import Ontology, SampleIds, build_nodes, sort_depth_first
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.counted import counted
from pipeline.counter_rng import text_hash
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import Keep, open_columns
from pipeline.stage import Workspace


class BuildOntology:
    """Inputs: "shards", optionally "columns". Output: ontology.json and the arrays of `Ontology`."""

    name: ClassVar[str] = "build-ontology"
    version: ClassVar[int] = 1

    def run(self, config: OntologyConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        shards = inputs["shards"]
        index, columns = open_columns(
            inputs.get("columns"), SampleIndex.open(shards), keep=config.keep, captions_from=config.captions_from
        )
        entries = taxonomy_entries(index, shards.name)
        work.progress(note="reading captions")
        captions = caption_numbers(index, np.arange(len(index), dtype=np.int64))
        training = index.rows("train")
        training = training[captions[training] >= 0]
        if columns is not None and config.keep:
            training = training[columns.in_ranges(config.keep, 0, len(index))[training]]
        if not len(training):
            raise InputError(
                f"{shards.name}: no training sample has a caption{' and is within keep' if config.keep else ''}, so "
                "there is nothing to align images with; shard a data set with captions"
            )
        held_out = np.zeros(0, np.int64)
        if config.use_validation_split:
            held_out = index.rows("val")
            held_out = held_out[captions[held_out] >= 0]
        if config.held_out_share > 0:
            is_held_out = image_uniforms(index, training, config.seed) < config.held_out_share
            held_out = np.sort(np.concatenate([held_out, training[is_held_out]]))
            training = training[~is_held_out]
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
            "headline": f"{counted(len(ontology), 'concept')}, {counted(len(training), 'training pair')}",
        }


def check_same_pairs(ontology: Artifact, columns: Artifact | None, captions_from: str | None, keep: Keep) -> None:
    """Checks that an ontology was built from the pairs on which a model is trained.

    Raises:
        InputError: it was built with other captions, or from other samples.
    """
    built = {"captions_from": ontology.config.get("captions_from"), "keep": ontology.config.get("keep", {})}
    wanted = {"captions_from": captions_from, "keep": {name: list(ends) for name, ends in keep.items()}}
    columns_name = columns.name if columns is not None and (captions_from is not None or keep) else None
    if built != wanted or (columns_name is not None and ontology.manifest["inputs"].get("columns") != columns_name):
        raise InputError(
            f"{ontology.name}: was built with captions_from={built['captions_from']}, keep={built['keep']}; build one "
            f"with captions_from={captions_from}, keep={wanted['keep']} and the same columns"
        )


def taxonomy_entries(index: SampleIndex, where: str) -> list[tuple[str, int]]:
    """The (name, parent) pairs of a data set's taxonomy, parents before children.

    Raises:
        InputError: there is no taxonomy, or it is not a tree with its root first.
    """
    entries = [(node.name, node.parent) for node in index.taxonomy]
    if not entries:
        raise InputError(
            f"{where}: the data set has no taxonomy, from which the concepts of the curriculum are taken; "
            "shard one with a taxonomy (source emoji), or train with the policy shuffled"
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
    node_of: NDArray[np.int64],
    contents: NDArray[np.int64],
    captions: NDArray[np.int64],
    training: SampleIds,
    held_out: SampleIds,
    *,
    needed: int,
) -> Ontology:
    """Builds the ontology of a taxonomy.

    Args:
        entries: (name, parent) of the taxonomy's nodes, root first, parents before children.
        node_of: [samples] deepest node of each sample; -1 (no node) is treated as the root.
        contents: [samples] content numbers, equal for samples with the same content.
        captions: [samples] caption numbers, equal for samples with the same first caption.
        training: ids of the training pairs.
        held_out: ids of the pairs on which the accuracy of concepts is measured.
        needed: minimum number of distinct contents below a retained concept.
    """
    below: list[set[int]] = [set() for _ in entries]
    for node, content in {(int(n), int(c)) for n, c in zip(node_of[training], contents[training], strict=True)}:
        below[max(node, 0)].add(content)
    for number in range(len(entries) - 1, 0, -1):
        below[entries[number][1]] |= below[number]

    # From the leaves up: a node's subtree is represented by the node, by its only retained child, or not at all.
    retained_children: list[list[int]] = [[] for _ in entries]
    for number in range(len(entries) - 1, 0, -1):
        representative = retained_children[number]
        if len(representative) != 1:
            representative = [number] if len(below[number]) >= needed else []
        retained_children[entries[number][1]].extend(representative)

    retained = [0]
    new_number = {0: 0}
    parents = [-1]
    for number in retained:  # the list grows during the loop: breadth-first order
        for child in sorted(retained_children[number]):
            parents.append(new_number[number])
            new_number[child] = len(retained)
            retained.append(child)

    nearest_retained = np.zeros(len(entries), np.int64)
    for number, (_, parent) in enumerate(entries):
        nearest_retained[number] = new_number.get(number, nearest_retained[max(parent, 0)])
    nodes = build_nodes([(entries[number][0], parent) for number, parent in zip(retained, parents, strict=True)])
    new_node_of = nearest_retained[np.maximum(node_of, 0)]
    postings, spans = sort_depth_first(nodes, new_node_of[training], training)
    held_out, held_out_spans = sort_depth_first(nodes, new_node_of[held_out], held_out)
    return Ontology(nodes, postings, held_out, np.concatenate([spans, held_out_spans], axis=1), contents, captions)


def content_numbers(index: SampleIndex) -> NDArray[np.int64]:
    """One number per sample, equal for equal content: its content group, or a hash of its bytes if it has no group."""
    contents = np.array(index.groups, np.int64)
    for row in np.flatnonzero(contents < 0):
        contents[row] = -1 - (_number(index.content_hash(int(row))) >> 1)
    return contents


def caption_numbers(index: SampleIndex, ids: SampleIds) -> NDArray[np.int64]:
    """One number per sample, equal for equal first captions; -1 without a caption."""
    first_captions = (next(iter(index.captions(int(row))), "") for row in ids)
    return np.fromiter((_number(text) >> 1 if text.strip() else -1 for text in first_captions), np.int64, len(ids))


def image_uniforms(index: SampleIndex, ids: SampleIds, seed: int) -> NDArray[np.float64]:
    """One number in [0, 1) per sample, equal for equal images, so that duplicates are held out together."""
    hashes = (_number(f"{seed}/{index.content_hash(int(row))}") for row in ids)
    return np.fromiter((number / 2.0**64 for number in hashes), np.float64, len(ids))


def _number(text: str) -> int:
    return text_hash(text, digest_bytes=8, byteorder="little")
