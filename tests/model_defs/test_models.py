"""What only numbers can tell, asked of one real model a family: gradients, training and evaluation, layouts, export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_defs import ModelError, create_model
from model_defs.auxiliary import AuxiliaryLogits

# Small enough for a test, by the size of the images where a net has no other argument.
FAMILIES: dict[str, dict[str, Any]] = {
    "lenet5": {},
    "lenet5_1998": {},
    "alexnet": {"img_size": 67, "dropout": 0.0},
    "vgg11_bn": {"img_size": 32, "dropout": 0.0},
    "googlenet": {"img_size": 64, "dropout": 0.0},
    "bn_inception": {"img_size": 64, "dropout": 0.0},
    "inception_v3": {"img_size": 75, "dropout": 0.0, "auxiliary": False},
    "inception_resnet_v1": {"img_size": 75, "dropout": 0.0},
    "resnet18": {"img_size": 64},
    "resnet_small": {"widths": (8, 16), "depths": (1, 2), "img_size": 28},
    "resnext50_32x4d": {"img_size": 64},
    "seresnet50": {"img_size": 64},
    "densenet_small": {"blocks": (2, 2), "img_size": 28},
    "efficientnet_b0": {"img_size": 64, "dropout": 0.0, "drop_path": 0.0},
    "regnet_y_400mf": {"img_size": 64},
    "resnet50_clip": {"img_size": 64},
    "vit_micro": {"width": 32, "depth": 2, "img_size": 32},
    "deit_micro_distilled": {"width": 32, "depth": 2, "img_size": 32, "stem": "conv"},
}
LARGE = ("vgg11_bn",)  # 130 million parameters, whatever the size of the images
SMALL = ("lenet5", "lenet5_1998", "googlenet", "resnet_small", "densenet_small", "vit_micro", "deit_micro_distilled")
EACH_FAMILY = [pytest.param(name, marks=[pytest.mark.heavy] if name in LARGE else []) for name in FAMILIES]
# What each family is asked in CI, and the small ones every time: layouts, number formats, a net's two halves.
SMALL_FIRST = [pytest.param(name, marks=[] if name in SMALL else [pytest.mark.heavy]) for name in FAMILIES]
CONVOLUTIONAL = [family for family in SMALL_FIRST if not str(family.values[0]).startswith(("vit", "deit"))]


def fresh(name: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": 5, **FAMILIES[name], **changes})


def pictures(model: nn.Module, count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, model.img_size, model.img_size, generator=generator)  # type: ignore[call-overload]


def with_batch_statistics(name: str) -> nn.Module:
    """The model in evaluation, its running statistics those of the pictures, so that its answers are not all alike."""
    model = fresh(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures(model, 16))
    return model.eval()


def answers_of(out: Tensor | AuxiliaryLogits | tuple[Tensor, Tensor]) -> list[Tensor]:
    """Every head's logits."""
    if isinstance(out, AuxiliaryLogits):
        return [out.logits, *out.auxiliary]
    return list(out) if isinstance(out, tuple) else [out]


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_in_training_every_head_answers_and_every_parameter_gets_a_gradient(name: str) -> None:
    model = fresh(name).train()
    for module in model.modules():
        # A block that starts as its short cut alone passes no gradient on before its first step.
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.ones_(module.weight)
    answers = answers_of(model(pictures(model)))
    assert len(answers) == len(model.classifier_names)
    assert {tuple(logits.shape) for logits in answers} == {(4, 5)}
    assert all(logits.isfinite().all() for logits in answers)
    labels = torch.tensor([0, 1, 2, 0])
    sum(nn.functional.cross_entropy(logits, labels) for logits in answers).backward()  # type: ignore[union-attr]
    without = {key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # The same number added to all of a query's products leaves their softmax as it is.
    assert without <= {"attn_pool.k_proj.bias"}


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_in_evaluation_one_answer_comes_back_and_does_not_depend_on_the_batch(name: str) -> None:
    model = with_batch_statistics(name)
    images = pictures(model)
    with torch.no_grad():
        logits, first, features = model(images), model(images[:1]), model.forward_features(images)
    assert isinstance(logits, Tensor)
    assert logits.shape == (4, 5)
    assert logits.isfinite().all()
    assert features.shape == (4, model.num_features)
    torch.testing.assert_close(first, logits[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_two_halves_of_a_convolutional_net_are_the_net(name: str) -> None:
    model = with_batch_statistics(name)
    images = pictures(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(model.forward_head(model.forward_map(images)), model(images))


@pytest.mark.parametrize("name", SMALL_FIRST)
def test_channels_last_says_what_the_plain_net_says(name: str) -> None:
    model = with_batch_statistics(name)
    images = pictures(model)
    with torch.no_grad():
        plain = model(images)
        turned = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, plain, rtol=1e-3, atol=1e-4 * max(1.0, float(plain.abs().max())))


@pytest.mark.parametrize("name", SMALL_FIRST)
def test_bfloat16_says_nearly_what_float32_says(name: str) -> None:
    model = fresh(name).eval()
    images = pictures(model)
    with torch.no_grad():
        plain = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse = model(images)
    assert coarse.dtype == torch.bfloat16
    # It has 8 bits of mantissa, 0.4%, and rounding adds up over the layers.
    assert float((coarse - plain).norm() / plain.norm()) < 0.05


@pytest.mark.parametrize("name", ["lenet5", "resnet_small", "densenet_small", "vit_micro", "deit_micro_distilled"])
def test_a_small_model_exports_with_a_free_batch(name: str) -> None:
    held_to_its_export(with_batch_statistics(name))


@pytest.mark.heavy
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_exports_with_a_free_batch(name: str) -> None:
    held_to_its_export(with_batch_statistics(name))


@pytest.mark.heavy
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_one_graph_to_the_compiler(name: str) -> None:
    """By the back end that captures the graph and generates no code: seconds in place of minutes."""
    torch.compiler.reset()
    model = with_batch_statistics(name)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    images = pictures(model)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["resnet_small", "vit_micro"])
def test_compiled_code_says_what_the_plain_net_says(name: str) -> None:
    torch.compiler.reset()
    model = with_batch_statistics(name)
    images = pictures(model)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("without_tf32")
def test_a_gpu_says_what_the_cpu_says(name: str) -> None:
    model = with_batch_statistics(name)
    images = pictures(model)
    with torch.no_grad():
        on_cpu = model(images)
        on_gpu = model.to("cuda")(images.to("cuda")).cpu()
        layout = model.to(memory_format=torch.channels_last)
        turned = layout(images.to("cuda").to(memory_format=torch.channels_last)).cpu()
    close = {"rtol": 1e-3, "atol": 5e-4 * max(1.0, float(on_cpu.abs().max()))}
    torch.testing.assert_close(on_gpu, on_cpu, **close)
    torch.testing.assert_close(turned, on_cpu, **close)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_step_in_bfloat16_on_a_gpu_is_near_that_in_float32_on_the_cpu(name: str) -> None:
    model = fresh(name).train()
    images, labels = pictures(model, 16), torch.arange(16) % 5
    losses = []
    for device, coarse in (("cpu", False), ("cuda", True)):
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=coarse):
            answers = answers_of(model(images.to(device)))
        heads = [nn.functional.cross_entropy(logits.float(), labels.to(device)) for logits in answers]
        torch.stack(heads).sum().backward()
        losses.append(heads[0].item())  # the auxiliary heads have dropout
    # What bfloat16 rounds off, 0.4%, grows over fifty normalisations by the statistics of sixteen images.
    assert losses[1] == pytest.approx(losses[0], rel=0.25)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["resnet_small", "densenet_small", "vit_micro"])
@pytest.mark.usefixtures("without_tf32")
def test_code_compiled_for_a_gpu_says_and_learns_what_the_plain_net_does(name: str) -> None:
    torch.compiler.reset()
    model = with_batch_statistics(name).to("cuda")
    images = pictures(model).to("cuda")
    found = []
    for net in (model, torch.compile(model)):
        model.zero_grad()
        logits = net(images)
        logits.square().mean().backward()
        first = model.get_submodule(model.first_conv_name).weight.grad  # type: ignore[union-attr,arg-type]
        found.append((logits.detach(), first))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-2, atol=1e-4)


def held_to_its_export(model: nn.Module) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (pictures(model, 2),), dynamic_shapes=({0: batch},))
    for count in (1, 5):
        images = pictures(model, count)
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5", "vit_micro", "deit_micro_distilled"])
def test_images_of_another_size_are_refused_with_both_sizes(name: str) -> None:
    model = create_model(name, num_classes=2)
    with pytest.raises(ModelError, match=rf"built for {model.img_size} x {model.img_size} images, got 40 x 48"):
        model(torch.zeros(1, 3, 40, 48))
