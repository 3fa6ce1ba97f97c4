"""Any model of timm (Wightman 2019, PyTorch Image Models) with the interface of our image models.

The net is the submodule `net`, so parameter names are timm's with the prefix "net.". Nothing is downloaded: a new
model has random weights.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from model_defs.arguments import Channels, Classes, Side
from model_defs.errors import ModelError, first_line
from model_defs.layers.pooled_map import refuse_smaller


class TimmModel(nn.Module):
    """A net of timm; [B, C, H, W] to [B, K].

    Args:
        net: a module with timm's `forward_features` and `forward_head`.
        name: its name in timm, for messages.
        num_features: width of its classifier's input.
        img_size: side of the images in pixels.
        fixed_size: whether it accepts only images of that size.
    """

    def __init__(self, net: nn.Module, *, name: str, num_features: int, img_size: int, fixed_size: bool) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.num_classes: int = net.num_classes  # type: ignore[assignment]
        self.num_features = num_features
        self.img_size = img_size
        self.fixed_size = fixed_size
        self.smallest = _smallest(net)
        self.classifier_names = _names(net, "classifier")
        self.first_conv_name = next(iter(_names(net, "first_conv")), "")

    def forward_features(self, x: Tensor) -> Tensor:
        """The input of the classifier, [B, num_features]."""
        features: Tensor = self.net.forward_head(self._map_or_tokens(x), pre_logits=True)  # type: ignore[operator]
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net.forward_head(self._map_or_tokens(x))  # type: ignore[operator]
        return logits

    def _map_or_tokens(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.fixed_size and (height, width) != (self.img_size, self.img_size):
            raise ModelError(
                f"timm/{self.name}: built for {self.img_size} x {self.img_size} images, got {height} x {width};"
                " pass img_size to create_model"
            )
        refuse_smaller(f"timm/{self.name}", min(height, width), self.smallest)
        out: Tensor = self.net.forward_features(x)  # type: ignore[operator]
        return out


class TimmConvNet(TimmModel):
    """A net of timm that ends in a map [B, C, h, w]."""

    def forward_map(self, x: Tensor) -> Tensor:
        """The last map, [B, C, h, w]."""
        return self._map_or_tokens(x)

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Logits of a last map, [B, C, h, w] to [B, K]."""
        logits: Tensor = self.net.forward_head(feature_map)  # type: ignore[operator]
        return logits


def timm_model(
    *, name: str, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None, **kwargs: Any
) -> TimmModel:
    """The model that timm calls `name`, for images of `img_size` pixels (timm's default for it).

    Args:
        kwargs: further arguments of the net, e.g. drop_path_rate=0.1.
    Raises:
        ModelError: timm is not installed, has no such model, or the model rejects an argument or the size.
    """
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"model 'timm/{name}' needs timm: pip install 'tutelage[timm]'") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(f'timm/{other}' for other in near)}?" if near else ""
        raise ModelError(f"unknown model 'timm/{name}': timm {timm.__version__} has none of this name{hint}")
    try:
        card = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
        fixed_size = bool(card.fixed_input_size) and not kwargs.get("dynamic_img_size", False)
        side = img_size or card.input_size[-1]
        if card.fixed_input_size:
            kwargs["img_size"] = side
        net = timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **kwargs)
    except Exception as error:  # timm checks few arguments, so a wrong one raises whatever the net stumbles over
        raise ModelError(f"model 'timm/{name}': timm refuses its arguments: {first_line(error)}") from error
    refuse_smaller(f"timm/{name}", side, _smallest(net))
    ends_in_map, width = _shapes(net, name, in_chans, side)
    kind = TimmConvNet if ends_in_map else TimmModel
    return kind(net, name=name, num_features=width, img_size=side, fixed_size=fixed_size)


def _shapes(net: nn.Module, name: str, in_chans: int, side: int) -> tuple[bool, int]:
    """Whether the net ends in a map [B, C, h, w], and its classifier's input width; found without computation."""
    device = next(net.parameters()).device
    training = net.training
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            out = net.eval().forward_features(torch.empty(1, in_chans, side, side, device=device))  # type: ignore[operator]
            features = net.forward_head(out, pre_logits=True)  # type: ignore[operator]
    except Exception as error:
        raise ModelError(
            f"timm/{name}: images of {side} x {side} pixels do not go through: {first_line(error)}"
        ) from error
    finally:
        net.train(training)
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise ModelError(f"timm/{name}: it gives no features [B, D] of an image")
    channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    return isinstance(out, Tensor) and out.dim() == 4 and not channels_last, features.shape[-1]


def _smallest(net: nn.Module) -> int:
    """The side for which the last stage that timm lists has one pixel (or token)."""
    stages = getattr(net, "feature_info", None) or ()
    return max((stage["reduction"] for stage in stages), default=1)


def _names(net: nn.Module, key: str) -> tuple[str, ...]:
    names = net.pretrained_cfg.get(key) or ()  # type: ignore[union-attr, operator]
    return tuple(f"net.{name}" for name in ([names] if isinstance(names, str) else names))
