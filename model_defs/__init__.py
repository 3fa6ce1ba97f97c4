"""Architectures only: they depend on torch and torchvision and take keyword arguments, no config objects.

`create_model("vit_micro", num_classes=10)` builds one, `pretrained=` loads trained weights, `list_models("resnet*")`
lists names. Listing imports neither torch nor torchvision: a model's file is imported when it is first built.
"""

from model_defs import catalogue as _catalogue  # registers the models
from model_defs.errors import ArgumentError, ModelError
from model_defs.model_info import ModelInfo
from model_defs.pretrained import LoadingReport, load_pretrained
from model_defs.registry import create_model, list_models, model_info, register_model

__all__ = [
    "ArgumentError",
    "LoadingReport",
    "ModelError",
    "ModelInfo",
    "create_model",
    "list_models",
    "load_pretrained",
    "model_info",
    "register_model",
]

del _catalogue
