"""Promises of GoogLeNet, the paper's and torchvision's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from model_defs import ModelError, create_model
from model_defs.auxiliary import AuxiliaryLogits
from model_defs.googlenet import MODULES, AuxiliaryHead, GoogLeNet, width_of

# Table 1 of the paper: side and channels after each module, for images of 224 pixels.
TABLE_1 = {
    "conv1": (112, 64),
    "conv3": (56, 192),
    "inception3a": (28, 256),
    "inception3b": (28, 480),
    "inception4a": (14, 512),
    "inception4b": (14, 512),
    "inception4c": (14, 512),
    "inception4d": (14, 528),
    "inception4e": (14, 832),
    "inception5a": (7, 832),
    "inception5b": (7, 1024),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "kwargs", "count"), [
    ("googlenet", {}, 13_378_280),
    ("googlenet", {"auxiliary": False}, 6_998_552),
    ("googlenet_torchvision", {}, 6_624_904),
    ("googlenet_torchvision", {"auxiliary": True}, 13_004_888),
])  # fmt: skip
def test_the_counts_are_exact_with_and_without_heads(name: str, kwargs: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name, **kwargs)) == count


@pytest.mark.parametrize("name", ["googlenet", "googlenet_torchvision"])
def test_maps_have_the_sizes_of_table_1(name: str) -> None:
    seen: dict[str, tuple[int, int]] = {}
    with torch.device("meta"):
        model = create_model(name).eval()
        for key in TABLE_1:
            model.get_submodule(key).register_forward_hook(
                lambda _module, _inputs, out, key=key: seen.update({key: (out.shape[2], out.shape[1])})
            )
        model(torch.empty(1, 3, 224, 224))
    assert seen == TABLE_1


def test_a_module_joins_1x1_3x3_5x5_and_pool() -> None:
    torch.manual_seed(0)
    module = GoogLeNet(num_classes=2, auxiliary=False).inception3a
    weights = list(module.parameters())
    assert [tuple(weight.shape) for weight in weights[::2]] == [
        (64, 192, 1, 1), (96, 192, 1, 1), (128, 96, 3, 3), (16, 192, 1, 1), (32, 16, 5, 5), (32, 192, 1, 1),
    ]  # fmt: skip

    def convolved(x: Tensor, index: int) -> Tensor:
        weight, bias = weights[2 * index], weights[2 * index + 1]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2).clamp(min=0)

    with torch.no_grad():
        x = torch.randn(2, 192, 6, 6)
        expected = torch.cat(
            [
                convolved(x, 0),
                convolved(convolved(x, 1), 2),
                convolved(convolved(x, 3), 4),
                convolved(F.max_pool2d(x, 3, stride=1, padding=1), 5),
            ],
            dim=1,
        )
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("transform_input", [False, True])
def test_evaluation_equals_torchvisions(
    transform_input: bool, with_batch_statistics: Callable[[nn.Module, Tensor], nn.Module]
) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.GoogLeNet(
        num_classes=7, aux_logits=False, transform_input=transform_input, init_weights=False
    )
    images = torch.randn(4, 3, 64, 80)
    with_batch_statistics(theirs, images)
    ours = create_model("googlenet_torchvision", num_classes=7, transform_input=transform_input).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images), rtol=1e-5, atol=1e-5)
    assert logits.std(dim=0).min() > 1e-2  # the images still tell apart


def test_training_gives_torchvisions_three_answers_the_early_head_first() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.GoogLeNet(num_classes=7, init_weights=False, dropout=0.0, dropout_aux=0.0).train()
    ours = create_model("googlenet_torchvision", num_classes=7, auxiliary=True, dropout=0.0).train()
    ours.load_state_dict(theirs.state_dict())
    for head in (ours.aux1, ours.aux2):
        head.dropout.p = 0.0
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        outputs, expected = ours(images), theirs(images)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.auxiliary, (expected.aux_logits1, expected.aux_logits2), rtol=1e-5, atol=1e-5)
    assert outputs.weight == 0.3


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return create_model("googlenet", num_classes=3, in_chans=2, img_size=64)


def test_heads_answer_in_training_and_not_in_evaluation(net: nn.Module) -> None:
    images = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        outputs = net.train()(images)
        assert isinstance(outputs, AuxiliaryLogits)
        assert outputs.logits.shape == (2, 3)
        assert [logits.shape for logits in outputs.auxiliary] == [(2, 3), (2, 3)]
        assert outputs.weight == 0.3
        assert isinstance(net.eval()(images), Tensor)


def test_the_head_of_the_last_map_gives_the_logits(net: nn.Module) -> None:
    images = torch.randn(2, 2, 64, 64)
    net.eval()
    with torch.no_grad():
        last = net.forward_map(images)
        assert last.shape == (2, 1024, 2, 2)
        assert torch.equal(net.forward_head(last), net(images))
        assert torch.equal(net.forward_features(images), last.mean(dim=(2, 3)))


def test_the_signal_reaches_the_end_and_the_gradient_the_start_without_batch_norm(net: nn.Module) -> None:
    torch.manual_seed(0)
    net.train().zero_grad()
    outputs = net(torch.randn(8, 2, 64, 64))
    labels = torch.arange(8) % 3
    losses = [F.cross_entropy(logits, labels) for logits in (outputs.logits, *outputs.auxiliary)]
    (losses[0] + outputs.weight * (losses[1] + losses[2])).backward()
    assert [key for key, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []
    first, last = (net.get_parameter(f"{key}.conv.weight") for key in ("conv1", "inception5b.branch1"))
    assert first.grad.norm() / first.norm() > 0.1 * last.grad.norm() / last.norm()
    with torch.no_grad():
        assert 0.3 < net.forward_map(torch.randn(2, 2, 64, 64)).std() < 10


def test_it_learns_without_batch_norm() -> None:
    torch.manual_seed(0)
    model = create_model("googlenet", num_classes=2, img_size=32, auxiliary=False, dropout=0.0).train()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 < losses[0]


def test_the_heads_pool_as_in_the_paper_at_224_pixels_and_go_on_at_others() -> None:
    torch.manual_seed(0)
    head = AuxiliaryHead(6, 3).eval()
    x = torch.randn(2, 6, 14, 14)
    means = torch.stack([x[:, :, i : i + 5, j : j + 5].mean(dim=(2, 3)) for i in (0, 3, 6, 9) for j in (0, 3, 6, 9)])
    pooled = means.permute(1, 2, 0).reshape(2, 6, 4, 4)
    with torch.no_grad():
        hidden = head.fc1(head.conv(pooled).flatten(1)).clamp(min=0)
        torch.testing.assert_close(head(x), head.fc2(hidden))
        for side in (2, 5, 24):
            assert head(torch.randn(2, 6, side, side)).shape == (2, 3)


def test_features_alone_have_no_heads() -> None:
    with torch.device("meta"):
        for name in ("googlenet", "googlenet_torchvision"):
            model = create_model(name, num_classes=0, auxiliary=True).train()
            assert model(torch.empty(2, 3, 64, 64)).shape == (2, 1024)
            assert model.classifier_names == ("fc",)


def test_gates_cost_what_squeeze_and_excitation_costs_and_open_ones_change_nothing() -> None:
    torch.manual_seed(0)
    gated = create_model("googlenet", num_classes=3, squeeze_excite=True, auxiliary=False).eval()
    plain = create_model("googlenet", num_classes=3, auxiliary=False).eval()
    widths = [width_of(name) for name in MODULES]
    assert parameters(gated) - parameters(plain) == sum(2 * c * (c // 16) + c // 16 + c for c in widths)
    assert plain.load_state_dict(gated.state_dict(), strict=False).missing_keys == []
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(gated(images), plain(images))
        for key, parameter in gated.named_parameters():
            if ".se_module.fc2." in key:
                parameter.fill_(100.0 if key.endswith("bias") else 0.0)  # sigmoid(100) is 1
        torch.testing.assert_close(gated(images), plain(images))


@pytest.mark.parametrize(("name", "smallest"), [("googlenet", 31), ("googlenet_torchvision", 15)])
def test_the_smallest_image_goes_through_and_a_smaller_one_is_refused(name: str, smallest: int) -> None:
    said = f"{name}: an image of {smallest - 1} pixels is too small; use {smallest} or more"
    with torch.device("meta"):
        model = create_model(name, img_size=smallest, auxiliary=True)
        assert model.eval()(torch.empty(1, 3, smallest, smallest)).shape == (1, 1000)
        with pytest.raises(ModelError, match=said):
            create_model(name, img_size=smallest - 1)
        for mode in (True, False):
            with pytest.raises(ModelError, match=said):
                model.train(mode)(torch.empty(1, 3, 64, smallest - 1))
        with pytest.raises(RuntimeError, match="too small"):  # the promise is no stricter than the layers
            model.last_map(torch.empty(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize("name", ["googlenet", "googlenet_torchvision"])
def test_names_lead_to_the_classifiers_and_the_first_convolution(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4, in_chans=2, auxiliary=True)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4, 4, 4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2


def test_images_of_one_channel_cannot_be_translated() -> None:
    with pytest.raises(ModelError, match="transform_input is for images of 3 channels, not 1"):
        create_model("googlenet_torchvision", in_chans=1, transform_input=True)


def test_channels_last_and_bfloat16_change_no_decision(net: nn.Module) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 2, 64, 64)
    net.eval()
    with torch.no_grad():
        expected = net(images)
        torch.testing.assert_close(net(images.contiguous(memory_format=torch.channels_last)), expected)
        low = copy.deepcopy(net).to(torch.bfloat16)(images.to(torch.bfloat16)).float()
    torch.testing.assert_close(low, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
