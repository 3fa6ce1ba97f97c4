"""The stage check-leaks: which evaluation images are in the training data, exactly or nearly.

shards           its train split against its val and test
shards + other   in addition, the train split of each against val and test of the other
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow.parquet as pq

from pipeline.artifacts import Artifact
from pipeline.errors import InputError, TutelageError
from pipeline.json_file import write_json
from pipeline.leaks.bounds import LISTING, SHEET, LeakCheckConfig
from pipeline.leaks.findings import ImageRef, pair_table, ranked_pairs, split_findings, with_names
from pipeline.leaks.kinds import KINDS
from pipeline.leaks.page import counts_line, findings_json, markdown
from pipeline.leaks.search import DataSet, SearchResult, find_leaks
from pipeline.leaks.sheet import leak_sheet
from pipeline.leaks.signature_cache import gather_signatures
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.stage import Workspace

# Training data -> evaluation data.
_ONE_DATA_SET = (("shards", "shards"),)
_TWO_DATA_SETS = (*_ONE_DATA_SET, ("other", "shards"), ("shards", "other"))


class CheckLeaks:
    """shards (+ other) -> leaks.json, leaks.md, leaks.parquet, leaks.png; leaks do not make it fail."""

    name: ClassVar[str] = "check-leaks"
    version: ClassVar[int] = 3

    def run(self, config: LeakCheckConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        indexes = {name: SampleIndex.open(inputs[name]) for name in ("shards", "other") if name in inputs}
        comparisons = _comparisons(inputs, indexes)
        data = {name: _data_set(name, inputs[name], index, config, work) for name, index in indexes.items()}
        results = {
            (train, evaluation): _search(
                data[train], data[evaluation], config, work, f"{evaluation} in the training data of {train}"
            )
            for train, evaluation in comparisons
        }
        splits, pairs = [], []
        for name in data:
            searches = [
                (train, data[train], result) for (train, evaluation), result in results.items() if evaluation == name
            ]
            if searches:
                splits += split_findings(name, data[name], [result for _, _, result in searches])
                pairs += ranked_pairs(name, data[name], searches, config.listed)
        work.progress(note="listing and pictures")
        pairs = with_names(sorted(pairs, key=lambda pair: pair.match.rank), {name: inputs[name] for name in data})
        unreadable = {name: data_set.signatures.unreadable for name, data_set in data.items()}
        findings = findings_json({name: inputs[name].name for name in data}, config, splits, pairs, unreadable)
        write_json(work.output / "leaks.json", findings)
        (work.output / "leaks.md").write_text(markdown(findings, pairs), encoding="utf-8")
        pq.write_table(pair_table(pairs), work.output / LISTING, compression="zstd")
        readers = {name: SampleReader(inputs[name], index) for name, index in indexes.items()}
        sheet = leak_sheet(
            pairs,
            lambda image: _image_bytes(readers, image),
            title="Evaluation images next to training images",
            subtitle=f"{counts_line(findings)}   (alike: difference as a fraction of the limit, differing hash bits)",
            limit=config.pictures,
        )
        sheet.save(work.output / SHEET, optimize=True)
        return {
            "headline": counts_line(findings),
            "images": sum(split.images for split in splits),
            **{kind: sum(split.found[kind] for split in splits) for kind in KINDS},
            "unreadable": sum(map(len, unreadable.values())),
        }


def _comparisons(inputs: Mapping[str, Artifact], indexes: Mapping[str, SampleIndex]) -> list[tuple[str, str]]:
    """(training data, evaluation data) of each search for which both exist.

    Raises:
        InputError: there is nothing to compare.
    """
    if "other" in inputs and inputs["other"].name == inputs["shards"].name:
        raise InputError(f"check-leaks: {inputs['shards'].name} is both data sets; leave the second out")
    train = {name: bool(index.rows("train").size) for name, index in indexes.items()}
    evaluation = {name: any(index.rows(split).size for split in SPLITS[1:]) for name, index in indexes.items()}
    comparisons = [
        (left, right)
        for left, right in (_TWO_DATA_SETS if "other" in inputs else _ONE_DATA_SET)
        if train[left] and evaluation[right]
    ]
    if not comparisons:
        names = " and ".join(artifact.name for artifact in inputs.values())
        raise InputError(f"check-leaks: {names} lacks training images or evaluation images; nothing to compare")
    return comparisons


def _data_set(name: str, artifact: Artifact, index: SampleIndex, config: LeakCheckConfig, work: Workspace) -> DataSet:
    signatures = gather_signatures(
        artifact,
        index,
        work.store.local / "looks",
        max_unreadable_share=config.max_unreadable_share,
        threads=config.threads,
        progress=work.progress,
        note=f"reading the images of {name}",
    )
    return DataSet(index, signatures, index.content_numbers())


def _search(train: DataSet, evaluation: DataSet, config: LeakCheckConfig, work: Workspace, note: str) -> SearchResult:
    work.progress(note=f"searching for {note}")
    rows = evaluation.index.rows()
    return find_leaks(
        train,
        train.index.rows("train"),
        evaluation,
        rows[evaluation.index.splits != SPLITS.index("train")],
        radius=config.near_radius,
        tolerance=config.near_difference,
        listed=config.listed,
        on_compared=lambda count: work.progress(step=count, note=f"searching for {note}"),
    )


def _image_bytes(readers: Mapping[str, SampleReader], image: ImageRef) -> bytes | None:
    try:
        return readers[image.data_set].read(image.row)
    except TutelageError:
        return None
