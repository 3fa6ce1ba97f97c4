from __future__ import annotations

import math
from collections.abc import Iterator

import open_clip
import pytest
import torch
from torch import Tensor, nn

from model_defs import ModelError, ModelInfo, create_model, list_models, model_info
from model_defs.clip import CLIP
from model_defs.clip_keys import from_open_clip
from model_defs.clip_resnet import CLIPResNet
from model_defs.layers.transformer import Activation
from model_defs.registry import register_model
from model_defs.text_transformer import TextTransformer
from model_defs.vit import VisionTransformer

pytestmark = pytest.mark.heavy

TEXT = {"width": 32, "depth": 2, "heads": 2, "context_length": 10, "vocabulary_size": 50}
END = 49


def small_clip(tower: str = "deit_micro_distilled", **image_kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    kwargs = image_kwargs or {"img_size": 32, "width": 32, "depth": 2}
    return create_model("clip", image_tower=tower, image_kwargs=kwargs, text_kwargs=TEXT, embed_dim=24)


def tokens(*texts: list[int]) -> Tensor:
    rows = torch.zeros(len(texts), 10, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    return rows


@pytest.mark.parametrize(
    ("tower", "kwargs"),
    [
        ("deit_micro_distilled", {"img_size": 32, "width": 32, "depth": 2}),
        ("resnet_small", {"widths": (8, 16), "depths": (1, 1), "img_size": 32}),
        ("lenet5", {"img_size": 32}),
    ],
)
def test_any_image_tower_gives_unit_vectors_and_trains_whole(tower: str, kwargs: dict[str, object]) -> None:
    model = small_clip(tower, **kwargs).train()
    images, texts, scale = model(torch.randn(3, 3, 32, 32), tokens([48, 1, END], [48, 2, 3, END], [48, END]))
    assert images.shape == texts.shape == (3, 24)
    for features in (images, texts):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    nn.functional.cross_entropy(scale * images @ texts.T, torch.arange(3)).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


def test_padding_and_what_follows_the_end_of_a_text_change_nothing() -> None:
    model = small_clip().eval()
    plain, longer = tokens([48, 5, 6, END]), tokens([48, 5, 6, END, 7, END, 9])
    torch.testing.assert_close(model.encode_text(plain), model.encode_text(longer))
    torch.testing.assert_close(model.encode_text(plain), model.encode_text(plain[:, :4]))
    assert not torch.allclose(model.encode_text(plain), model.encode_text(tokens([48, 6, 5, END])))


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ModelError, match="11 tokens, but context_length is 10"):
        small_clip().encode_text(torch.zeros(1, 11, dtype=torch.int64))


def test_the_temperature_starts_at_the_papers_value_and_stays_below_its_bound() -> None:
    model = small_clip()
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    nn.init.constant_(model.logit_scale, 9.0)
    model.clamp_logit_scale()
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_both_encoders_export_with_a_free_batch() -> None:
    model = small_clip().eval()

    class TextEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, texts: Tensor) -> Tensor:
            return self.model.encode_text(texts)

    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(TextEncoder(), (tokens([48, END], [48, 1, END]),), dynamic_shapes=({0: batch},))
    for texts in (tokens([48, 4, END]), tokens([48, END], [48, 4, END], [48, 9, 8, END])):
        torch.testing.assert_close(program.module()(texts), model.encode_text(texts))


RELEASED = {
    # ours: open_clip's, with QuickGELU and with GELU
    "clip_resnet50": ("RN50-quickgelu", "RN50"),
    "clip_vit_base_patch32": ("ViT-B-32-quickgelu", "ViT-B-32"),
    "clip_vit_base_patch16": ("ViT-B-16-quickgelu", "ViT-B-16"),
    "clip_vit_large_patch14": ("ViT-L-14-quickgelu", "ViT-L-14"),
}


def reference(name: str, **changes: object) -> nn.Module:
    """open_clip's model of this name with initial weights; `changes` go into its configuration."""
    config = open_clip.get_model_config(name)
    config.pop("custom_text", None)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return open_clip.CLIP(**config)


def awake(model: nn.Module) -> nn.Module:
    """Moves norms, biases and running statistics off 0 and 1, so that none can be left out unseen."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


def assert_same_answers(ours: nn.Module, theirs: nn.Module, images: Tensor, texts: Tensor) -> None:
    with torch.no_grad():
        (image, text, scale), expected = ours(images, texts), theirs(images, texts)
        for mine, other in zip((image, text, scale), expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
        theirs_logits = theirs.get_logits(images, texts)[0]
        torch.testing.assert_close(scale * image @ text.T, theirs_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "theirs"), [(name, theirs[1]) for name, theirs in RELEASED.items()])
def test_a_released_model_takes_open_clips_parameters_one_to_one(name: str, theirs: str) -> None:
    with torch.device("meta"):
        model, other = create_model(name), reference(theirs)
    model.load_state_dict(from_open_clip(other.state_dict()), assign=True)
    assert model_info(name).parameters == sum(parameter.numel() for parameter in other.parameters())
    assert model.embed_dim == other.text_projection.shape[1]


def test_vit_base_patch32_equals_open_clips() -> None:
    torch.manual_seed(0)
    theirs = awake(reference("ViT-B-32-quickgelu"))
    with torch.device("meta"):
        ours = create_model("clip_vit_base_patch32").eval()
    ours.load_state_dict(from_open_clip(theirs.state_dict()), assign=True)
    texts = torch.zeros(2, 77, dtype=torch.int64)
    texts[0, :5] = torch.tensor([49406, 320, 1125, 1929, 49407])
    texts[1, :3] = torch.tensor([49406, 1929, 49407])
    assert_same_answers(ours, theirs, torch.randn(1, 3, 224, 224), texts)


SMALL_TEXT = {"width": 64, "layers": 2, "heads": 2, "context_length": 10, "vocab_size": 50}


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_small_ones_equal_open_clips_with_either_activation(tower: str, activation: Activation) -> None:
    torch.manual_seed(0)
    vision = (
        {"image_size": 48, "patch_size": 16, "width": 128, "layers": 2}
        if tower == "vit"
        else {"image_size": 64, "width": 16, "layers": [1, 1, 2, 1]}
    )
    theirs = awake(
        reference(
            "ViT-B-32" if tower == "vit" else "RN50",
            quick_gelu=activation == "quick_gelu",
            embed_dim=24,
            vision_cfg=vision,
            text_cfg=SMALL_TEXT,
        )
    )
    image: nn.Module = (
        VisionTransformer(
            img_size=48, patch_size=16, width=128, depth=2, heads=2, num_classes=0,
            patch_bias=False, pre_norm=True, norm_eps=1e-5, activation=activation,
        )
        if tower == "vit"
        else CLIPResNet(depths=(1, 1, 2, 1), width=16, num_classes=0, img_size=64)
    )  # fmt: skip
    text = TextTransformer(**{**TEXT, "width": 64}, output_dim=24, activation=activation)
    ours = CLIP(image, text, 24, projection_bias=tower == "resnet").eval()
    ours.load_state_dict(from_open_clip(theirs.state_dict()))
    images = torch.randn(3, 3, ours.img_size, ours.img_size)
    assert_same_answers(ours, theirs, images, tokens([48, 1, 2, END], [48, END], [48, 3, 3, 3, END]))


def test_openais_file_and_a_custom_text_tower_are_read_alike() -> None:
    theirs = reference("ViT-B-32", vision_cfg={"layers": 1, "width": 64}, text_cfg={**SMALL_TEXT, "layers": 1})
    state = theirs.state_dict()
    plain = from_open_clip(state)
    facts = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(10), "vocab_size": torch.tensor(50)}
    custom = {
        key if key.startswith("visual.") or key == "logit_scale" else f"text.{key}": value
        for key, value in state.items()
    }
    for other in (from_open_clip({**state, **facts}), from_open_clip(custom)):
        assert other.keys() == plain.keys()
        assert all(torch.equal(other[key], plain[key]) for key in plain)


def test_an_unknown_parameter_keeps_its_name_so_that_a_strict_load_names_it() -> None:
    assert set(from_open_clip({"visual.trunk.stem.weight": torch.zeros(1), "logit_bias": torch.zeros(1)})) == {
        "image.trunk.stem.weight",
        "logit_bias",
    }


def smallest_of_each_paper() -> Iterator[str]:
    infos = [model_info(name) for name in list_models() if model_info(name).kind == "image"]
    for paper in sorted({info.paper for info in infos}):
        yield min((info.parameters or 0, info.name) for info in infos if info.paper == paper)[1]


@pytest.mark.parametrize("tower", smallest_of_each_paper())
def test_every_image_family_of_the_zoo_goes_as_image_tower(tower: str) -> None:
    with torch.device("meta"):
        model = create_model("clip", image_tower=tower, text_kwargs=TEXT, embed_dim=24).eval()
        assert model.encode_image(torch.empty(2, 3, model.img_size, model.img_size)).shape == (2, 24)


def test_any_text_model_goes_as_text_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    from model_defs import registry

    class BagOfWords(nn.EmbeddingBag):
        context_length = 4

    monkeypatch.setattr(registry, "_models", dict(registry._models))
    info = ModelInfo("bag_of_words", "text", 2026, "none")
    register_model(info, lambda *, output_dim, words=50: BagOfWords(words, output_dim))
    model = create_model(
        "clip", image_tower="vit_micro", text_tower="bag_of_words", text_kwargs={"words": 9}, embed_dim=16
    )
    assert model.context_length == 4
    assert model.encode_text(torch.tensor([[0, 8, 3]])).shape == (1, 16)
    with pytest.raises(ModelError, match="'vit_micro' is no text model"):
        create_model("clip", text_tower="vit_micro")


def test_a_released_model_takes_another_image_size_and_number_of_channels() -> None:
    with torch.device("meta"):
        model = create_model("clip_vit_base_patch16", img_size=96, in_chans=1)
        assert model.encode_image(torch.empty(2, 1, 96, 96)).shape == (2, 512)
        assert model.get_submodule(model.first_conv_name).in_channels == 1
