"""ExportedModel: a trained model for every use except resuming its training.

    model/model.safetensors    weights; no pickle anywhere
    model/architecture.json    {"name", "kwargs", "kind", "templates"}: the arguments of `create_model`
    model/preprocessing.json   image size, channels, mean and standard deviation
    model/labels.json          the names of the classes, in the order of the logits
    model/wordpieces.json.gz   the vocabulary of a dual encoder with a text backbone for word pieces

Teachers, image backbones, evaluation and the registry read this folder. A run resumes from its checkpoints instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model_defs import ModelError, create_model
from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError, InputError
from pipeline.json_file import write_json
from pipeline.loading.tokenizer import CaptionTokenizer, Tokenizer, WordPieceTokenizer
from pipeline.loading.wordpiece_vocabulary import VOCABULARY, load_vocabulary, write_vocabulary
from pipeline.preprocessing import Preprocessing, per_channel

FOLDER = "model"
ARCHITECTURE = "architecture.json"
PREPROCESSING = "preprocessing.json"
WEIGHTS = "model.safetensors"

Kind = Literal["classifier", "dual-encoder"]


@dataclass(frozen=True)
class ExportedModel:
    """The metadata of a model folder; only `build` and `weights` load weights.

    Attributes:
        folder: local folder of its files.
        kind: "classifier" or "dual-encoder".
        architecture: name in model_defs.
        kwargs: other arguments of `create_model`.
        labels: class names, in the order of the logits; for a dual encoder those of the data set, for prompts.
        templates: prompt templates, each with one {} or {a_label}; empty for a classifier.
        artifact: the artifact that contains it, if it was opened from one.
    """

    folder: Path
    kind: Kind
    architecture: str
    kwargs: dict[str, Any]
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    artifact: Artifact | None = field(default=None, repr=False, compare=False)

    @classmethod
    def write(
        cls,
        folder: Path,
        model: nn.Module | Mapping[str, Tensor],
        *,
        kind: Kind,
        architecture: str,
        kwargs: Mapping[str, Any],
        preprocessing: Preprocessing,
        labels: Sequence[str],
        templates: Sequence[str] = (),
        vocabulary: Mapping[str, Any] | None = None,
    ) -> ExportedModel:
        """Writes the files of a model.

        Args:
            folder: created if missing; in a stage `work.output / "model"`.
            model: the module (not wrapped), or a state dict, e.g. that of the moving average.
            kwargs: all arguments with which `create_model(architecture, ...)` builds the module; JSON values.
            vocabulary: of a text backbone for word pieces; None: CLIP's byte pairs, or no texts.
        Raises:
            InputError: the weights do not fit the architecture with these arguments.
        """
        plain = json.loads(json.dumps(dict(kwargs)))
        state = model.state_dict() if isinstance(model, nn.Module) else dict(model)
        where = f"exporting {architecture}"
        with torch.device("meta"):
            differences = _differences(state, _create_model(where, architecture, plain).state_dict())
        if differences:
            raise InputError(f"{where}: the weights are not those of create_model with these arguments: {differences}")
        folder.mkdir(parents=True, exist_ok=True)
        _save_weights(folder / WEIGHTS, state)
        described = {"name": architecture, "kwargs": plain, "kind": kind, "templates": list(templates)}
        write_json(folder / ARCHITECTURE, described, sort_keys=True)
        write_json(folder / PREPROCESSING, asdict(preprocessing), sort_keys=True)
        write_json(folder / "labels.json", list(labels))
        if vocabulary is not None:
            write_vocabulary(vocabulary, folder / VOCABULARY)
        return cls.read(folder)

    @classmethod
    def open(cls, artifact: Artifact) -> ExportedModel:
        """The model of a training artifact.

        Raises:
            InputError: the artifact contains no model.
        """
        if f"{FOLDER}/{ARCHITECTURE}" not in artifact.files:
            raise InputError(f"{artifact.name}: contains no model; give the artifact of a stage that trains one")
        return replace(cls.read(artifact.folder(f"{FOLDER}/")), artifact=artifact)

    @classmethod
    def read(cls, folder: Path) -> ExportedModel:
        """The model in a folder.

        Raises:
            DamagedError: a file is missing or invalid.
        """
        try:
            architecture = json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8"))
            preprocessing = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
            labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            if architecture["kind"] not in get_args(Kind):
                raise ValueError(f"kind is {architecture['kind']!r}")
            return cls(
                folder=folder,
                kind=architecture["kind"],
                architecture=architecture["name"],
                kwargs=architecture["kwargs"],
                preprocessing=Preprocessing(
                    **{
                        **preprocessing,
                        **{
                            name: per_channel(preprocessing[name], preprocessing["channels"])
                            for name in ("mean", "std")
                        },
                    }
                ),
                labels=tuple(labels),
                templates=tuple(architecture["templates"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{folder}: not a complete exported model ({error}); run its stage again") from None

    @property
    def context_length(self) -> int:
        """Number of tokens that the dual encoder reads of a text."""
        return int(self.kwargs.get("text_kwargs", {}).get("context_length", 77))

    @property
    def reads_word_pieces(self) -> bool:
        """Whether the text backbone reads BERT's word pieces instead of CLIP's byte pairs."""
        return (self.folder / VOCABULARY).exists()

    def tokenizer(self) -> CaptionTokenizer:
        """The tokenizer with which the dual encoder was trained.

        Raises:
            DamagedError: its vocabulary cannot be read.
        """
        if not self.reads_word_pieces:
            return Tokenizer(self.context_length)
        path = self.folder / VOCABULARY
        try:
            return WordPieceTokenizer(load_vocabulary(path), self.context_length)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise DamagedError(f"{path}: not a vocabulary ({error}); run its stage again") from None

    def weights(self) -> dict[str, Tensor]:
        """The state dict, on the CPU.

        Raises:
            DamagedError: the file is missing, truncated, not in its format, or differs from what was committed.
        """
        path = self.folder / WEIGHTS
        if self.artifact is not None:
            # Verified when the artifact was opened; verified again if the file was changed since.
            path = self.artifact.path(f"{FOLDER}/{WEIGHTS}")
        try:
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                same_as = json.loads((file.metadata() or {}).get("same_as", "{}"))
        except (OSError, SafetensorError, ValueError) as error:
            raise DamagedError(f"{path}: cannot be read as safetensors ({error}); run its stage again") from None
        return {**state, **{name: state[other] for name, other in same_as.items()}}

    def build(self) -> nn.Module:
        """The model with its weights, in evaluation mode, on the CPU.

        Raises:
            InputError: this version of model_defs cannot build the architecture.
            DamagedError: the weights do not fit it.
        """
        model = _create_model(str(self.folder), self.architecture, self.kwargs)
        state = self.weights()
        differences = _differences(state, model.state_dict())
        if differences:
            raise DamagedError(f"{self.folder / WEIGHTS}: does not fit {self.architecture}: {differences}")
        model.load_state_dict(state, strict=True)
        return model.eval()


def _create_model(where: str, architecture: str, kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        return create_model(architecture, **kwargs)
    except (ModelError, TypeError) as error:
        raise InputError(f"{where}: {error}") from None


def _differences(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], shown: int = 3) -> str:
    """The differences of two state dicts in a few words; "" if there are none."""
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    differences = []
    for word, names in (("missing", missing), ("unknown", unknown), ("other shape", reshaped)):
        if names:
            differences.append(f"{word} {', '.join(names[:shown])}" + (", ..." if len(names) > shown else ""))
    return "; ".join(differences)


def _save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes each tensor once; other names of a tensor (tied weights) are stored in the file's metadata."""
    tensors: dict[str, Tensor] = {}
    same_as: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        identity = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and identity in first:
            same_as[name] = first[identity]
            continue
        first[identity] = name
        # A copy: safetensors refuses views of one storage, such as slices of a flat buffer.
        tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    save_file(tensors, path, metadata={"same_as": json.dumps(same_as, sort_keys=True)})
