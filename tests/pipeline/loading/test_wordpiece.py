"""The word pieces are those of `tokenizers`, character by character and for any text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.loading import wordpiece
from pipeline.loading.tokenizer import WordPieceTokenizer
from pipeline.loading.wordpiece import WordPieceEncoder
from pipeline.loading.wordpiece_vocabulary import load_vocabulary, read_vocabulary, write_vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyzßéσßdž0123456789一丁한日本"
WORDS = ["photo", "puppy", "##s", "##py", "pup", "un", "##believ", "##able", "'", "!", "-", "heart", "##ing", "of", "a"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(set(LETTERS) - {"a"})]
TOKENS += [f"##{letter}" for letter in sorted(set(LETTERS) - {"s"})]
TOKENS = list(dict.fromkeys(TOKENS))

# From the first planes, what both tables of characters know: those of `tokenizers` are of Unicode 8 (2015).
OLD = st.one_of(
    st.characters(max_codepoint=0x2FF, exclude_categories=["Cs"]),
    st.characters(min_codepoint=0x370, max_codepoint=0x52F),
    st.characters(min_codepoint=0x3040, max_codepoint=0x30FF),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FD5),
    st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
    st.characters(min_codepoint=0x1F300, max_codepoint=0x1F64F),
    st.sampled_from(["\u200d", "\ufe0f", "\xa0", "\u3000", "\u2028", "\x00", "\ufffd", "İ", "Σ", "ﬁ", "é", "e\u0301"]),
)
TEXT = st.lists(st.one_of(OLD, st.sampled_from(["unbelievable ", "puppies", "[SEP]", " "])), max_size=30).map("".join)


def reference(lowercase: bool) -> Any:
    pipeline = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {token: number for number, token in enumerate(TOKENS)}, unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    pipeline.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    pipeline.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return pipeline


PIPELINES = {lowercase: reference(lowercase) for lowercase in (True, False)}
ENCODERS = {lowercase: WordPieceEncoder({"tokens": TOKENS, "lowercase": lowercase}) for lowercase in (True, False)}


@settings(deadline=None, max_examples=300)
@given(TEXT, st.booleans())
@example("Unbelievable! A PUPPY's ﬁne naïve café", True)
@example("x" * 101 + " photo", True)
def test_any_text_has_the_ids_that_tokenizers_gives(text: str, lowercase: bool) -> None:
    assert ENCODERS[lowercase].encode(text) == PIPELINES[lowercase].encode(text).ids


def test_a_text_stands_between_start_and_end_and_is_cut_or_padded() -> None:
    tokenizer = WordPieceTokenizer({"tokens": TOKENS, "lowercase": True}, 6)
    rows = tokenizer.encode(["a photo", "of a photo of a puppy", ""])
    ids = {token: number for number, token in enumerate(TOKENS)}
    assert rows.tolist() == [
        [2, ids["a"], ids["photo"], 3, 0, 0],
        [2, ids["of"], ids["a"], ids["photo"], ids["of"], 3],
        [2, 3, 0, 0, 0, 0],
    ]
    assert rows.dtype == torch.int64
    assert tokenizer.encode([]).shape == (0, 6)
    assert tokenizer.encode(["a"], 4).shape == (1, 4)


def write_tokenizer(folder: Path, **changes: Any) -> None:
    pipeline = json.loads(PIPELINES[True].to_str())
    for path, value in changes.items():
        part, _, key = path.partition("__")
        pipeline[part][key] = value
    (folder / "tokenizer.json").write_text(json.dumps(pipeline), encoding="utf-8")


def test_the_vocabulary_of_either_file_goes_through_ours_unchanged(tmp_path: Path) -> None:
    for name in ("json", "text"):
        (tmp_path / name).mkdir()
    write_tokenizer(tmp_path / "json")
    (tmp_path / "text" / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    wanted = {"tokens": TOKENS, "lowercase": True}
    assert read_vocabulary(tmp_path / "json") == read_vocabulary(tmp_path / "text") == wanted
    (tmp_path / "text" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert read_vocabulary(tmp_path / "text") == {**wanted, "lowercase": False}
    assert read_vocabulary(tmp_path) is None
    for name in ("a.gz", "b.gz"):
        write_vocabulary(wanted, tmp_path / name)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert load_vocabulary(tmp_path / "a.gz") == wanted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__type": "BPE"}, "its model is BPE; text backbones support BERT's word pieces only"),
        ({"normalizer__type": "NFC"}, "does not normalise text as BERT does"),
        ({"normalizer__strip_accents": False}, "does not normalise text as BERT does"),
        ({"model__vocab": {"[PAD]": 0, "[UNK]": 1}}, r"has no \[CLS\], \[SEP\]"),
        ({"model__vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}}, "text backbones pad with token 0"),
        ({"model__vocab": {"[PAD]": 0, "[UNK]": 2}}, "its ids have gaps"),
        ({"model__vocab": None}, "cannot be read as a tokenizer"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_tokenizer(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        read_vocabulary(tmp_path)


def test_the_encoder_needs_nothing_but_its_file_and_its_vocabulary(tmp_path: Path) -> None:
    write_vocabulary({"tokens": TOKENS, "lowercase": True}, tmp_path / "words.gz")
    (tmp_path / "encoder.py").write_bytes(Path(wordpiece.__file__).read_bytes())
    code = "import encoder; print(encoder.WordPieceEncoder.read('words.gz').encode_batch(['a photo'], 5))"
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
                          capture_output=True, text=True, cwd=tmp_path, check=False)  # fmt: skip
    assert done.stdout.strip() == str(ENCODERS[True].encode_batch(["a photo"], 5)), done.stderr
