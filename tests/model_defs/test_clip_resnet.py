from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from model_defs import ModelError, create_model
from model_defs.clip_keys import from_open_clip
from model_defs.clip_resnet import AttentionPool, CLIPResNet


def small(**kwargs: object) -> CLIPResNet:
    torch.manual_seed(0)
    settings = {"depths": (1, 2, 1, 1), "width": 8, "img_size": 64, "num_classes": 5, **kwargs}
    return awake(CLIPResNet(**settings))  # type: ignore[arg-type]


def awake(model: nn.Module) -> nn.Module:
    """Moves norms, biases and running statistics off their start: the last norm of a new block is zero."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.add_(0.2 * torch.randn_like(tensor))
    return model


@pytest.mark.parametrize("img_size", [64, 96])
def test_features_equal_those_of_open_clips_tower(img_size: int) -> None:
    torch.manual_seed(0)
    theirs = awake(ModifiedResNet([1, 2, 1, 1], output_dim=24, heads=4, image_size=img_size, width=8)).eval()
    ours = small(img_size=img_size, num_classes=0).eval()
    state = from_open_clip({f"visual.{key}": value for key, value in theirs.state_dict().items()})
    head = nn.Linear(256, 24)
    head.load_state_dict({key: state.pop(f"image_projection.{key}") for key in ("weight", "bias")})
    ours.load_state_dict({key.removeprefix("image."): value for key, value in state.items()})
    images = torch.randn(2, 3, img_size, img_size)
    with torch.no_grad():
        torch.testing.assert_close(head(ours(images)), theirs(images), rtol=0, atol=1e-5)


def test_resnet50_has_the_parameters_of_the_released_tower() -> None:
    with torch.device("meta"):
        model = create_model("resnet50_clip", num_classes=1024)
        theirs = ModifiedResNet([3, 4, 6, 3], output_dim=1024, heads=32)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters()) == 38_316_896


def test_the_head_on_the_map_gives_the_logits() -> None:
    model = small().eval()
    images = torch.randn(2, 3, 64, 64)
    feature_map = model.forward_map(images)
    assert feature_map.shape == (2, 256, 2, 2)
    torch.testing.assert_close(model.forward_head(feature_map), model(images))
    torch.testing.assert_close(model.fc(model.forward_features(images)), model(images))
    assert model.get_submodule(model.first_conv_name).in_channels == 3
    assert [model.get_submodule(name).out_features for name in model.classifier_names] == [5]


def test_indifferent_attention_averages_the_values_of_the_map_and_of_its_mean() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(8, grid_size=2, heads=2)
    nn.init.zeros_(pool.q_proj.weight)
    nn.init.zeros_(pool.q_proj.bias)
    feature_map = torch.randn(3, 8, 2, 2)
    of_mean = pool.v_proj(feature_map.mean(dim=(2, 3)) + pool.pos_embed[0, 0])
    values = pool.values(feature_map)
    torch.testing.assert_close(pool(feature_map), (of_mean + values.sum(dim=1)) / 5)
    torch.testing.assert_close(values[:, 2], pool.v_proj(feature_map[:, :, 1, 0] + pool.pos_embed[0, 3]))


def test_the_pooling_runs_in_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(a[0].shape) or fused(*a, **k))
    small()(torch.randn(2, 3, 64, 64))
    assert calls == [(2, 4, 1, 64)]  # one query


def test_every_parameter_gets_a_gradient_once_blocks_are_more_than_their_short_cut() -> None:
    model = small(in_chans=1).train()
    F.cross_entropy(model(torch.randn(4, 1, 64, 64)), torch.tensor([0, 1, 2, 3])).backward()
    without = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without <= {"attn_pool.k_proj.bias"}  # the same for every position: a softmax sees only its rounding


@pytest.mark.parametrize("img_size", [16, 100])
def test_an_image_size_off_the_grid_is_refused(img_size: int) -> None:
    with pytest.raises(ModelError, match=f"{img_size} pixels do not fit; use a multiple of 32"):
        create_model("resnet50_clip", img_size=img_size)


def test_images_of_another_size_are_refused_with_both_sizes() -> None:
    with pytest.raises(ModelError, match="built for 64 x 64 images, got 64 x 96"):
        small()(torch.zeros(1, 3, 64, 96))


def test_it_exports_with_a_free_batch_and_runs_channels_last() -> None:
    model = small().eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    images = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(program.module()(images), model(images))
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), model(images))
