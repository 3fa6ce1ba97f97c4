"""Promises of Inception v3 beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from model_defs import ModelError, create_model
from model_defs.auxiliary import AuxiliaryLogits

pytestmark = pytest.mark.heavy

# Table 1 of the paper, with the stem's widths as released: side and channels for images of 299 pixels.
SIZES = {
    "Conv2d_1a_3x3": (149, 32),
    "Conv2d_2a_3x3": (147, 32),
    "Conv2d_2b_3x3": (147, 64),
    "maxpool1": (73, 64),
    "Conv2d_3b_1x1": (73, 80),
    "Conv2d_4a_3x3": (71, 192),
    "maxpool2": (35, 192),
    "Mixed_5b": (35, 256),
    "Mixed_5c": (35, 288),
    "Mixed_5d": (35, 288),
    "Mixed_6a": (17, 768),
    "Mixed_6e": (17, 768),
    "Mixed_7a": (8, 1280),
    "Mixed_7b": (8, 2048),
    "Mixed_7c": (8, 2048),
}


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.Inception3(num_classes=5, init_weights=False, dropout=0.0)


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    torch.manual_seed(0)
    return create_model("inception_v3", num_classes=5, auxiliary=True, dropout=0.0)


@pytest.mark.parametrize(("kwargs", "count"), [({}, 23_834_568), ({"auxiliary": True}, 27_161_264)])
def test_the_counts_are_exact_with_and_without_the_head(kwargs: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in create_model("inception_v3", **kwargs).parameters()) == count


def test_maps_have_the_sizes_of_table_1() -> None:
    seen: dict[str, tuple[int, int]] = {}
    with torch.device("meta"):
        model = create_model("inception_v3").eval()
        for key in SIZES:
            model.get_submodule(key).register_forward_hook(
                lambda _module, _inputs, out, key=key: seen.update({key: (out.shape[2], out.shape[1])})
            )
        model(torch.empty(1, 3, 299, 299))
    assert seen == SIZES


@pytest.mark.parametrize("transform_input", [False, True])
def test_evaluation_equals_torchvisions(
    transform_input: bool,
    ours: nn.Module,
    theirs: nn.Module,
    with_batch_statistics: Callable[[nn.Module, Tensor], nn.Module],
) -> None:
    images = torch.randn(4, 3, 107, 107)
    with_batch_statistics(ours, images)
    theirs.load_state_dict(ours.state_dict())
    theirs.eval().transform_input = ours.transform_input = transform_input
    with torch.no_grad():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images), rtol=1e-5, atol=1e-5)
    assert logits.std(dim=0).min() > 1e-2  # the images still tell apart


def test_training_gives_torchvisions_two_answers(ours: nn.Module, theirs: nn.Module) -> None:
    torch.manual_seed(0)
    theirs.load_state_dict(ours.state_dict())
    theirs.transform_input = ours.transform_input = False
    images = torch.randn(2, 3, 299, 299)
    with torch.no_grad():
        outputs, expected = ours.train()(images), theirs.train()(images)
    assert isinstance(outputs, AuxiliaryLogits)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.auxiliary, (expected.aux_logits,), rtol=1e-5, atol=1e-5)
    assert outputs.weight == 0.4


def test_every_parameter_gets_a_gradient_on_images_too_small_for_torchvisions_head(ours: nn.Module) -> None:
    torch.manual_seed(0)
    outputs = ours.train()(torch.randn(4, 3, 75, 75))
    labels = torch.arange(4)
    ours.zero_grad()
    (F.cross_entropy(outputs.logits, labels) + F.cross_entropy(outputs.auxiliary[0], labels)).backward()
    assert [key for key, value in ours.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_the_head_of_the_last_map_gives_the_logits(ours: nn.Module) -> None:
    ours.eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 75, 107)
        last = ours.forward_map(images)
        assert last.shape == (1, 2048, 1, 2)
        assert torch.equal(ours.forward_head(last), ours(images))
        assert torch.equal(ours.forward_features(images), last.mean(dim=(2, 3)))


def test_too_small_images_are_refused_at_creation_and_by_their_tensor() -> None:
    said = "inception_v3: an image of 74 pixels is too small; use 75 or more"
    with torch.device("meta"):
        with pytest.raises(ModelError, match=said):
            create_model("inception_v3", img_size=74)
        model = create_model("inception_v3", auxiliary=True)
        for mode in (True, False):
            with pytest.raises(ModelError, match=said):
                model.train(mode)(torch.empty(2, 3, 299, 74))
        with pytest.raises(RuntimeError, match="size"):  # the promise is no stricter than the layers
            model.last_map(torch.empty(1, 3, 74, 74))


def test_names_lead_to_the_classifiers_and_the_first_convolution() -> None:
    with torch.device("meta"):
        model = create_model("inception_v3", num_classes=4, in_chans=2, auxiliary=True)
        headless = create_model("inception_v3", num_classes=0, auxiliary=True)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4, 4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2
    assert headless.classifier_names == ("fc",)
    assert headless.auxiliary_heads() == ()
    assert isinstance(headless.fc, nn.Identity)


def test_images_of_one_channel_cannot_be_translated() -> None:
    with pytest.raises(ModelError, match="transform_input is for images of 3 channels, not 1"):
        create_model("inception_v3", in_chans=1, transform_input=True)
