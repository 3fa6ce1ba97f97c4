from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import create_model, list_models, model_info
from model_defs.clip import CLIP
from model_defs.clip_resnet import CLIPResNet
from pipeline.errors import InputError
from pipeline.explain.patch_text import patch_text_similarity

TEXT = {"width": 32, "depth": 1, "heads": 2, "context_length": 6, "vocabulary_size": 50}
TEXTS = torch.tensor([[48, 1, 49, 0, 0, 0], [48, 7, 8, 9, 49, 0], [48, 49, 0, 0, 0, 0]])


def small_clip(tower: str, **image_kwargs: object) -> CLIP:
    torch.manual_seed(0)
    model = create_model("clip", image_tower=tower, image_kwargs=image_kwargs, text_kwargs=TEXT, embed_dim=24).eval()
    assert isinstance(model, CLIP)
    return model


def cosines(model: CLIP, places: Tensor) -> Tensor:
    """[B, h w, D] against the texts, [B, T, h w]."""
    return model.encode_text(TEXTS) @ F.normalize(model.image_projection(places), dim=-1).transpose(1, 2)


@pytest.mark.parametrize(("tower", "prefix"), [("vit_micro", 1), ("deit_micro_distilled", 2)])
def test_patches_of_a_vit_stand_for_themselves_in_the_last_block(
    tower: str, prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_clip(tower, width=32, depth=2, img_size=32)
    images = torch.randn(2, 3, 32, 32)
    by_values = patch_text_similarity(model, images, TEXTS)
    by_tokens = patch_text_similarity(model, images, TEXTS, positions="tokens")
    assert by_values.shape == by_tokens.shape == (2, 3, 4, 4)
    assert by_values.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(by_tokens.flatten(2), cosines(model, model.image.tokens(images)[:, prefix:]))
    last = model.image.blocks[-1].attn
    monkeypatch.setattr(last, "forward", last.values)
    torch.testing.assert_close(by_values.flatten(2), cosines(model, model.image.tokens(images)[:, prefix:]))


def test_a_patch_that_changes_changes_its_own_place_and_no_other() -> None:
    model = small_clip("vit_micro", width=32, depth=1, img_size=32)
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 8:16, 24:32] = 0  # row 1, column 3
    difference = patch_text_similarity(model, images, TEXTS) - patch_text_similarity(model, changed, TEXTS)
    assert (difference.abs().amax(dim=1)[0] > 1e-4).nonzero().tolist() == [[1, 3]]


def test_places_of_a_pooled_map_are_its_columns_and_their_mean_is_the_image() -> None:
    model = small_clip("resnet_small", widths=(8, 16), depths=(1, 1), img_size=32)
    images = torch.randn(2, 3, 32, 32)
    similarity = patch_text_similarity(model, images, TEXTS)
    columns = model.image.forward_map(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(similarity.flatten(2), cosines(model, columns))
    of_image = (model.encode_image(images) @ model.encode_text(TEXTS).T)[..., None]
    torch.testing.assert_close(cosines(model, columns.mean(dim=1, keepdim=True)), of_image)


def test_places_of_clips_resnet_are_the_values_of_its_pooling() -> None:
    torch.manual_seed(0)
    text = create_model("text_transformer", **TEXT, output_dim=24)
    tower = CLIPResNet(depths=(1, 1, 1, 1), width=8, num_classes=0, img_size=96)
    model = CLIP(tower, text, 24, projection_bias=True).eval()
    nn.init.zeros_(tower.attn_pool.q_proj.weight)
    nn.init.zeros_(tower.attn_pool.q_proj.bias)
    images = torch.randn(2, 3, 96, 96)
    similarity = patch_text_similarity(model, images, TEXTS)
    assert similarity.shape == (2, 3, 3, 3)
    pool, feature_map = tower.attn_pool, tower.forward_map(images)
    columns = feature_map.flatten(2).transpose(1, 2) + pool.pos_embed[:, 1:]
    torch.testing.assert_close(similarity.flatten(2), cosines(model, pool.v_proj(columns)))
    # Without a query all ten tokens, the map's mean and its nine places, weigh the same in the image.
    of_mean = pool.v_proj(feature_map.mean(dim=(2, 3)) + pool.pos_embed[:, 0])
    torch.testing.assert_close(tower(images), (of_mean + pool.v_proj(columns).sum(dim=1)) / 10)


def convolutional_families() -> Iterator[str]:
    infos = [model_info(name) for name in list_models() if model_info(name).kind == "image"]
    for paper in sorted({info.paper for info in infos}):
        yield min((info.parameters or 0, info.name) for info in infos if info.paper == paper)[1]


@pytest.mark.parametrize("tower", convolutional_families())
def test_every_image_family_of_the_zoo_has_places(tower: str) -> None:
    with torch.device("meta"):
        model = create_model("clip", image_tower=tower, text_kwargs=TEXT, embed_dim=24).eval()
        images = torch.empty(1, 3, model.img_size, model.img_size)
        similarity = patch_text_similarity(model, images, TEXTS.to("meta"))
    assert similarity.shape[:2] == (1, 3)
    assert similarity.shape[2] == similarity.shape[3] > 1


def test_what_has_no_places_or_no_texts_is_refused() -> None:
    model = small_clip("vit_micro", width=32, depth=1, img_size=32)
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(InputError, match="positions must be values or tokens"):
        patch_text_similarity(model, images, TEXTS, positions="keys")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a dual encoder, and VisionTransformer is not one"):
        patch_text_similarity(model.image, images, TEXTS)
    with pytest.raises(InputError, match="in training"):
        patch_text_similarity(model.train(), images, TEXTS)
    model.eval().image = nn.Flatten()
    with pytest.raises(InputError, match="image backbone Flatten has no feature map"):
        patch_text_similarity(model, images, TEXTS)
