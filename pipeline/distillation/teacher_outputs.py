"""The stage teacher-outputs: a classifier's logits for every image, as a joined column of the shards.

Any number of students can be trained on the column (`distillation.teacher_column`), and the teacher runs once. It
sees the stored images, resized to its own size and not augmented.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, field_validator

from pipeline.artifacts import Artifact
from pipeline.config import Config, unkeyed
from pipeline.counted import counted
from pipeline.distillation.teacher import FrozenTeacher, open_teacher
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.column_kind import ColumnKind
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.format.joined_columns import column_name_fault, write_columns
from pipeline.sharding.joining.spool import open_spool
from pipeline.stage import Workspace


class TeacherOutputsConfig(Config):
    """The samples to compute outputs for, and the data type to store them in."""

    column: str = Field("logits", min_length=1, description="Name of the column to create.")
    splits: tuple[Literal["train", "val", "test"], ...] = Field(
        ("train", "val"),
        min_length=1,
        description="Splits to compute outputs for. Samples of other splits have no value.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="Data type of the stored logits. float16 halves the size, to 2 bytes per class and sample.",
    )
    batch_size: int = unkeyed(256, ge=1, le=65_536, description="Images per batch. Changes results by rounding only.")
    threads: int = unkeyed(2, ge=1, le=256, description="Number of threads that decode images.")

    @field_validator("column")
    @classmethod
    def _column_name_is_valid(cls, column: str) -> str:
        if fault := column_name_fault(column):
            raise ValueError(fault)
        return column


class ComputeTeacherOutputs:
    """Inputs: "shards", "teacher". Output: columns.arrow and facts.json for `JoinedColumns`, as join-columns writes."""

    name: ClassVar[str] = "teacher-outputs"
    version: ClassVar[int] = 1

    def run(self, config: TeacherOutputsConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        shards, teacher = inputs["shards"], inputs["teacher"]
        index = SampleIndex.open(shards)
        exported = open_teacher(teacher, index)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = FrozenTeacher.from_exported_model(exported, device)
        rows = np.sort(np.concatenate([index.rows(split) for split in SPLITS if split in config.splits]))
        kind = ColumnKind(np.dtype(config.dtype), len(index.label_names))
        shutil.rmtree(work.scratch / "column", ignore_errors=True)
        spool = open_spool(kind, len(index), work.scratch / "column")
        correct = labelled = done = 0
        for batch in evaluation_batches(
            SampleReader.open(shards),
            index,
            rows,
            image_size=exported.preprocessing.image_size,
            channels=exported.preprocessing.channels,
            batch_size=config.batch_size,
            threads=config.threads,
        ):
            logits = model.logits(batch.images.to(device)).float().cpu()
            flat = pa.array(logits.numpy().astype(config.dtype).reshape(-1))
            spool.put(batch.ids.numpy(), pa.FixedSizeListArray.from_arrays(flat, logits.shape[1]))
            has_label = batch.labels >= 0
            correct += int((logits.argmax(dim=-1) == batch.labels)[has_label].sum())
            labelled += int(has_label.sum())
            done += len(batch)
            work.progress(step=done, total=len(rows), note="running the teacher")
        write_columns(work.output, {config.column: (kind, spool.finish(), spool.valid)}, shards=index.fingerprint)
        classes, accuracy = len(index.label_names), round(correct / max(1, labelled), 4)
        headline = f"{counted(classes, 'output')} of {counted(done, 'image')}, accuracy {accuracy:.1%}"
        return {"samples": done, "classes": classes, "accuracy": accuracy, "headline": headline}
