"""Explanations by the most active channels: the receptive field of each, and its activation projected by deconvnet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.deconvnet import activations, deconvnet, peaks, receptive_field
from pipeline.explain.drawing import BLANK, PANELS_PER_ROW, Panel, draw_frame, enlarge, signed_picture, to_picture
from pipeline.explain.explanation import Explanation, ExplanationRequest, class_probabilities
from pipeline.exported_model import ExportedModel

_CHANNELS_SHOWN = 5


def supports_deconvnet(model: nn.Module, image: Tensor) -> bool:
    """Whether the model is a sequence of layers that deconvnet can all project back."""
    features = getattr(model, "features", None)
    if not isinstance(features, nn.Sequential):
        return False
    try:
        activations(features, image, -1)
    except InputError:
        return False
    return True


def explain_by_channels(
    exported: ExportedModel, model: nn.Module, images: Tensor, request: ExplanationRequest
) -> list[Explanation]:
    """For each image the most active channels: above, their projections; below, their receptive fields."""
    x = exported.preprocessing.normalise(images)
    features = model.features
    assert isinstance(features, nn.Sequential)
    layer = last_activation(features) if request.layer is None else request.layer
    maps = activations(features, x, layer)
    strongest = maps.amax(dim=(2, 3)).topk(min(request.channels or _CHANNELS_SHOWN, maps.shape[1]), dim=1).indices
    explained = []
    probabilities = class_probabilities(model, x)
    for image, pixels, feature_map, channels, row in zip(images, x, maps, strongest, probabilities, strict=True):
        values, positions = peaks(feature_map.expand(len(channels), -1, -1, -1), channels)
        projections = deconvnet(features, pixels.expand(len(channels), -1, -1, -1), layer, channels, positions)
        shown, above, below = to_picture(image), [], []
        boxes = enlarge(shown)
        scale = boxes.shape[0] / shown.shape[0]
        for channel, value, position, projection in zip(
            channels.tolist(), values.tolist(), positions.tolist(), projections, strict=True
        ):
            box = receptive_field(features, layer, (position[0], position[1]), (pixels.shape[1], pixels.shape[2]))
            boxes = draw_frame(boxes, *(round(scale * side) for side in (box.top, box.left, box.bottom, box.right)))
            above.append(Panel(f"channel {channel}   {value:.2g}", signed_picture(box.crop(projection))))
            below.append(Panel("receptive field", to_picture(box.crop(image))))
        panels = _interleave(Panel("image", shown), above, Panel("receptive fields", boxes), below)
        label, score = exported.labels[int(row.argmax())], float(row.max())
        heading = f"layer {layer}; prediction: {label}, {score:.0%}"
        explained.append(Explanation("deconvnet", label, score, heading, panels))
    return explained


def _interleave(
    first: Panel, above: Sequence[Panel], second: Panel, below: Sequence[Panel], width: int = PANELS_PER_ROW - 1
) -> tuple[Panel, ...]:
    """Pairs of rows: `first` with up to `width` of `above`, below them `second` with the same ones of `below`."""
    panels: list[Panel] = []
    for start in range(0, len(above), width):
        for head, row in ((first, above), (second, below)):
            shown = list(row[start : start + width])
            blanks = min(len(above), width) - len(shown)
            panels += [head, *shown, *[BLANK] * blanks]
    return tuple(panels)


def last_activation(features: nn.Sequential) -> int:
    """The index of the last ReLU or Tanh layer."""
    return max(index for index, module in enumerate(features) if isinstance(module, nn.ReLU | nn.Tanh))
