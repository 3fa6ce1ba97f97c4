"""The word pieces of a released text model, read from its folder as plain data for `wordpiece.py`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, listed
from pipeline.loading.wordpiece import END, PADDING, START, UNKNOWN

VOCABULARY = "wordpieces.json.gz"
# Files of a model on the Hugging Face Hub; the first, or else the other two, define its tokenizer.
FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")


def read_vocabulary(folder: Path) -> dict[str, Any] | None:
    """The vocabulary in a folder: of an exported model, else of tokenizer.json, else of vocab.txt; None if none exists.

    Returns:
        "tokens", the word pieces in the order of their ids; "lowercase", whether text is lower-cased.
    Raises:
        InputError: the tokenizer does not use BERT's word pieces, or its file is damaged.
    """
    for name, read in ((VOCABULARY, load_vocabulary), (FILES[0], _from_json), (FILES[1], _from_text)):
        path = folder / name
        if path.is_file():
            try:
                vocabulary = read(path)
            except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path}: cannot be read as a tokenizer ({error})") from None
            _check(vocabulary["tokens"], path)
            return vocabulary
    return None


def write_vocabulary(vocabulary: Mapping[str, Any], path: Path) -> None:
    """Writes the file for `WordPieceEncoder.read`; the bytes are deterministic."""
    text = json.dumps(dict(vocabulary), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def load_vocabulary(path: Path) -> dict[str, Any]:
    """Reads a file that `write_vocabulary` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        vocabulary: dict[str, Any] = json.load(file)
    return vocabulary


def _from_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    model, normalizer = content["model"], content.get("normalizer") or {}
    if model.get("type") != "WordPiece" or model.get("continuing_subword_prefix", "##") != "##":
        raise InputError(f"{path}: its model is {model.get('type')}; text backbones support BERT's word pieces only")
    if normalizer.get("type") != "BertNormalizer" or normalizer.get("strip_accents") not in (
        None,
        normalizer["lowercase"],
    ):
        raise InputError(f"{path}: does not normalise text as BERT does")
    return {"tokens": _in_order(model["vocab"]), "lowercase": bool(normalizer["lowercase"])}


def _from_text(path: Path) -> dict[str, Any]:
    config = path.with_name(FILES[2])
    lowercase = json.loads(config.read_text(encoding="utf-8")).get("do_lower_case", True) if config.is_file() else True
    return {"tokens": path.read_text(encoding="utf-8").rstrip("\n").split("\n"), "lowercase": bool(lowercase)}


def _in_order(ids: Mapping[str, int]) -> list[str]:
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("its ids have gaps")
    return tokens


def _check(tokens: list[str], path: Path) -> None:
    missing = [token for token in (UNKNOWN, START, END) if token not in tokens]
    if missing:
        raise InputError(f"{path}: has no {listed(missing)}; this is not a vocabulary of BERT")
    if tokens[0] != PADDING:
        raise InputError(f"{path}: token 0 is {tokens[0]!r}, not {PADDING}; text backbones pad with token 0")
