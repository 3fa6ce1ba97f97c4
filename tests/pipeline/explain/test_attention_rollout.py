from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model_defs import create_model
from model_defs.vit import VisionTransformer
from pipeline.errors import InputError
from pipeline.explain.attention_rollout import attention_rollout, layer_shares, token_shares


def mirror(*, patches: int, depth: int, sharpness: float) -> VisionTransformer:
    """A ViT whose tokens are (1, -1) if white and (-1, 1) if black, the class token white, and whose tokens attend to
    their like: a weight is exp(2 * sharpness) times as large for the same colour as for the other one."""
    model = VisionTransformer(
        img_size=2 * patches, patch_size=2, width=2, depth=depth, heads=1, num_classes=0, in_chans=1
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim != 1:
                parameter.zero_()
        model.cls_token.copy_(torch.tensor([1.0, -1.0]))
        model.patch_embed.proj.weight[0], model.patch_embed.proj.weight[1] = 0.25, -0.25  # the mean of 2 x 2 pixels
        for block in model.blocks:
            block.attn.qkv.weight[0:2] = (
                torch.eye(2) * sharpness / math.sqrt(2)
            )  # queries; norms make tokens (+-1, -+1)
            block.attn.qkv.weight[2:4] = torch.eye(2)  # keys; scores are divided by the root of 2
    return model


def colours(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]


def test_two_tokens_and_two_layers_by_hand() -> None:
    model = mirror(patches=1, depth=2, sharpness=math.log(3) / 2)
    black = colours([-1])
    attention = model.blocks[0].attn.attention_weights(model.blocks[0].norm1(model.embed(black)))
    torch.testing.assert_close(attention[0, 0], torch.tensor([[0.75, 0.25], [0.25, 0.75]]), rtol=0, atol=1e-4)
    # With the short cut (7/8, 1/8); twice: 2 x 7/8 x 1/8.
    torch.testing.assert_close(attention_rollout(model, black), torch.tensor([[[14 / 64]]]), rtol=0, atol=1e-4)
    # Two tokens alike share evenly: (3/4, 1/4); twice: 2 x 3/4 x 1/4.
    torch.testing.assert_close(attention_rollout(model, colours([1])), torch.tensor([[[6 / 16]]]), rtol=0, atol=1e-4)


def test_layers_multiply_from_the_last_to_the_first() -> None:
    torch.manual_seed(0)
    model = create_model("vit_micro", width=32, depth=3, img_size=32, num_classes=0).eval()
    assert isinstance(model, VisionTransformer)
    images = torch.randn(2, 3, 32, 32)
    x, layers = model.embed(images), []
    for block in model.blocks:
        attention = block.attn.attention_weights(block.norm1(x)).mean(dim=1)
        layers.append(0.5 * attention + 0.5 * torch.eye(17))
        x = block(x)
    expected = layers[2] @ layers[1] @ layers[0]
    torch.testing.assert_close(token_shares(model, images), expected)
    torch.testing.assert_close(attention_rollout(model, images), expected[:, 0, 1:].view(2, 4, 4))
    torch.testing.assert_close(model.norm(x), model.tokens(images))


def test_the_one_patch_that_differs_stands_out_where_it_is() -> None:
    model = mirror(patches=3, depth=2, sharpness=2.0)
    white, black = 1, -1
    relevance = attention_rollout(model, colours([black] * 3, [black, black, white], [black] * 3))[0]
    assert relevance.argmax() == 1 * 3 + 2
    others = relevance.flatten()[torch.arange(9) != 5]
    assert relevance[1, 2] > 10 * others.max()
    torch.testing.assert_close(others, others[:1].expand(8))


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard", [0.0, 0.5, 0.95])
def test_rows_sum_to_one_and_no_share_is_negative(head_fusion: str, discard: float) -> None:
    torch.manual_seed(0)
    model = create_model("vit_micro", width=32, depth=3, img_size=32, num_classes=0).eval()
    shares = token_shares(model, torch.randn(2, 3, 32, 32), head_fusion=head_fusion, discard=discard)
    assert shares.shape == (2, 17, 17)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(2, 17))
    assert (shares >= 0).all()


def test_heads_are_fused_as_asked() -> None:
    weights = torch.tensor([[[[0.8, 0.2], [0.5, 0.5]], [[0.4, 0.6], [0.1, 0.9]]]])
    for fusion, row in (("mean", [0.6, 0.4]), ("max", [0.8, 0.6]), ("min", [0.4, 0.2])):
        mixed = torch.tensor([row[0] / 2 + 0.5, row[1] / 2])
        torch.testing.assert_close(layer_shares(weights, head_fusion=fusion)[0, 0], mixed / mixed.sum())


def test_the_smallest_weights_of_each_row_are_discarded() -> None:
    weights = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]])
    first = layer_shares(weights, discard=0.34)[0, 0]
    torch.testing.assert_close(first, torch.tensor([0.75, 0.15, 0.0]) / 0.9)
    torch.testing.assert_close(layer_shares(weights, discard=0.3), layer_shares(weights))


def test_the_tokens_of_a_distilled_model_are_shown_apart_and_together() -> None:
    torch.manual_seed(0)
    model = create_model("deit_micro_distilled", width=32, depth=2, img_size=32, num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    shares = token_shares(model, images)
    of_class, of_distillation = (attention_rollout(model, images, token=token) for token in ("class", "distillation"))
    torch.testing.assert_close(of_class, shares[:, 0, 2:].view(2, 4, 4))
    torch.testing.assert_close(of_distillation, shares[:, 1, 2:].view(2, 4, 4))
    torch.testing.assert_close(attention_rollout(model, images), (of_class + of_distillation) / 2)


def test_the_model_is_left_as_it_was_and_takes_no_gradient() -> None:
    model = create_model("vit_micro", width=32, depth=2, img_size=32, num_classes=0).eval()
    images = torch.randn(1, 3, 32, 32)
    before = model(images)
    assert not attention_rollout(model, images).requires_grad
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)
    assert all(not module._forward_hooks for module in model.modules())


def test_what_cannot_be_rolled_out_is_refused() -> None:
    vit = create_model("vit_micro", width=32, depth=1, img_size=32)
    images = torch.zeros(1, 3, 32, 32)
    cases: list[tuple[nn.Module, dict[str, object], str]] = [
        (create_model("lenet5"), {}, "LeNet5 is neither; use Grad-CAM"),
        (vit, {}, r"in training mode, which changes its outputs; call eval\(\)"),
        (vit.eval(), {"token": "distillation"}, "no distillation token"),
        (vit, {"token": "patch"}, "mean, class or distillation"),
        (vit, {"head_fusion": "sum"}, "mean, max or min"),
        (vit, {"discard": 1.0}, r"in \[0, 1\), not 1.0"),
    ]
    for model, kwargs, message in cases:
        model.train(model is vit and kwargs == {})
        with pytest.raises(InputError, match=message):
            attention_rollout(model, images, **kwargs)  # type: ignore[arg-type]
