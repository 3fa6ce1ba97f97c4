"""CLIP: an image backbone and a text backbone with a common embedding space.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.3 and
figure 3. Parameters of the released models: ResNet-50 102,007,137; ViT-B/32 151,277,313; ViT-B/16 149,620,737;
ViT-L/14 427,616,513. `clip` is the dual encoder over any two backbones. By default its image backbone is
`vit_base_patch32_224`, which unlike CLIP's own has a bias in the patch embedding and no norm before the blocks;
151,276,545 parameters.

Temperature as in section 2.5: learned as a logarithm, from 1/0.07, at most 100. The weights that the authors
released were trained with QuickGELU, so it is the default of those models; most of open_clip's were trained
with GELU (`activation`). A ViT has this package's initialisation, not the one of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.arguments import Channels, Side, Width
from model_defs.errors import ArgumentError, ModelError
from model_defs.layers.transformer import Activation
from model_defs.registry import create_model, model_info

LOGIT_SCALE_START = math.log(1 / 0.07)
LOGIT_SCALE_MAX = math.log(100)


class CLIP(nn.Module):
    """Two backbones, a projection for images (the text backbone has its own), one temperature.

    Args:
        image: returns features [B, num_features].
        text: returns features [B, embed_dim] of tokens [B, L], L <= context_length.
        projection_bias: whether the image projection has a bias.
    """

    classifier_names: tuple[str, ...] = ()

    def __init__(self, image: nn.Module, text: nn.Module, embed_dim: int, *, projection_bias: bool = False) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.img_size: int = image.img_size  # type: ignore[assignment]
        self.context_length: int = text.context_length  # type: ignore[assignment]
        features: int = image.num_features  # type: ignore[assignment]
        self.image = image
        self.image_projection = nn.Linear(features, embed_dim, bias=projection_bias)
        nn.init.normal_(self.image_projection.weight, std=features**-0.5)
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE_START))

    @property
    def first_conv_name(self) -> str:
        """The name of the convolution on the pixels."""
        return f"image.{self.image.first_conv_name}"

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B, E] of normalised images [B, C, H, W]."""
        return F.normalize(self.image_projection(self.image(images)), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, E] of tokens int64 [B, L]."""
        return F.normalize(self.text(tokens), dim=-1)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image features [B, E], text features [B, E], and the scale factor for their products."""
        return self.encode_image(images), self.encode_text(tokens), self.logit_scale.exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Limits the scale factor to 100; call it after each optimiser step."""
        self.logit_scale.clamp_(max=LOGIT_SCALE_MAX)


def clip(
    *,
    image_tower: str = "vit_base_patch32_224",
    text_tower: str = "text_transformer",
    image_kwargs: Mapping[str, Any] | None = None,
    text_kwargs: Mapping[str, Any] | None = None,
    embed_dim: Width = 512,
    projection_bias: bool = False,
    in_chans: Channels = 3,
    img_size: Side | None = None,
) -> CLIP:
    """A dual encoder over the image model `image_tower` and the text model `text_tower`.

    Args:
        image_kwargs: arguments of the image backbone; img_size and in_chans may be given here or directly.
        text_kwargs: arguments of the text backbone, except output_dim, which is `embed_dim`.
        embed_dim: E, the width of the common space.
        projection_bias: whether the image projection has a bias.
    """
    if model_info(image_tower).kind != "image":
        raise ModelError(f"clip: {image_tower!r} is no image model; see list_models")
    if model_info(text_tower).kind != "text":
        raise ModelError(f"clip: {text_tower!r} is no text model; see list_models")
    reserved = {"num_classes"} & set(image_kwargs or {}) | {"output_dim"} & set(text_kwargs or {})
    if reserved:
        raise ModelError(f"clip: sets {', '.join(sorted(reserved))} itself; leave it out")
    image_arguments = {"in_chans": in_chans, "img_size": img_size, **(image_kwargs or {}), "num_classes": 0}
    image = _backbone("image_kwargs", image_tower, image_arguments)
    text = _backbone("text_kwargs", text_tower, {**(text_kwargs or {}), "output_dim": embed_dim})
    return CLIP(image, text, embed_dim, projection_bias=projection_bias)


def _backbone(argument: str, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """The model `name` with the kwargs that `argument` of the dual encoder has for it."""
    try:
        return create_model(name, **kwargs)
    except ArgumentError as error:
        raise ArgumentError(error.model, f"{argument}.{error.argument}", error.problem) from None


def clip_vit(
    *,
    image_tower: str,
    text_width: Width,
    embed_dim: Width,
    activation: Activation = "quick_gelu",
    in_chans: Channels = 3,
    img_size: Side | None = None,
) -> CLIP:
    """A released CLIP over a ViT; both backbones use `activation`."""
    return clip(
        image_tower=image_tower,
        image_kwargs={"activation": activation},
        text_kwargs=_text_kwargs(text_width, activation),
        embed_dim=embed_dim,
        in_chans=in_chans,
        img_size=img_size,
    )


def clip_resnet(
    *,
    image_tower: str,
    text_width: Width,
    embed_dim: Width,
    activation: Activation = "quick_gelu",
    in_chans: Channels = 3,
    img_size: Side | None = None,
) -> CLIP:
    """A released CLIP over a ResNet; its projection has a bias, and the text backbone uses `activation`."""
    return clip(
        image_tower=image_tower,
        text_kwargs=_text_kwargs(text_width, activation),
        embed_dim=embed_dim,
        projection_bias=True,
        in_chans=in_chans,
        img_size=img_size,
    )


def _text_kwargs(width: int, activation: Activation) -> dict[str, Any]:
    return {"width": width, "heads": width // 64, "activation": activation}
