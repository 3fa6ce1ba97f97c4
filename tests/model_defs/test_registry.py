from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from model_defs import ModelError, ModelInfo, create_model, list_models, model_info, register_model


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'lenet5' is registered already, by model_defs.lenet:lenet5"):
        register_model(replace(model_info("resnet18"), name="lenet5"), "elsewhere:lenet5")
    assert create_model("lenet5", num_classes=10, in_chans=1).num_classes == 10


def test_an_own_model_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from model_defs import registry
    from model_defs.lenet import LeNet5

    monkeypatch.setattr(registry, "_models", dict(registry._models))
    register_model(ModelInfo("own_lenet", "image", 2026, "none"), LeNet5)
    assert create_model("own_lenet", num_classes=7).num_classes == 7


def test_an_unknown_name_shows_the_near_ones() -> None:
    with pytest.raises(ModelError, match="unknown model 'resnet_smal'; did you mean resnet_small"):
        create_model("resnet_smal")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vit_micro", {"dept": 3}, "dept: no such argument; did you mean depth"),
        ("resnet18", {"layers": 50}, "layers: the name of the model fixes it"),
        ("text_transformer", {"img_size": 64}, "takes no images"),
        ("text_transformer", {"num_classes": 5}, "no classes"),
        ("vit_micro", {"width": 130, "heads": 4}, "cannot be split over 4 heads"),
        ("vit_micro", {"img_size": 60}, "use a multiple of 8"),
        ("deit_micro_distilled", {"head_combination": "vote"}, "head_combination: must be logits or softmax"),
        ("resnet_small", {"widths": [8], "depths": [1, 1]}, "1 widths and 2 depths"),
        ("clip", {"image_tower": "clip"}, "no image model"),
        ("clip", {"image_tower": "vit_micro", "text_kwargs": {"dept": 1}}, "text_kwargs.dept: no such argument"),
        ("lenet5", {"num_classes": -1}, "num_classes: must be 0 to 10,000,000, not -1"),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_name(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **kwargs)  # type: ignore[arg-type]


def test_listing_names_imports_neither_torch_nor_torchvision() -> None:
    code = (
        "import sys, model_defs; names = model_defs.list_models('resnet*'); print(names);"
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resnet_small" in done.stdout


def test_patterns_are_those_of_the_shell() -> None:
    assert list_models("deit_*_distilled_patch16_224") == [
        "deit_base_distilled_patch16_224",
        "deit_small_distilled_patch16_224",
        "deit_tiny_distilled_patch16_224",
    ]
