"""Explanations by the channels that answer most: what each sees, and what of that makes it answer, by deconvnet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.deconvnet import activations, deconvnet, peaks, receptive_field
from pipeline.explain.drawing import A_ROW, BLANK, Panel, enlarged, framed, picture, signed
from pipeline.explain.explanation import Explanation, Request, answers
from pipeline.exported_model import ExportedModel

_CHANNELS_SHOWN = 5


def is_one_row(model: nn.Module, image: Tensor) -> bool:
    """Whether deconvnet can walk all of its layers."""
    features = getattr(model, "features", None)
    if not isinstance(features, nn.Sequential):
        return False
    try:
        activations(features, image, -1)
    except InputError:
        return False
    return True


def explain_by_channels(
    exported: ExportedModel, model: nn.Module, images: Tensor, request: Request
) -> list[Explanation]:
    """Of each image the channels that answer most: what they see, above it what of that makes them answer."""
    x = exported.preprocessing.normalise(images)
    features = model.features
    assert isinstance(features, nn.Sequential)
    layer = last_activation(features) if request.layer is None else request.layer
    maps = activations(features, x, layer)
    strongest = maps.amax(dim=(2, 3)).topk(min(request.channels or _CHANNELS_SHOWN, maps.shape[1]), dim=1).indices
    explained = []
    for image, pixels, at, channels, row in zip(images, x, maps, strongest, answers(model, x), strict=True):
        values, places = peaks(at.expand(len(channels), -1, -1, -1), channels)
        drawn = deconvnet(features, pixels.expand(len(channels), -1, -1, -1), layer, channels, places)
        shown, above, below = picture(image), [], []
        boxes = enlarged(shown)
        scale = boxes.shape[0] / shown.shape[0]
        for channel, value, place, projection in zip(
            channels.tolist(), values.tolist(), places.tolist(), drawn, strict=True
        ):
            box = receptive_field(features, layer, (place[0], place[1]), (pixels.shape[1], pixels.shape[2]))
            boxes = framed(boxes, *(round(scale * side) for side in (box.top, box.left, box.bottom, box.right)))
            above.append(Panel(f"channel {channel}   {value:.2g}", signed(box.crop(projection))))
            below.append(Panel("what it sees", picture(box.crop(image))))
        panels = _interleaved(Panel("image", shown), above, Panel("where", boxes), below)
        label, score = exported.labels[int(row.argmax())], float(row.max())
        heading = f"layer {layer}; the model's answer: {label}, {score:.0%}"
        explained.append(Explanation("deconvnet", label, score, heading, panels))
    return explained


def _interleaved(
    first: Panel, above: Sequence[Panel], second: Panel, below: Sequence[Panel], width: int = A_ROW - 1
) -> tuple[Panel, ...]:
    """Pairs of rows: `first` and some of `above`, then `second` and those of `below`."""
    panels: list[Panel] = []
    for start in range(0, len(above), width):
        for head, row in ((first, above), (second, below)):
            some = list(row[start : start + width])
            blanks = min(len(above), width) - len(some)
            panels += [head, *some, *[BLANK] * blanks]
    return tuple(panels)


def last_activation(features: nn.Sequential) -> int:
    """The place of the last layer that rectifies or bounds what is before it."""
    return max(place for place, module in enumerate(features) if isinstance(module, nn.ReLU | nn.Tanh))
