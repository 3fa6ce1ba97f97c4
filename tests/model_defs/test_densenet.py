"""Promises of DenseNet beside torchvision's, and of its memory-efficient form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from model_defs import ModelError, create_model, model_info
from model_defs.densenet import BLOCKS, DenseNet, densenet

pytestmark = pytest.mark.heavy

COUNTS = {121: 7_978_856, 161: 28_681_000, 169: 14_149_480, 201: 20_013_928, 264: 33_337_704}
SMALL = {"num_classes": 3, "blocks": (4, 4), "growth": 8, "img_size": 28}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def torchvision_densenet(layers: int, **kwargs: object) -> nn.Module:
    growth, width = (48, 96) if layers == 161 else (32, 64)
    return torchvision.models.DenseNet(growth, BLOCKS[layers], width, **kwargs)


@pytest.mark.parametrize("layers", COUNTS)
def test_the_counts_are_those_of_the_published_nets(layers: int) -> None:
    assert model_info(f"densenet{layers}").parameters == COUNTS[layers]  # test_models.py builds each and counts


@pytest.mark.parametrize("layers", [121, 161])
def test_weights_of_torchvision_load_as_they_are(layers: int) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(f"densenet{layers}").state_dict(), torchvision_densenet(layers).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("layers", [121, 264])  # 264 by torchvision's class, which has no builder for it
def test_logits_are_those_of_torchvision(layers: int, randomised: Callable[[nn.Module], nn.Module]) -> None:
    theirs = randomised(torchvision_densenet(layers, num_classes=9))
    ours = densenet(layers=layers, num_classes=9, img_size=32).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 40, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_the_small_net_is_the_papers_for_cifar() -> None:
    """DenseNet-BC of 100 layers, growth 12: 0.8 M parameters in the paper's table 2; here layer by layer."""
    count, channels = 3 * 24 * 9, 24
    for block in range(3):
        for _ in range(16):
            count += 2 * channels + channels * 48 + 2 * 48 + 48 * 12 * 9
            channels += 12
        if block < 2:
            count += 2 * channels + channels * (channels // 2)
            channels //= 2
    count += 2 * channels + channels * 10 + 10
    with torch.device("meta"):
        model = create_model("densenet_small", num_classes=10, img_size=32, blocks=(16, 16, 16))
    assert parameters(model) == count == 769_162
    assert model.forward_map(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 342, 8, 8)


@pytest.mark.parametrize(("img_size", "side"), [(28, 7), (32, 8), (64, 8)])
def test_the_small_net_keeps_a_map_of_seven_pixels_or_more(img_size: int, side: int) -> None:
    model = create_model("densenet_small", num_classes=2, in_chans=1, img_size=img_size).eval()
    images = torch.randn(2, 1, img_size, img_size)
    with torch.no_grad():
        last = model.forward_map(images)
        assert last.shape == (2, model.num_features, side, side)
        assert torch.equal(model.forward_head(last), model(images))
        assert torch.equal(last.mean(dim=(2, 3)), model.forward_features(images))


def trained_step(memory_efficient: bool, **kwargs: object) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], int]:
    """One step's logits, gradients and buffers, and the bytes of distinct storage that autograd kept for it."""
    torch.manual_seed(0)
    model = create_model("densenet_small", memory_efficient=memory_efficient, **{**SMALL, **kwargs}).train()
    images = torch.randn(4, 3, 28, 28)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images)
        size = sum(kept.values())
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return logits, gradients, dict(model.named_buffers()), size


def test_the_memory_efficient_form_takes_the_same_step() -> None:
    logits, gradients, buffers, _ = trained_step(False)
    efficient_logits, efficient_gradients, efficient_buffers, _ = trained_step(True)
    assert torch.equal(logits, efficient_logits)
    assert gradients.keys() == efficient_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            efficient_gradients[name], gradient, msg=lambda message, name=name: f"{name} {message}"
        )
    for name, buffer in buffers.items():  # the second forward pass must not move the running statistics again
        assert torch.equal(efficient_buffers[name], buffer), name


def test_the_memory_efficient_form_keeps_a_third_in_a_deep_block() -> None:
    """What it keeps grows with the depth, what the plain form keeps with its square."""
    plain, efficient = (trained_step(form, blocks=(24,), growth=4)[3] for form in (False, True))
    assert efficient < plain / 3


def test_a_frozen_statistic_moves_again_after_the_backward_pass() -> None:
    torch.manual_seed(0)
    model = create_model("densenet_small", memory_efficient=True, **SMALL).train()
    for step in (1, 2):
        model(torch.randn(4, 3, 28, 28)).sum().backward()
        tracked = {int(norm.num_batches_tracked) for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)}
        assert tracked == {step}


def test_compiled_the_memory_efficient_form_takes_the_same_step_too() -> None:
    images = torch.randn(4, 3, 28, 28)
    steps = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = create_model("densenet_small", memory_efficient=True, **{**SMALL, "blocks": (2,)}).train()
        run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        run(images).square().sum().backward()
        steps.append(
            {name: parameter.grad for name, parameter in model.named_parameters()} | dict(model.named_buffers())
        )
    torch.testing.assert_close(steps[1], steps[0])


def test_dropout_rests_in_evaluation_only() -> None:
    torch.manual_seed(0)
    model: DenseNet = create_model("densenet_small", dropout=0.5, **SMALL)
    images = torch.randn(2, 3, 28, 28)
    model.train()
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("densenet121", {"img_size": 28}, "image of 28 pixels is too small; use 29 or more"),
        ("densenet_small", {"img_size": 3}, "image of 3 pixels is too small; use 4 or more"),
        ("densenet_small", {"blocks": (2, 0)}, "blocks.1: must be 1 to 1,000, not 0"),
        ("densenet_small", {"blocks": ()}, "blocks: must have 1 to 16 items, not 0"),
    ],
)
def test_what_leaves_no_net_is_refused(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, num_classes=2, **kwargs)


def test_the_smallest_images_go_through_and_smaller_ones_do_not() -> None:
    model = densenet(layers=121, num_classes=2, img_size=29).eval()
    with torch.no_grad():
        assert model.forward_map(torch.randn(1, 3, 29, 29)).shape[-2:] == (1, 1)
        with pytest.raises(ModelError, match="28 pixels"):
            model(torch.randn(1, 3, 28, 40))


def test_names_lead_to_the_classifier_and_the_first_convolution() -> None:
    for name in ("densenet121", "densenet_small"):
        with torch.device("meta"):
            model = create_model(name, num_classes=4, in_chans=2)
        assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
        assert model.get_submodule(model.first_conv_name).in_channels == 2
