"""Explains images by the method that fits a model.

    grad-cam     a convolutional net: the evidence for a class at each position of the last feature map
    deconvnet    a convolutional net of one sequence of layers: activations of its channels, projected back to pixels
    rollout      a vision transformer: the share of each patch in its class token
    patch-text   a dual encoder: the similarity of each patch to a text
    occlusion    any classifier: the fall of the class's log-probability when a region is covered

"auto" takes the first that fits; occlusion replaces Grad-CAM if the last feature map is too small to be informative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from model_defs.clip import CLIP
from model_defs.vit import VisionTransformer
from pipeline.errors import InputError, UnknownNameError
from pipeline.explain.channel_explanations import explain_by_channels, supports_deconvnet
from pipeline.explain.class_explanations import explain_by_class
from pipeline.explain.explanation import Explanation, ExplanationRequest, Method
from pipeline.explain.patch_text import HasFeatureMap
from pipeline.explain.text_explanations import explain_by_texts
from pipeline.exported_model import ExportedModel
from pipeline.loading.decode import decode

_MIN_MAP_SIDE = 3  # of a last feature map on which Grad-CAM is informative
BATCH_SIZE = 16
"""Images explained at once."""


def fitting_methods(model: nn.Module, image_size: int, channels: int) -> tuple[Method, ...]:
    """The methods that can explain a model in evaluation mode, on any device; "auto" takes the first."""
    if isinstance(model, CLIP):
        return ("patch-text",)
    if isinstance(model, VisionTransformer):
        return ("rollout", "occlusion")
    if isinstance(model, HasFeatureMap):
        image = torch.zeros(1, channels, image_size, image_size, device=next(model.parameters()).device)
        if supports_deconvnet(model, image):
            return ("deconvnet", "grad-cam", "occlusion")
        with torch.no_grad():
            map_side = min(model.forward_map(image).shape[-2:])
        return ("grad-cam", "occlusion") if map_side >= _MIN_MAP_SIDE else ("occlusion", "grad-cam")
    return ("occlusion",)


def model_image(exported: ExportedModel, data: bytes, *, name: str) -> Tensor:
    """An image file as the model's input before normalisation, uint8 [C, S, S], decoded and scaled as in training.

    Raises:
        InputError: the bytes are not an image; `name` is in the message.
    """
    preprocessing = exported.preprocessing
    try:
        pixels = decode(data, size=preprocessing.image_size, channels=preprocessing.channels)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    except ValueError as error:
        raise InputError(f"{name}: cannot be decoded ({error}); give image files") from None


class Explainer:
    """A model and the method that explains its predictions.

    Args:
        method: one of `Method`, or "auto".
    Raises:
        InputError: the method does not fit the model, or an option does not fit the method.
        UnknownNameError: there is no such class or method.
    """

    def __init__(
        self, exported: ExportedModel, *, method: str = "auto", request: ExplanationRequest | None = None
    ) -> None:
        self._exported = exported
        self._request = request or ExplanationRequest()
        self._model = exported.build()
        preprocessing = exported.preprocessing
        fitting = fitting_methods(self._model, preprocessing.image_size, preprocessing.channels)
        self.method = _resolve_method(method, fitting, exported.architecture)
        _check_options(self._request, self.method)
        if self._request.class_name is not None and self._request.class_name not in exported.labels:
            raise UnknownNameError("class", self._request.class_name, exported.labels)

    def explain(self, images: Sequence[Tensor]) -> list[Explanation]:
        """An explanation of each image, uint8 [C, S, S] at the model's size."""
        explained: list[Explanation] = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.stack(list(images[start : start + BATCH_SIZE]))
            if self.method == "patch-text":
                explained += explain_by_texts(self._exported, self._model, batch, self._request)
            elif self.method == "deconvnet":
                explained += explain_by_channels(self._exported, self._model, batch, self._request)
            else:
                explained += explain_by_class(self._exported, self._model, batch, self._request, self.method)
        return explained


def explain(
    exported: ExportedModel,
    images: Sequence[Tensor],
    *,
    method: str = "auto",
    request: ExplanationRequest | None = None,
) -> list[Explanation]:
    """An explanation of each image; see `Explainer`."""
    return Explainer(exported, method=method, request=request).explain(images)


def _resolve_method(method: str, fitting: Sequence[Method], architecture: str) -> Method:
    if method == "auto":
        return fitting[0]
    for known in get_args(Method):
        if method == known:
            if known not in fitting:
                raise InputError(f"explain: {method} does not fit {architecture}; use {' or '.join(fitting)}")
            return known
    raise UnknownNameError("method", method, ("auto", *get_args(Method)))


def _check_options(request: ExplanationRequest, method: Method) -> None:
    """Raises InputError for an option that the method would ignore."""
    for option, given, methods in (
        ("--class", request.class_name, ("grad-cam", "occlusion")),
        ("--prompt", request.prompts, ("patch-text",)),
        ("--layer", request.layer, ("deconvnet",)),
        ("--channels", request.channels, ("deconvnet",)),
    ):
        if given not in (None, ()) and method not in methods:
            raise InputError(f"explain: {method} takes no {option}; it belongs to {' and '.join(methods)}")
