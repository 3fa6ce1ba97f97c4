"""CLIP: an image tower and a text tower into one space.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.3 and
figure 3. With `vit_base_patch32_224` and the default text tower 151,276,545 parameters (the released
ViT-B/32 has 151,277,313).

The image tower is any image model of this package, so its details (ViT's patch bias, no norm before the
blocks) are that model's. Temperature as in section 2.5: learned as a logarithm, from 1/0.07, at most 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.errors import ModelError
from model_defs.registry import create_model, model_info
from model_defs.text_transformer import TextTransformer

LOGIT_SCALE_START = math.log(1 / 0.07)
LOGIT_SCALE_MAX = math.log(100)


class CLIP(nn.Module):
    """Two towers, two projections, one temperature.

    Args:
        image: gives features [B, num_features].
        text: gives features [B, embed_dim].
    """

    def __init__(self, image: nn.Module, text: TextTransformer, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.img_size: int = image.img_size  # type: ignore[assignment]
        self.context_length = text.context_length
        features: int = image.num_features  # type: ignore[assignment]
        self.image = image
        self.image_projection = nn.Linear(features, embed_dim, bias=False)
        nn.init.normal_(self.image_projection.weight, std=features**-0.5)
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE_START))

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B, E] of normalised images [B, C, H, W]."""
        return F.normalize(self.image_projection(self.image(images)), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, E] of tokens int64 [B, L]."""
        return F.normalize(self.text(tokens), dim=-1)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image features [B, E], text features [B, E], and the factor on their products."""
        return self.encode_image(images), self.encode_text(tokens), self.logit_scale.exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the factor at most 100; to be called after each optimiser step."""
        self.logit_scale.clamp_(max=LOGIT_SCALE_MAX)


def clip(
    *,
    image_tower: str = "vit_base_patch32_224",
    image_kwargs: Mapping[str, Any] | None = None,
    text_kwargs: Mapping[str, Any] | None = None,
    embed_dim: int = 512,
    in_chans: int = 3,
    img_size: int | None = None,
) -> CLIP:
    """A dual encoder over the image model `image_tower`.

    Args:
        image_kwargs: arguments of the image tower; img_size and in_chans may stand here or beside it.
        text_kwargs: arguments of the text tower, but its output_dim, which is `embed_dim`.
        embed_dim: E, the width of the common space.
    """
    if model_info(image_tower).kind != "image":
        raise ModelError(f"clip: {image_tower!r} is no image model; list_models names those there are")
    taken = {"num_classes"} & set(image_kwargs or {}) | {"output_dim"} & set(text_kwargs or {})
    if taken:
        raise ModelError(f"clip: sets {', '.join(sorted(taken))} itself; leave it out")
    image = create_model(
        image_tower, **{"in_chans": in_chans, "img_size": img_size, **(image_kwargs or {})}, num_classes=0
    )
    text = create_model("text_transformer", **(text_kwargs or {}), output_dim=embed_dim)
    assert isinstance(text, TextTransformer)
    return CLIP(image, text, embed_dim)
