"""The flows by name, as plain data: the command line and the deployments read it without importing a flow."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UnknownNameError

if TYPE_CHECKING:
    from pipeline.config import Config


@dataclass(frozen=True)
class FlowEntry:
    """A flow: its name, what it does, and where its code is.

    Attributes:
        name: e.g. "train-teacher"; the module and the function have the same name with underscores.
        parameters: name of its parameter model in flows.parameters.
        summary: inputs -> outputs, in words.
    """

    name: str
    parameters: str
    summary: str

    @property
    def function_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def entrypoint(self) -> str:
        """The entrypoint from which Prefect loads it: FILE:FUNCTION."""
        return f"flows/{self.function_name}.py:{self.function_name}"

    def parameter_model(self) -> type[Config]:
        model: type[Config] = getattr(importlib.import_module("flows.parameters"), self.parameters)
        return model

    def load(self) -> Any:
        """The Prefect flow; imports Prefect."""
        return getattr(importlib.import_module(f"flows.{self.function_name}"), self.function_name)


FLOWS = {
    entry.name: entry
    for entry in (
        FlowEntry("shard-dataset", "ShardDatasetParameters", "source -> shards, index, data card"),
        FlowEntry("train-teacher", "TrainTeacherParameters", "shards -> teacher and its metrics"),
        FlowEntry("distill-student", "DistillStudentParameters", "shards and teacher -> student and its metrics"),
        FlowEntry("pretrain-clip", "PretrainClipParameters", "image-text shards and student -> dual encoder"),
        FlowEntry("register-model", "RegisterModelParameters", "model and metrics -> registry version, gate, alias"),
        FlowEntry("lifecycle", "LifecycleParameters", "all of them, as one graph"),
    )
}


def find_flow(name: str) -> FlowEntry:
    """The flow with this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in FLOWS:
        raise UnknownNameError("flow", name, FLOWS)
    return FLOWS[name]
