from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model_defs import ModelError, create_model

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
