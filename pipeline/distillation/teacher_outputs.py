"""The stage teacher-outputs: a classifier's logits for every image, as a joined column of the shards.

Students learn from the column (`distillation.teacher_column`) as often as they like; the teacher runs once. The images
are seen as they are stored: resized to the teacher's size, not varied.
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
from pipeline.distillation.teacher import FrozenTeacher, check_labels
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.format.joined_columns import column_name_fault, write_columns
from pipeline.sharding.format.values import ColumnKind
from pipeline.sharding.joining.spool import open_spool
from pipeline.stage import Workspace


class TeacherOutputsConfig(Config):
    """Which outputs are kept, and how."""

    column: str = Field("logits", min_length=1, description="Name of the column.")
    splits: tuple[Literal["train", "val", "test"], ...] = Field(
        ("train", "val"), min_length=1, description="Splits whose images the teacher sees; others have no value."
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="Numbers that are stored; float16 takes half the disk: 2 bytes a class and sample."
    )
    batch_size: int = unkeyed(256, ge=1, le=65_536, description="Images at once; it changes results by rounding only.")
    threads: int = unkeyed(2, ge=1, le=256, description="Threads that decode images.")

    @field_validator("column")
    @classmethod
    def _column_can_be_called_so(cls, column: str) -> str:
        if fault := column_name_fault(column):
            raise ValueError(fault)
        return column


class AskTeacher:
    """Inputs {"shards", "teacher"}; output: columns.arrow and facts.json, for `JoinedColumns`, as of join-columns."""

    name: ClassVar[str] = "teacher-outputs"
    version: ClassVar[int] = 1

    def run(self, config: TeacherOutputsConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        shards, teacher = inputs["shards"], inputs["teacher"]
        index = SampleIndex.open(shards)
        exported = check_labels(teacher, index)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        asked = FrozenTeacher.of(exported, device)
        rows = np.sort(np.concatenate([index.rows(split) for split in SPLITS if split in config.splits]))
        kind = ColumnKind(np.dtype(config.dtype), len(index.label_names))
        shutil.rmtree(work.scratch / "column", ignore_errors=True)
        spool = open_spool(kind, len(index), work.scratch / "column")
        right = labelled = done = 0
        for batch in evaluation_batches(
            SampleReader.open(shards),
            index,
            rows,
            image_size=exported.preprocessing.image_size,
            channels=exported.preprocessing.channels,
            batch_size=config.batch_size,
            threads=config.threads,
        ):
            logits = asked.logits(batch.images.to(device)).float().cpu()
            flat = pa.array(logits.numpy().astype(config.dtype).reshape(-1))
            spool.put(batch.ids.numpy(), pa.FixedSizeListArray.from_arrays(flat, logits.shape[1]))
            known = batch.labels >= 0
            right += int((logits.argmax(dim=-1) == batch.labels)[known].sum())
            labelled += int(known.sum())
            done += len(batch)
            work.progress(step=done, total=len(rows), note="asking the teacher")
        write_columns(work.output, {config.column: (kind, spool.finish(), spool.valid)}, shards=index.fingerprint)
        return {"samples": done, "classes": len(index.label_names), "accuracy": round(right / max(1, labelled), 4)}
