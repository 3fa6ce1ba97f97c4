"""CLIP: text backbones, the image backbones for them, and dual encoders over any two."""

from __future__ import annotations

from model_defs.model_info import ModelInfo
from model_defs.normalisation import HALF_MEAN_STD, OPENAI_CLIP
from model_defs.registry import register_model

_CLIP = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision"

register_model(
    ModelInfo("text_transformer", "text", 2021, _CLIP, parameters=63_428_096, macs=2_979_770_368),
    "model_defs.text_transformer:text_transformer",
)

# Image backbones, with timm's names. No top1_error: the paper reports none for these fine-tuned weights.
for _size, _patch, _parameters, _macs in (
    ("base", 32, 88_225_000, 4_409_186_304),
    ("base", 16, 86_568_424, 17_563_828_224),
    ("large", 14, 304_204_776, 81_013_006_336),
):
    _name = f"vit_{_size}_patch{_patch}_clip_224"
    register_model(
        ModelInfo(
            _name,
            "image",
            2021,
            _CLIP,
            224,
            _parameters,
            _macs,
            weights=f"timm {_name}.laion2b_ft_in12k_in1k",
            normalisation=HALF_MEAN_STD if _size == "large" else OPENAI_CLIP,
        ),
        "model_defs.vit:vit",
        size=_size,
        patch_size=_patch,
        patch_bias=False,
        pre_norm=True,
        norm_eps=1e-5,
    )
register_model(
    ModelInfo("resnet50_clip", "image", 2021, _CLIP, 224, 38_267_720, 5_793_103_872, normalisation=OPENAI_CLIP),
    "model_defs.clip_resnet:clip_resnet",
    layers=50,
)

register_model(ModelInfo("clip", "dual", 2021, _CLIP, 224, 151_276_545, 7_388_581_888), "model_defs.clip:clip")
# A dual encoder's multiply-accumulates are for one image and one text of 77 tokens.
for _name, _image_tower, _text_width, _embed_dim, _parameters, _macs in (
    ("clip_vit_base_patch32", "vit_base_patch32_clip_224", 512, 512, 151_277_313, 7_388_581_888),
    ("clip_vit_base_patch16", "vit_base_patch16_clip_224", 512, 512, 149_620_737, 20_543_223_808),
    ("clip_vit_large_patch14", "vit_large_patch14_clip_224", 768, 768, 427_616_513, 87_662_610_432),
):
    register_model(
        ModelInfo(
            _name,
            "dual",
            2021,
            _CLIP,
            224,
            _parameters,
            _macs,
            weights=f"timm {_image_tower}.openai",
            normalisation=OPENAI_CLIP,
        ),
        "model_defs.clip:clip_vit",
        image_tower=_image_tower,
        text_width=_text_width,
        embed_dim=_embed_dim,
    )
register_model(
    ModelInfo(
        "clip_resnet50",
        "dual",
        2021,
        _CLIP,
        224,
        102_007_137,
        8_773_185_536,
        weights="timm resnet50_clip.openai",
        normalisation=OPENAI_CLIP,
    ),
    "model_defs.clip:clip_resnet",
    image_tower="resnet50_clip",
    text_width=512,
    embed_dim=1024,
)
