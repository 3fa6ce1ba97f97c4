"""The configuration of the text backbone of a dual encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from model_defs import list_models, model_info
from pipeline.config import Config, added, unkeyed
from pipeline.errors import UnknownNameError

_DEFAULT_MODEL = "text_transformer"


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
        if "pretrained" in self.kwargs:
            raise ValueError("kwargs.pretrained would be fetched by every worker; set pretrained next to kwargs")
        if self.pretrained is None:
            if self.freeze:
                raise ValueError("freeze is true, but there are no trained weights to freeze; set pretrained")
            if self.tokenizer is not None:
                raise ValueError("tokenizer goes with the weights that were trained on it; set pretrained")
        return self

    def check(self) -> None:
        """Checks that `name` is a text model.

        Raises:
            UnknownNameError: there is no such text model; similar names are listed.
        """
        known = [name for name in list_models() if model_info(name).kind == "text"]
        if self.name not in known:
            raise UnknownNameError("text.name: text model", self.name, known)

    def model_kwargs(self, vocabulary_size: int) -> dict[str, Any]:
        """The arguments of `create_model("clip", ...)` for the text backbone, plain JSON values."""
        sizes = (
            {name: getattr(self, name) for name in ("width", "depth", "heads")} if self.name == _DEFAULT_MODEL else {}
        )
        kwargs = {**sizes, "context_length": self.context_length, **self.kwargs, "vocabulary_size": vocabulary_size}
        return (
            {"text_kwargs": kwargs} if self.name == _DEFAULT_MODEL else {"text_tower": self.name, "text_kwargs": kwargs}
        )
