"""The registered model: encoded images in, a DataFrame out, without Tutelage.

MLflow stores this file with the model and runs it where the model is loaded, so it imports only the
standard library, torch, pandas, NumPy, Pillow and MLflow; pipeline/pixels/decode.py, which defines how an
image is decoded, is written into the stored copy (package.py). Its settings are in service.json; it runs
exported programs, which include the normalisation.

    classifier      label, score, top_k: [{"label", "score"}, ...], the five best
    dual encoder    label, score, ranking: [{"label", "score", "cosine"}, ...], every prompt, the best first

One row per image, in the order given. The prompts of a dual encoder are params={"prompts": [...]}, used as
they are; without them the labels of the data set are ranked, each by several prompts. `score` is a
probability among the labels or prompts; `cosine` does not depend on the other labels or prompts.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pipeline.pixels.decode import MAX_DECODED_BYTES
from pipeline.pixels.decode import decode as decode_pixels

_BATCH = 64  # images or texts at once; bounds the memory of a call
_TOP_K = 5


class ServedModel(PythonModel):
    """A classifier or a dual encoder, according to service.json."""

    def load_context(self, context: Any) -> None:
        """Loads the programs from the folder that MLflow fetched, after checking every file's SHA-256.

        Raises:
            MlflowException: a file has changed since registration, or a program contains more than data.
        """
        folder = Path(context.artifacts["served"])
        self.service: dict[str, Any] = json.loads((folder / "service.json").read_text(encoding="utf-8"))
        check = _module(folder / "program_check.py")
        try:
            check.check_files(folder, self.service["digests"])
            self.programs = {name: check.load_program(folder / f"{name}.pt2") for name in self.service["programs"]}
        except check.DamagedProgramError as error:
            raise MlflowException(str(error)) from None
        tokenizer = self.service.get("tokenizer")
        self.encoder: Any = _text_encoder(folder, tokenizer) if tokenizer is not None else None
        self.label_features: Tensor | None = None

    def predict(  # type: ignore[override]  # MLflow takes it without a context too
        self, model_input: list[bytes], params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image.

        Args:
            model_input: encoded images: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM or QOI.
            params: for a dual encoder {"prompts": [...]}; an empty list ranks the labels.
        Raises:
            ValueError: an image cannot be decoded (the message has its number in the list), or a parameter is
                unknown or not a list of texts.
        """
        prompts = _prompts(params, ranks=self.encoder is not None)
        with torch.inference_mode():
            if self.encoder is None:
                return self._classify(model_input)
            return self._rank(model_input, prompts)

    def _classify(self, images: Sequence[bytes]) -> pd.DataFrame:
        labels = self.service["labels"]
        rows = []
        for batch in self._batches(images):
            probabilities = self.programs["program"](batch).softmax(dim=1)
            for scores, indices in zip(*probabilities.topk(min(_TOP_K, len(labels))), strict=True):
                best = [
                    {"label": labels[index], "score": score}
                    for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
                ]
                rows.append({**best[0], "top_k": best})
        return pd.DataFrame(rows, columns=["label", "score", "top_k"])

    def _rank(self, images: Sequence[bytes], prompts: list[str]) -> pd.DataFrame:
        if prompts:
            names, texts = prompts, self._encode_texts(prompts)
        else:
            names, texts = self.service["labels"], self._label_features()
        rows = []
        for batch in self._batches(images):
            cosines = self.programs["encode_image"](batch) @ texts.T
            probabilities = (self.service["logit_scale"] * cosines).softmax(dim=1)
            for row_cosines, row_scores in zip(cosines, probabilities, strict=True):
                order = row_cosines.argsort(descending=True, stable=True).tolist()
                ranking = [
                    {"label": names[index], "score": float(row_scores[index]), "cosine": float(row_cosines[index])}
                    for index in order
                ]
                rows.append({"label": ranking[0]["label"], "score": ranking[0]["score"], "ranking": ranking})
        return pd.DataFrame(rows, columns=["label", "score", "ranking"])

    def _batches(self, images: Sequence[bytes]) -> Iterator[Tensor]:
        """uint8 [B, C, S, S]."""
        size, channels = self.service["image_size"], self.service["channels"]
        for start in range(0, len(images), _BATCH):
            pixels = []
            for number, data in enumerate(images[start : start + _BATCH], start + 1):
                try:
                    pixels.append(resize_to_square(decode(data, channels), size))
                except ValueError as error:
                    raise ValueError(
                        f"image {number} of {len(images)} ({len(data)} bytes) cannot be decoded: {error};"
                        " send JPEG, PNG, WebP or another common format"
                    ) from None
            yield torch.stack(pixels)

    def _encode_texts(self, texts: list[str]) -> Tensor:
        """Unit vectors [T, E]."""
        length = self.service["context_length"]
        tokens = torch.tensor(self.encoder.encode_batch(texts, length), dtype=torch.int64)
        return torch.cat([self.programs["encode_text"](chunk) for chunk in tokens.split(_BATCH)])

    def _label_features(self) -> Tensor:
        """Unit vectors of the labels, [K, E]: each the normalised mean over its prompts; computed once."""
        if self.label_features is None:
            phrasings: list[list[str]] = self.service["label_prompts"]
            encoded = self._encode_texts([text for texts in phrasings for text in texts])
            means = [part.mean(dim=0) for part in encoded.split([len(texts) for texts in phrasings])]
            self.label_features = normalize(torch.stack(means), dim=-1)
        return self.label_features


def _prompts(params: Any, *, ranks: bool) -> list[str]:
    """The prompts among a call's parameters.

    Args:
        ranks: whether this model ranks prompts.
    Raises:
        ValueError: there is another parameter, or the prompts are not a list of texts.
    """
    given = {**_params_of_caller(), **params} if isinstance(params, Mapping) else params or _params_of_caller()
    if not isinstance(given, Mapping):
        raise ValueError(f"params: {type(given).__name__}, not a mapping of names to values")
    unknown = sorted(str(name) for name in given if not (ranks and name == "prompts"))
    if unknown:
        takes = 'this dual encoder takes only "prompts"' if ranks else "this is a classifier, which takes none"
        raise ValueError(f"unknown params {', '.join(unknown)}: {takes}")
    prompts = given.get("prompts", ())
    if isinstance(prompts, str | bytes | Mapping) or not hasattr(prompts, "__len__"):
        raise ValueError(f"params prompts: {type(prompts).__name__}, not a list of texts")
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str) or not prompt.strip():
            problem = "empty" if isinstance(prompt, str) else f"{type(prompt).__name__}, not a text"
            raise ValueError(f"params prompts: number {number} of {len(prompts)} is {problem}")
    return [str(prompt) for prompt in prompts]


def _params_of_caller() -> dict[Any, Any]:
    """The params with which MLflow's wrapper was called; {} without a wrapper.

    The wrapper drops parameters that are not in a model's signature, with at most a line in the log, and has no
    hook for that; so they are read from its frame.
    """
    frame = sys._getframe(3)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("mlflow."):
        if frame.f_code.co_name == "predict" and frame.f_globals["__name__"] == "mlflow.pyfunc":
            params = frame.f_locals.get("params")
            return dict(params) if isinstance(params, Mapping) else {}
        frame = frame.f_back  # type: ignore[assignment]
    return {}


def decode(data: bytes, channels: int) -> Tensor:
    """An encoded image as uint8 [channels, H, W], as training sees it.

    Raises:
        ValueError: the data is not an image, or takes more than 256 MiB when decoded.
    """
    return torch.from_numpy(decode_pixels(data, channels, max_bytes=MAX_DECODED_BYTES).copy()).permute(2, 0, 1)


def resize_to_square(image: Tensor, size: int) -> Tensor:
    """Resizes the short side to `size`, antialiased bilinear on uint8, and crops the centre, as in training."""
    height, width = image.shape[-2:]
    short = min(height, width)
    height, width = int(size * height / short), int(size * width / short)
    if image.shape[-2:] != (height, width):
        image = interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[:, top : top + size, left : left + size]


def _text_encoder(folder: Path, tokenizer: dict[str, str]) -> Any:
    """The byte-pair or word-piece encoder, from its source and vocabulary in the folder."""
    module = _module(folder / tokenizer["code"])
    return getattr(module, tokenizer["class"]).read(str(folder / tokenizer["vocabulary"]))


def _module(path: Path) -> Any:
    """A module from a source file in the registered model."""
    spec = importlib.util.spec_from_file_location(f"served_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path}: is missing; register the model again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


set_model(ServedModel())
