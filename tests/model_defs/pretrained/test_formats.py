"""Real state dicts of timm, torchvision and our own nets, with random weights: each loads with nothing unexplained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from model_defs import create_model
from model_defs.pretrained.bert_keys import from_bert
from model_defs.pretrained.loading import load_state
from model_defs.pretrained.timm_keys import from_timm_vgg
from model_defs.pretrained.torchvision_keys import from_old_densenet, is_old_densenet

# Ours, timm's, whose names are told.
TIMM = [
    ("resnet50", "resnet50", "our names"),
    ("resnext50_32x4d", "resnext50_32x4d", "our names"),
    ("densenet121", "densenet121", "our names"),
    ("seresnet50", "legacy_seresnet50", "our names"),
    ("efficientnet_b0", "efficientnet_b0", "timm EfficientNet"),
    ("efficientnet_b4", "efficientnet_b4", "timm EfficientNet"),
    ("efficientnet_v2_s", "efficientnetv2_s", "timm EfficientNet"),
    ("efficientnet_lite0", "tf_efficientnet_lite0", "timm EfficientNet-Lite"),
    ("regnet_x_400mf", "regnetx_004_tv", "timm RegNet"),
    ("regnet_y_400mf", "regnety_004", "timm RegNet"),
    ("vit_tiny_patch16_224", "vit_tiny_patch16_224", "our names"),
    ("vit_base_patch32_clip_224", "vit_base_patch32_clip_224", "our names"),
    ("deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224", "our names"),
    ("timm/mobilenetv3_small_050", "mobilenetv3_small_050", "timm"),
]


@pytest.mark.parametrize(("ours", "theirs", "format_name"), TIMM)
def test_every_tensor_of_timm_is_taken_over(ours: str, theirs: str, format_name: str) -> None:
    with torch.device("meta"):
        model, reference = create_model(ours), timm.create_model(theirs)
    report = load_state(model, reference.state_dict(), "timm")
    assert (report.format, report.loaded) == (format_name, len(model.state_dict()))
    assert (report.adapted, report.replaced, report.missing, report.dropped) == ((), (), (), ())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("efficientnet_b0", "efficientnet_b0"), ("efficientnet_lite0", "tf_efficientnet_lite0"),
     ("regnet_y_400mf", "regnety_004")],
)  # fmt: skip
def test_logits_are_those_of_timm(ours: str, theirs: str, randomised: Callable[[nn.Module], nn.Module]) -> None:
    reference = randomised(timm.create_model(theirs, num_classes=5))
    model = create_model(ours, num_classes=5).eval()
    load_state(model, reference.state_dict(), "timm")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = model(images)
        torch.testing.assert_close(logits, reference(images), rtol=1e-5, atol=1e-5)
    assert logits.std() > 1e-3


def test_the_image_tower_of_timms_clip_resnet_gives_its_features(randomised: Callable[[nn.Module], nn.Module]) -> None:
    reference = randomised(timm.create_model("resnet50_clip", img_size=64))
    model = create_model("resnet50_clip", img_size=64, num_classes=1024).eval()
    report = load_state(model, reference.state_dict(), "timm")
    assert (report.format, report.loaded) == ("timm CLIP ResNet", len(model.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)


def test_torchvisions_vit_gives_its_logits() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=128, num_classes=5
    ).eval()
    nn.init.normal_(reference.heads.head.weight)
    model = create_model("vit_micro", img_size=32, width=32, depth=2, heads=2, num_classes=5).eval()
    report = load_state(model, reference.state_dict(), "torchvision")
    assert (report.format, report.loaded) == ("torchvision ViT", len(model.state_dict()))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images), rtol=1e-5, atol=1e-5)


def test_densenet_files_of_2017_are_read_by_their_old_names() -> None:
    with torch.device("meta"):
        wanted = create_model("densenet121").state_dict()
    old = {}
    for name, tensor in wanted.items():
        if not name.endswith("num_batches_tracked"):
            parts = name.split(".")
            if len(parts) == 5:  # features.denseblock1.denselayer1.norm1.weight
                parts[3] = f"{parts[3][:-1]}.{parts[3][-1]}"
            old[".".join(parts)] = tensor
    assert is_old_densenet(old)
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert set(from_old_densenet(old)) == {name for name in wanted if not name.endswith("num_batches_tracked")}
    with torch.device("meta"):
        report = load_state(create_model("densenet121"), old, "file")
    assert {note.reason for note in report.missing} == {"a counter that old files do not have"}


def test_timms_vgg_has_the_shapes_of_torchvisions() -> None:
    with torch.device("meta"):
        ours, theirs = torchvision.models.vgg11().state_dict(), timm.create_model("vgg11").state_dict()
    translated = from_timm_vgg(theirs)
    assert {key: value.shape for key, value in translated.items()} == {key: value.shape for key, value in ours.items()}


def test_a_net_of_timm_loads_torchvisions_weights_and_the_other_way() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    reference = torchvision.models.resnet18().eval()
    inside = create_model("timm/resnet18").eval()
    load_state(inside, reference.state_dict(), "torchvision")
    outside = create_model("resnet18").eval()
    assert load_state(outside, inside.state_dict(), "export").format == "timm"
    with torch.no_grad():
        torch.testing.assert_close(inside(images), reference(images))
        torch.testing.assert_close(outside(images), reference(images))


@pytest.fixture(scope="module")
def dual() -> nn.Module:
    torch.manual_seed(0)
    return create_model(
        "clip",
        image_tower="vit_micro",
        image_kwargs={"img_size": 32, "width": 32, "depth": 1, "heads": 2},
        text_kwargs={"width": 32, "depth": 1, "heads": 2, "context_length": 10, "vocabulary_size": 50},
        embed_dim=16,
    )


def test_an_image_model_takes_the_image_tower_of_a_dual_encoder(dual: nn.Module) -> None:
    model = create_model("vit_micro", img_size=32, width=32, depth=1, heads=2, num_classes=3)
    report = load_state(model, dual.state_dict(), "clip")
    for name, tensor in dual.image.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert {note.name for note in report.missing} == {"head.weight", "head.bias"}
    assert {note.reason for note in report.dropped if note.name.startswith("text.")} == {"the other backbone"}
    assert {note.name for note in report.dropped} >= {"image_projection.weight", "logit_scale"}


def test_a_text_model_takes_the_text_tower_and_keeps_a_projection_of_another_width(dual: nn.Module) -> None:
    model = create_model(
        "text_transformer", width=32, depth=1, heads=2, context_length=6, vocabulary_size=50, output_dim=8
    )
    fresh = model.text_projection.weight.clone()
    report = load_state(model, dual.state_dict(), "clip")
    assert torch.equal(model.token_embedding.weight, dual.text.token_embedding.weight)
    assert torch.equal(model.positional_embedding, dual.text.positional_embedding[:6])
    assert torch.equal(model.text_projection.weight, fresh)
    assert [note.name for note in report.replaced] == ["text_projection.weight"]
    assert [note.name for note in report.adapted] == ["positional_embedding"]


def test_berts_first_files_say_gamma_and_beta_under_a_wrapper() -> None:
    state = {
        "bert.embeddings.word_embeddings.weight": torch.randn(9, 4),
        "bert.embeddings.position_embeddings.weight": torch.ones(6, 4),
        "bert.embeddings.token_type_embeddings.weight": torch.tensor([[1.0] * 4, [5.0] * 4]),
        "bert.embeddings.LayerNorm.gamma": torch.ones(4),
        "bert.embeddings.LayerNorm.beta": torch.zeros(4),
    }
    ours = from_bert(state)
    assert torch.equal(ours["positional_embedding"], torch.full((6, 4), 2.0))
    assert {"embedding_norm.weight", "embedding_norm.bias", "token_embedding.weight"} <= set(ours)
