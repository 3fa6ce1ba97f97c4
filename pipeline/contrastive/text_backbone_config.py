"""The configuration of the text backbone of a dual encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from model_defs import ArgumentError, ModelError, create_model, list_models, model_info
from pipeline.config import Config, added, unkeyed
from pipeline.errors import InputError, UnknownNameError

_DEFAULT_MODEL = "text_transformer"
_SIZES = ("width", "depth", "heads")  # fields that are arguments of this model


class TextBackboneConfig(Config):
    """The text backbone. width, depth and heads apply to text_transformer only; other models take `kwargs`."""

    name: str = added(
        _DEFAULT_MODEL,
        description="Name of a text model, e.g. text_transformer or bert_minilm_l6; `tutelage models` lists them.",
    )
    width: int = Field(192, ge=8, le=4096, description="Embedding width. For text_transformer only.")
    depth: int = Field(3, ge=1, le=64, description="Number of transformer blocks. For text_transformer only.")
    heads: int = Field(
        3, ge=1, le=64, description="Number of attention heads; must divide width. For text_transformer only."
    )
    context_length: int = Field(
        24, ge=3, le=512, description="Maximum number of tokens of a text; longer texts are truncated."
    )
    kwargs: dict[str, Any] = added({}, description="Further keyword arguments of the model.")
    # Not in the key: the import-weights artifact that these name is an input, and inputs are in the key.
    pretrained: str | None = unkeyed(
        None,
        min_length=1,
        max_length=1000,
        description="Pretrained weights to start from, e.g. DEFAULT, a folder, or hf:ORG/NAME. null: random "
        "initialisation.",
    )
    tokenizer: Path | None = unkeyed(
        None,
        description="Folder with the tokenizer of the weights: tokenizer.json or vocab.txt. null: the folder of "
        "the weights.",
    )
    freeze: bool = added(False, description="Freeze the pretrained weights and train only the projection.")

    @model_validator(mode="after")
    def _consistent(self) -> TextBackboneConfig:
        if self.name == _DEFAULT_MODEL and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")
        for name in (*(_SIZES if self.name == _DEFAULT_MODEL else ()), "context_length", "pretrained"):
            if name in self.kwargs:
                raise ValueError(f"kwargs.{name} is a field of its own; set {name} next to kwargs")
        for name, origin in (("vocabulary_size", "the tokenizer"), ("output_dim", "embed_dim")):
            if name in self.kwargs:
                raise ValueError(f"kwargs.{name} follows from {origin}; leave it out")
        if self.pretrained is None:
            if self.freeze:
                raise ValueError("freeze is true, but there are no trained weights to freeze; set pretrained")
            if self.tokenizer is not None:
                raise ValueError("tokenizer goes with the weights that were trained on it; set pretrained")
        return self

    def check(self, where: str = "text") -> None:
        """Builds the text backbone on the meta device, without memory.

        Args:
            where: path of this config, for the message.
        Raises:
            UnknownNameError: there is no such text model; similar names are listed.
            InputError: it does not accept these arguments; the message names the argument.
        """
        known = [name for name in list_models() if model_info(name).kind == "text"]
        if self.name not in known:
            raise UnknownNameError(f"{where}.name: text model", self.name, known)
        import torch

        try:
            with torch.device("meta"):
                create_model(self.name, **self._kwargs())
        except ArgumentError as error:
            raise InputError(f"{where}.kwargs.{error.argument}: {error.problem} ({error.model})") from None
        except ModelError as error:
            raise InputError(f"{where}: {error}") from None

    def model_kwargs(self, vocabulary_size: int) -> dict[str, Any]:
        """The arguments of `create_model("clip", ...)` for the text backbone, plain JSON values."""
        kwargs = {**self._kwargs(), "vocabulary_size": vocabulary_size}
        return (
            {"text_kwargs": kwargs} if self.name == _DEFAULT_MODEL else {"text_tower": self.name, "text_kwargs": kwargs}
        )

    def _kwargs(self) -> dict[str, Any]:
        """The arguments of the text model, except vocabulary_size and output_dim."""
        sizes = {name: getattr(self, name) for name in _SIZES} if self.name == _DEFAULT_MODEL else {}
        return {**sizes, "context_length": self.context_length, **self.kwargs}
