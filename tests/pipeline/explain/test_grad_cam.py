from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_defs import create_model
from pipeline.errors import InputError
from pipeline.explain.grad_cam import grad_cam


class Brightness(nn.Module):
    """Two channels, the image and its negative; class 0 likes the first, class 1 the second and a bit of the first."""

    weights = torch.tensor([[3.0, -1.0], [0.5, 2.0]])

    def forward_map(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], dim=1)

    def forward_head(self, feature_map: Tensor) -> Tensor:
        return feature_map.mean(dim=(2, 3)) @ self.weights.T


IMAGE = torch.tensor([[[[1.0, -2.0], [0.0, 4.0]]]])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        # Each channel's weight is its weight in the head over the 4 places of the map.
        (0, [[(3 + 1) / 4 * 1, 0], [0, (3 + 1) / 4 * 4]]),
        (1, [[0, (2 - 0.5) / 4 * 2], [0, 0]]),
    ],
)
def test_a_map_computed_by_hand(wanted: int, expected: list[list[float]]) -> None:
    cam = grad_cam(Brightness().eval(), IMAGE, torch.tensor([wanted]))
    torch.testing.assert_close(cam, torch.tensor([expected], dtype=torch.float32))


def test_each_image_of_a_batch_is_asked_about_its_own_class() -> None:
    model = Brightness().eval()
    together = grad_cam(model, IMAGE.repeat(2, 1, 1, 1), torch.tensor([1, 0]))
    alone = [grad_cam(model, IMAGE, torch.tensor([wanted])) for wanted in (1, 0)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_for_a_net_that_ends_in_the_mean_it_is_the_class_activation_map() -> None:
    """Section 3, "Grad-CAM generalizes CAM": the weights are those of the linear layer, over the number of places."""
    torch.manual_seed(0)
    model = create_model("resnet_small", num_classes=5, img_size=32).eval()
    images = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        feature_map = model.forward_map(images)
    height, width = feature_map.shape[-2:]
    assert (height, width) == (3, 2)
    weights = model.fc.weight[torch.tensor([4, 1])].detach()
    expected = torch.einsum("bc,bchw->bhw", weights, feature_map).relu() / (height * width)
    torch.testing.assert_close(grad_cam(model, images, torch.tensor([4, 1])), expected)


def test_it_leaves_no_gradient_behind_and_works_where_gradients_are_off() -> None:
    model = create_model("resnet_small", num_classes=5, img_size=32).eval()
    with torch.no_grad():
        cam = grad_cam(model, torch.randn(1, 3, 32, 32), torch.tensor([0]))
    assert not cam.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "kwargs", "wanted", "says"),
    [
        ("vit_micro", {"num_classes": 5}, 0, "VisionTransformer has no feature map"),
        ("resnet_small", {"num_classes": 5}, 5, r"asked for classes \[5\]"),
        ("resnet_small", {"num_classes": 5}, -1, r"asked for classes \[-1\]"),
    ],
)
def test_what_it_cannot_show_is_refused(name: str, kwargs: dict[str, int], wanted: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        grad_cam(create_model(name, **kwargs).eval(), torch.zeros(1, 3, 64, 64), torch.tensor([wanted]))


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(InputError, match="call eval"):
        grad_cam(create_model("resnet_small", num_classes=5), torch.zeros(1, 3, 64, 64), torch.tensor([0]))
