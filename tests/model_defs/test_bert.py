"""BERT as a text tower, held against the formulas of its paper."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_defs import ModelError, create_model
from model_defs.bert import Bert

SMALL = {"width": 16, "depth": 2, "heads": 4, "context_length": 8, "vocabulary_size": 20}


def small(**kwargs: object) -> Bert:
    torch.manual_seed(0)
    model = create_model("bert", **SMALL, **kwargs).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def by_hand(model: Bert, text: list[int]) -> Tensor:
    """Devlin 2018 over one text without padding: embeddings, then blocks that norm after each short cut."""
    state = model.state_dict()

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-12).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = norm(state["token_embedding.weight"][text] + state["positional_embedding"][: len(text)], "embedding_norm")
    for block in ("blocks.0", "blocks.1"):
        q, k, v = linear(x, f"{block}.attn.qkv").split(16, dim=-1)
        heads = []
        for part in range(4):
            columns = slice(4 * part, 4 * part + 4)
            weights = (q[:, columns] @ k[:, columns].T / math.sqrt(4)).softmax(-1)
            heads.append(weights @ v[:, columns])
        x = norm(x + linear(torch.cat(heads, -1), f"{block}.attn.proj"), f"{block}.norm1")
        hidden = linear(x, f"{block}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        x = norm(x + linear(hidden, f"{block}.mlp.fc2"), f"{block}.norm2")
    return x.mean(0)


def test_features_are_those_of_the_formulas_whatever_the_padding() -> None:
    model = small()
    texts = [[2, 7, 3], [2, 9, 11, 4, 3], [2, 3]]
    rows = torch.zeros(3, 8, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    with torch.no_grad():
        features = model(rows)
        torch.testing.assert_close(features, torch.stack([by_hand(model, text) for text in texts]))
        torch.testing.assert_close(features, model(rows[:, :5]))


def test_a_text_of_nothing_but_padding_has_finite_features() -> None:
    assert small()(torch.zeros(2, 8, dtype=torch.int64)).isfinite().all()


def test_the_projection_is_linear_and_may_be_left_out() -> None:
    model = small(output_dim=5)
    tokens = torch.tensor([[2, 7, 3, 0]])
    assert model(tokens).shape == (1, 5)
    torch.testing.assert_close(model(tokens), F.linear(model.forward_features(tokens), model.text_projection.weight))
    assert small().num_features == 16
    assert torch.equal(small()(tokens), small().forward_features(tokens))


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ModelError, match="9 tokens, but context_length is 8"):
        small()(torch.zeros(1, 9, dtype=torch.int64))


def test_it_exports_with_a_free_batch() -> None:
    model = small(output_dim=5)
    batch = torch.export.Dim("batch", min=1, max=4096)
    tokens = torch.randint(0, 20, (3, 8))
    program = torch.export.export(model, (tokens[:2],), dynamic_shapes=({0: batch},))
    for count in (1, 3):
        torch.testing.assert_close(program.module()(tokens[:count]), model(tokens[:count]))


def test_a_dual_encoder_over_it_trains_whole() -> None:
    torch.manual_seed(0)
    model = create_model(
        "clip",
        image_tower="vit_micro",
        image_kwargs={"img_size": 32, "width": 32, "depth": 1, "heads": 2},
        text_tower="bert",
        text_kwargs=SMALL,
        embed_dim=12,
    )
    images, texts, scale = model(torch.randn(3, 3, 32, 32), torch.tensor([[2, 5, 3], [2, 6, 3], [2, 7, 3]]))
    F.cross_entropy(scale * images @ texts.T, torch.arange(3)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
