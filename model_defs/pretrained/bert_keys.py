"""Renames BERT's parameters in files of its authors and of transformers to the names of `model_defs.bert`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "attention.output.dense": "attn.proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}
_QKV = ("query", "key", "value")
_NORM = {"gamma": "weight", "beta": "bias"}  # in the authors' files

# Prefixes of names that our model does not have, and why.
DROPPED = {
    "pooler.": "the layer of next-sentence prediction; a text here is the mean of its tokens",
    "cls.": "the heads of pre-training",
    "embeddings.position_ids": "a list of numbers, not weights",
    "embeddings.token_type_embeddings.": "added to the positions: a text here is one segment",
}


def is_bert(state: Mapping[str, Tensor]) -> bool:
    return any(name.endswith("embeddings.word_embeddings.weight") for name in state)


def from_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A BERT's weights with our names; the names in DROPPED are not changed."""
    state = {_without_wrapper(name): tensor for name, tensor in state.items()}
    ours = {name: tensor for name, tensor in state.items() if name.startswith(tuple(DROPPED))}
    positions = state["embeddings.position_embeddings.weight"]
    segments = state.get("embeddings.token_type_embeddings.weight")
    ours["positional_embedding"] = positions if segments is None else positions + segments[0]
    ours["token_embedding.weight"] = state["embeddings.word_embeddings.weight"]
    for name, tensor in state.items():
        match = _LAYER.fullmatch(name)
        if match:
            number, part, leaf = match.groups()
            if part == "attention.self.query":
                parts = (state[f"encoder.layer.{number}.attention.self.{projection}.{leaf}"] for projection in _QKV)
                ours[f"blocks.{number}.attn.qkv.{leaf}"] = torch.cat(list(parts))
            elif part not in ("attention.self.key", "attention.self.value"):
                ours[f"blocks.{number}.{_PARTS.get(part, part)}.{leaf}"] = tensor
        elif name.startswith("embeddings.LayerNorm."):
            ours[name.replace("embeddings.LayerNorm", "embedding_norm")] = tensor
        elif name not in ours and not name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
            ours[name] = tensor
    return ours


def _without_wrapper(name: str) -> str:
    name = name.removeprefix("bert.")
    stem, _, leaf = name.rpartition(".")
    return f"{stem}.{_NORM[leaf]}" if leaf in _NORM and stem.endswith("LayerNorm") else name
