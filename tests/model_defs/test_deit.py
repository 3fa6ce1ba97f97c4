from __future__ import annotations

import torch

from model_defs import create_model
from model_defs.deit import combine_heads

SMALL = {"num_classes": 4, "img_size": 32, "width": 32, "depth": 1}


def test_in_training_both_heads_answer_and_in_evaluation_their_mean() -> None:
    torch.manual_seed(0)
    model = create_model("deit_micro_distilled", **SMALL)
    images = torch.randn(3, 3, 32, 32)
    from_class, from_distillation = model.train()(images)
    assert from_class.shape == from_distillation.shape == (3, 4)
    assert not torch.equal(from_class, from_distillation)
    torch.testing.assert_close(model.eval()(images), (from_class + from_distillation) / 2)


def test_softmax_combination_is_the_mean_of_the_probabilities() -> None:
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    combined = combine_heads(a, b, "softmax")
    torch.testing.assert_close(combined.exp(), (a.softmax(1) + b.softmax(1)) / 2)


def test_a_confident_wrong_head_weighs_less_by_softmax() -> None:
    a, b = torch.tensor([[40.0, 0.0]]), torch.tensor([[0.0, 20.0]])
    assert combine_heads(a, b, "logits").softmax(1)[0, 0] > 0.99
    assert abs(combine_heads(a, b, "softmax").softmax(1)[0, 0] - 0.5) < 1e-3


def test_without_its_token_deit_is_vit_to_the_weight() -> None:
    deit, vit = (create_model(f"{family}_tiny_patch16_224", img_size=32) for family in ("deit", "vit"))
    assert {k: v.shape for k, v in deit.state_dict().items()} == {k: v.shape for k, v in vit.state_dict().items()}


def test_parameter_names_are_those_of_released_weights() -> None:
    names = set(create_model("deit_micro_distilled", **SMALL).state_dict())
    assert names == {
        "cls_token", "dist_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
        "blocks.0.norm1.weight", "blocks.0.norm1.bias", "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias",
        "blocks.0.attn.proj.weight", "blocks.0.attn.proj.bias", "blocks.0.norm2.weight", "blocks.0.norm2.bias",
        "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.bias", "blocks.0.mlp.fc2.weight", "blocks.0.mlp.fc2.bias",
        "norm.weight", "norm.bias", "head.weight", "head.bias", "head_dist.weight", "head_dist.bias",
    }  # fmt: skip


def test_stochastic_depth_rises_with_the_depth_and_rests_in_evaluation() -> None:
    torch.manual_seed(0)
    model = create_model("vit_micro", num_classes=2, img_size=16, width=32, depth=3, drop_path=0.4)
    assert [getattr(block.drop_path, "rate", 0.0) for block in model.blocks] == [0.0, 0.2, 0.4]
    images = torch.randn(8, 3, 16, 16)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


def test_features_are_the_mean_of_what_the_two_heads_see() -> None:
    torch.manual_seed(0)
    model = create_model("deit_micro_distilled", **SMALL).eval()
    images = torch.randn(3, 3, 32, 32)
    tokens = model.tokens(images)
    torch.testing.assert_close(model.forward_features(images), (tokens[:, 0] + tokens[:, 1]) / 2)
    torch.testing.assert_close(model(images), (model.head(tokens[:, 0]) + model.head_dist(tokens[:, 1])) / 2)
