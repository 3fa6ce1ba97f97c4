"""Text towers, and the dual encoders over any image tower: CLIP."""

from __future__ import annotations

from model_defs.registry import ModelInfo, register_model

_CLIP = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision"

register_model(
    ModelInfo("text_transformer", "text", 2021, _CLIP, parameters=63_428_096),
    "model_defs.text_transformer:text_transformer",
)
register_model(ModelInfo("clip", "dual", 2021, _CLIP, 224, 151_276_545), "model_defs.clip:clip")
