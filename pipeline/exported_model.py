"""ExportedModel: a trained model for everyone but the run that trained it.

    model/model.safetensors    weights; no pickle anywhere
    model/architecture.json    {"name", "kwargs", "kind", "templates"}: what `create_model` is called with
    model/preprocessing.json   image size, channels, mean and standard deviation
    model/labels.json          the names of the classes, in the order of the logits
    model/wordpieces.json.gz   the vocabulary of a dual encoder whose text tower reads word pieces

Teachers, image towers, evaluation and the registry read this folder. To resume a run is the business of
its checkpoints.
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
from pipeline.loading.tokenizer import CaptionTokenizer, Tokenizer, WordPieceTokenizer
from pipeline.loading.wordpiece_vocabulary import VOCABULARY, load_vocabulary, write_vocabulary
from pipeline.whole_files import write_json

FOLDER = "model"
WEIGHTS = "model.safetensors"

Kind = Literal["classifier", "dual-encoder"]


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a model's input.

    Attributes:
        image_size: side of the square images in pixels.
        channels: 3 for RGB, 1 for grey.
        mean, std: of each channel, for pixels in [0, 1].
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise InputError(
                f"preprocessing: {len(self.mean)} means and {len(self.std)} deviations for {self.channels} channels"
            )
        if min(self.std) <= 0:
            raise InputError(f"preprocessing: a standard deviation is {min(self.std)}; it must be above 0")

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] to float32, each channel with its mean and deviation, on the images' device."""
        # Not to wait for a GPU here lets it work on one step while the next is prepared.
        mean, std = (values.to(images.device, non_blocking=True) for values in self.in_pixels())
        return normalise_pixels(images, mean, std)

    def in_pixels(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation for pixels in [0, 255], each [C, 1, 1]."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return 255 * mean[:, None, None], 255 * std[:, None, None]


def normalise_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The one formula, in training and in the registered program: float32 (images - mean) / std."""
    return (images.float() - mean) / std


@dataclass(frozen=True)
class ExportedModel:
    """A model folder that was read; weights are loaded by `build` and `weights` only.

    Attributes:
        folder: where its files lie on this machine.
        kind: "classifier" or "dual-encoder".
        architecture: name in model_defs.
        kwargs: what `create_model` takes besides.
        labels: class names, in the order of the logits; for a dual encoder the data set's, for prompts.
        templates: of prompts, each with one {}; empty for a classifier.
        artifact: the artifact that it lies in, if it was opened from one.
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
            folder: made if need be; in a stage `work.output / "model"`.
            model: the module (not wrapped), or its state dict, e.g. that of the moving average.
            kwargs: all that `create_model(architecture, ...)` needs to build it again; plain JSON values.
            vocabulary: of the word pieces that its text tower reads; None: CLIP's byte pairs, or no texts.
        Raises:
            InputError: the weights are not those of that architecture with those arguments.
        """
        plain = json.loads(json.dumps(dict(kwargs)))
        state = model.state_dict() if isinstance(model, nn.Module) else dict(model)
        where = f"exporting {architecture}"
        with torch.device("meta"):
            differences = _differences(state, _created(where, architecture, plain).state_dict())
        if differences:
            raise InputError(f"{where}: the weights are not those of create_model with these arguments: {differences}")
        folder.mkdir(parents=True, exist_ok=True)
        _save_weights(folder / WEIGHTS, state)
        described = {"name": architecture, "kwargs": plain, "kind": kind, "templates": list(templates)}
        write_json(folder / "architecture.json", described, sort_keys=True)
        write_json(folder / "preprocessing.json", asdict(preprocessing), sort_keys=True)
        write_json(folder / "labels.json", list(labels))
        if vocabulary is not None:
            write_vocabulary(vocabulary, folder / VOCABULARY)
        return cls.read(folder)

    @classmethod
    def open(cls, artifact: Artifact) -> ExportedModel:
        """The model of a training artifact.

        Raises:
            InputError: the artifact holds no model.
        """
        if f"{FOLDER}/architecture.json" not in artifact.files:
            raise InputError(f"{artifact.uri}: holds no model; give the artifact of a stage that trains one")
        return replace(cls.read(artifact.folder(f"{FOLDER}/")), artifact=artifact)

    @classmethod
    def read(cls, folder: Path) -> ExportedModel:
        """The model whose files lie in `folder`.

        Raises:
            DamagedError: a file is missing or cannot be understood.
        """
        try:
            architecture = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
            shape = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
            labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            if architecture["kind"] not in get_args(Kind):
                raise ValueError(f"kind is {architecture['kind']!r}")
            return cls(
                folder=folder,
                kind=architecture["kind"],
                architecture=architecture["name"],
                kwargs=architecture["kwargs"],
                preprocessing=Preprocessing(**{**shape, "mean": tuple(shape["mean"]), "std": tuple(shape["std"])}),
                labels=tuple(labels),
                templates=tuple(architecture["templates"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{folder}: no whole exported model ({error}); run its stage again") from None

    @property
    def context_length(self) -> int:
        """Tokens of a text that the dual encoder reads."""
        return int(self.kwargs.get("text_kwargs", {}).get("context_length", 77))

    @property
    def reads_word_pieces(self) -> bool:
        """Whether the text tower reads BERT's word pieces; else it reads CLIP's byte pairs."""
        return (self.folder / VOCABULARY).exists()

    def tokenizer(self) -> CaptionTokenizer:
        """What turns texts into the tokens that the dual encoder was trained on.

        Raises:
            DamagedError: its vocabulary cannot be read.
        """
        if not self.reads_word_pieces:
            return Tokenizer(self.context_length)
        path = self.folder / VOCABULARY
        try:
            return WordPieceTokenizer(load_vocabulary(path), self.context_length)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise DamagedError(f"{path}: no vocabulary ({error}); run its stage again") from None

    def weights(self) -> dict[str, Tensor]:
        """The state dict, on the CPU.

        Raises:
            DamagedError: the file is missing, cut or not in its format, or its bytes are not what was committed.
        """
        path = self.folder / WEIGHTS
        if self.artifact is not None:
            # Compared when it was opened; again if it was written to since.
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
        model = _created(str(self.folder), self.architecture, self.kwargs)
        state = self.weights()
        differences = _differences(state, model.state_dict())
        if differences:
            raise DamagedError(f"{self.folder / WEIGHTS}: does not fit {self.architecture}: {differences}")
        model.load_state_dict(state, strict=True)
        return model.eval()


def _created(where: str, architecture: str, kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        return create_model(architecture, **kwargs)
    except (ModelError, TypeError) as error:
        raise InputError(f"{where}: {error}") from None


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], shown: int = 3) -> str:
    """What tells two state dicts apart, in a few words; empty if nothing does."""
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    reshaped = [
        f"{name} {tuple(found[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    parts = []
    for word, names in (("missing", missing), ("unknown", unknown), ("other shape", reshaped)):
        if names:
            parts.append(f"{word} {', '.join(names[:shown])}" + (", ..." if len(names) > shown else ""))
    return "; ".join(parts)


def _save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes each tensor once; names of the same tensor (tied weights) are noted in the file's metadata."""
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
