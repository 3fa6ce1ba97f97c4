"""The shipped encoder and the compiled one are the same function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import instant_clip_tokenizer
import open_clip.tokenizer
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.loading import bpe
from pipeline.loading.tokenizer import Tokenizer
from pipeline.loading.vocabulary import clip_vocabulary, write_vocabulary

COMPILED = instant_clip_tokenizer.Tokenizer()
TOKENIZER = Tokenizer(8)
PIECES = st.one_of(
    st.text(),
    st.characters(min_codepoint=0x1F000, max_codepoint=0x1FAFF),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
    st.characters(min_codepoint=0xA0, max_codepoint=0x600),
    st.sampled_from(
        [
            "photo ",
            "...",
            "<start_of_text>",
            "<|endoftext|>",
            "'s",
            "'S",
            "'ll",
            "'re",
            "ſ",
            "\u200d",
            "\ufe0f",
            "🇺🇸",
            "1",
            "½",
            "\x1c",
            "\xa0",
            "\n",
            "İ",
            "Σ",
            "ß",
            "方",
            "ไทย",
            "عربي",
            "한국어",
        ]
    ),
    st.sampled_from(range(49_408)).map(lambda token: COMPILED.decode([token])),
)

ODD_TEXTS = [
    "",
    "   ",
    "A photo of a cat's 123 café 😀!? HE'LL  it's",
    "👩‍👩‍👧‍👦 👍🏽 🇺🇸🇩🇪 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "<start_of_text>a<end_of_text><|endoftext|>",
    "I'll we've they're 'tis 'Ss ''s ''",
    "½ ² Ⅷ ٣ ३ 12345",
    "한국어 방탄소년단 日本語 ไทย العربية עברית हिन्दी தமிழ்",
    "naïve coöperation Straße İstanbul ΣΑΣ ǅ",
    "a\u00a0b\u2003c\u3000d\te\r\nf",
    "\u200b\u200d\ufe0f\ufeff\ufffd",
    "e\u0301 \u0301 \u1100\u1161\u11a8",
    "&amp; &lt;b&gt; $9.99 #tag @name https://a.b/c?d=e",
    "supercalifragilisticexpialidocious" * 3,
    "ééééé" + "\u00ad" * 5 + "…—–“”",
    "\U0001d400\U0001d7ce \U00020000 \ue000",
]


@pytest.fixture(scope="module")
def encoder() -> bpe.BytePairEncoder:
    return bpe.BytePairEncoder(clip_vocabulary())


@given(st.lists(PIECES, max_size=12).map("".join))
@example("A photo of a cat's 123 café 😀!? HE'LL  it\u017fs")
@settings(max_examples=400, deadline=None)
def test_plain_python_encodes_as_the_compiled_tokenizer_does(encoder: bpe.BytePairEncoder, text: str) -> None:
    assert encoder.encode(text) == COMPILED.encode(text)


def test_every_token_and_the_characters_of_every_script_are_encoded_alike(encoder: bpe.BytePairEncoder) -> None:
    texts = [COMPILED.decode([token]) for token in range(49_408)]
    # Scripts of alphabets one by one; of the Chinese, Korean and private ones every 13th will do.
    codes = [*range(0x3400), *range(0x3400, 0xD800, 13), *range(0xE000, 0x30000, 13)]
    texts += [chr(code) for code in codes]
    assert [text for text in texts if encoder.encode(text) != COMPILED.encode(text)] == []


def test_every_token_is_made_of_the_symbols_that_open_clip_makes_it_of() -> None:
    theirs = open_clip.tokenizer.SimpleTokenizer()
    symbols = [theirs.decoder[token] for token in range(512)]
    for left, right in clip_vocabulary()["merges"]:
        symbols.append(symbols[left] + symbols[right])
    assert [*symbols, bpe.START, bpe.END] == list(theirs.encoder)
    assert len(theirs.encoder) == Tokenizer.vocabulary_size == 49_408


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_have_the_tokens_of_open_clip(encoder: bpe.BytePairEncoder, text: str) -> None:
    theirs = open_clip.tokenizer.SimpleTokenizer()
    # It would repair and unescape the text first, which neither tokenizer here does.
    theirs.clean_fn = str.lower
    assert encoder.encode(text) == theirs.encode(text) == COMPILED.encode(text)


def test_known_caption_has_clips_own_tokens() -> None:
    rows = TOKENIZER.encode(["a photo of a dog", ""])
    assert rows.tolist() == [[49406, 320, 1125, 539, 320, 1929, 49407, 0], [49406, 49407, 0, 0, 0, 0, 0, 0]]


@given(st.lists(st.text(max_size=20), max_size=4), st.integers(3, 20))
@settings(max_examples=100, deadline=None)
def test_batches_are_cut_and_padded_alike(encoder: bpe.BytePairEncoder, texts: list[str], length: int) -> None:
    rows = TOKENIZER.encode(texts, length)
    assert tuple(rows.shape) == (len(texts), length)
    assert encoder.encode_batch(texts, length) == rows.tolist()


def test_encoder_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    """Its source and its vocabulary file alone, in an isolated interpreter without site-packages."""
    (tmp_path / "bpe.py").write_text(Path(bpe.__file__).read_text())
    write_vocabulary(tmp_path / "vocabulary.json.gz")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from bpe import BytePairEncoder; "
        f"print(BytePairEncoder.read({str(tmp_path / 'vocabulary.json.gz')!r}).encode_batch(['a photo of a dog'], 8))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[[49406, 320, 1125, 539, 320, 1929, 49407, 0]]"


def test_vocabulary_file_is_always_the_same_bytes(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "one")
    write_vocabulary(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
