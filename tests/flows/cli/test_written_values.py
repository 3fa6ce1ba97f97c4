"""What people write in YAML, JSON and --set: texts stay texts, and nothing written costs more than a line."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from flows.cli.app import main
from flows.cli.parameters_file import apply_settings, read_file, validated_model
from pipeline.config import Config
from pipeline.errors import InputError


class Answer(Enum):
    YES = "yes"
    NO = "no"


class Inner(Config):
    kind: Literal["off", "on"] = "on"
    names: tuple[str, ...] = ()
    version: str = ""
    folder: Path = Path()


class Wide(Config):
    """A field of each type that YAML may mistake."""

    said: str | None = None
    answer: Answer = Answer.NO
    choice: Literal["yes", "no", 3] = "no"
    either: bool | str = False
    weights: dict[str, float] = Field(default_factory=dict)
    words: dict[str, str] = Field(default_factory=dict)
    inner: Inner | None = None
    many: list[Inner] = Field(default_factory=list)
    number: int = 0
    share: float = 0.0
    anything: dict[str, Any] = Field(default_factory=dict)


def from_file(tmp_path: Path, text: str | bytes, name: str = "a.yaml") -> Wide:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return validated_model(Wide, read_file(tmp_path / name), name)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "True", "y", "1e3", "1.10", "1_000", "0x1F", "010", "1:30",
                                  "2024-01-31", "12:30:45", "007", ".5", "+1", "1.", "=", "-"])  # fmt: skip
def test_a_word_without_quotes_is_a_text_where_a_text_is_wanted(tmp_path: Path, word: str) -> None:
    if word not in ("=", "-"):
        made = from_file(
            tmp_path, f"said: {word}\nwords: {{{word}: {word}}}\ninner: {{names: [{word}, b], folder: {word}}}"
        )
        assert made.said == word
        assert made.words == {word: word}
        assert made.inner is not None
        assert made.inner.names == (word, "b")
        assert str(made.inner.folder) == str(Path(word))
    assert (
        validated_model(Wide, apply_settings({}, [f'inner.version="{word}"', f"said={word!r}"]), "--set").said == word
    )
    if word != "-":
        assert validated_model(Wide, apply_settings({}, [f"inner.version={word}"]), "--set").inner.version == word  # type: ignore[union-attr]


def test_enumerations_of_yes_and_no_can_be_said(tmp_path: Path) -> None:
    made = from_file(tmp_path, "answer: yes\nchoice: yes\ninner: {kind: off}\nmany: [{kind: off}, {kind: on}]")
    assert (made.answer, made.choice, made.inner.kind) == (Answer.YES, "yes", "off")  # type: ignore[union-attr]
    assert [one.kind for one in made.many] == ["off", "on"]
    assert from_file(tmp_path, "choice: 3").choice == 3
    assert validated_model(Wide, apply_settings({}, ["answer=yes", "inner.kind=off"]), "--set").answer is Answer.YES
    with pytest.raises(InputError, match="choice"):
        from_file(tmp_path, "choice: on")


def test_numbers_booleans_and_nothing_are_still_that(tmp_path: Path) -> None:
    made = from_file(tmp_path, "said: null\neither: yes\nnumber: 1_000\nshare: 1e-3\nweights: {on: 2, 1: .5}\n"
                               "anything: {a: yes, b: 1.5, c: 0x10, d: ~, e: 'yes'}")  # fmt: skip
    assert made.said is None
    assert made.either is True
    assert (made.number, made.share) == (1000, 0.001)
    assert made.weights == {"on": 2.0, "1": 0.5}
    assert made.anything == {"a": True, "b": 1.5, "c": 16, "d": None, "e": "yes"}


def test_a_setting_that_looks_like_a_mapping_is_a_text_where_a_text_is_wanted() -> None:
    assert validated_model(Wide, apply_settings({}, ["said={label}"]), "--set").said == "{label}"
    assert validated_model(
        Wide, apply_settings({}, ["inner={version: 1.10, kind: off}", "inner.names=[on]"]), "--set"
    ).inner == Inner(version="1.10", kind="off", names=("on",))


def test_json_is_read_as_json(tmp_path: Path) -> None:
    made = from_file(tmp_path, '{\n\t"said": 1.10,\n\t"answer": "yes", "share": 1e-3, "either": true}', "a.json")
    assert (made.said, made.answer, made.share, made.either) == ("1.10", Answer.YES, 0.001, True)
    assert from_file(tmp_path, "said: Bär".encode("utf-16")).said == "Bär"
    assert from_file(tmp_path, "\ufeffsaid: x").said == "x"


@pytest.mark.parametrize("number", ["yes", ".inf", "-.inf", ".nan", "1e999", "9" * 5000, "1:30", "0x" + "f" * 50])
def test_what_is_no_number_is_refused_in_a_line(tmp_path: Path, number: str) -> None:
    for text in (
        f"number: {number}",
        f"share: {number}",
        f"inner: {{kind: on, names: [], version: a}}\nshare: {number}",
    ):
        with pytest.raises(InputError) as error:
            from_file(tmp_path, text)
        assert len(str(error.value)) < 300


BOMBS = {
    "anchors": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
    ),
    "merges": "a: &a {x: 1}\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} {{{','.join(f'k{i}: *{chr(97 + n)}' for i in range(9))}}}\n" for n in range(20)
    ),
    "itself": "said: &a [*a]",
    "itself in a mapping": "inner: &a {many: *a}",
    "deep lists": "said: " + "[" * 5000,
    "deep blocks": "".join(f"{' ' * n}a:\n" for n in range(500)),
    "a key twice": "said: a\nnumber: 1\nsaid: b",
    "a key twice, deep": "inner: {kind: on, 'kind': off}",
    "a list as a key": "? [a, b]\n: c",
    "no key": "~: x",
    "python": "said: !!python/object/apply:os.system ['true']",
    "a tag": "said: !secret x",
    "a wrong tag": "number: !!int 'many'",
    "a wrong float": "share: !!float many",
    "no digits": "number: 0x_",
    "wrong digits": "number: !!int 0b2",
    "no letter": 'said: "\\UFFFFFFFF"',
    "a long version": f"%YAML 1.{'9' * 5000}\n---\nsaid: a",
    "a wrong date": "number: !!timestamp 'today'",
    "a zero byte": 'said: "a\\0b"',
    "half a letter": 'said: "\\ud800"',
    "two documents": "said: a\n---\nsaid: b",
    "a list": "- a",
    "binary": b"\x00\xff\xfe\x81" * 99,
    "long": "said: " + "x" * 300_000,
    "many": "anything: {a: [" + "1," * 90_000 + "1]}",
    "a tab": "inner:\n\tkind: on",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_is_no_configuration_is_one_line_in_little_time(
    bomb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = BOMBS[bomb]
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["config", "lifecycle"]) == 0  # what is imported is not the file's memory
    capfd.readouterr()
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main(["run", "lifecycle", "--config", str(file)]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "a.yaml" in err
    assert "Traceback" not in err
    assert time.monotonic() - began < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"said": "a", "said": "b"}', '{"share": NaN}', '{"number": 1' + "0" * 5000 + "}", '{"a',
             '{"share": 1e999}', '{"said": "\\ud800"}', "[1]", '{"a": ' * 300 + "1" + "}" * 300]
)  # fmt: skip
def test_json_that_is_no_configuration_is_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json"):
        from_file(tmp_path, text, "a.json")


@pytest.mark.parametrize("setting", ["a=[" + "[" * 3000, "a=&a [*a]", 'a="\\0"', "a={b: 1, b: 2}", "a=!!binary x"])
def test_a_setting_is_bounded_too(setting: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "lifecycle", "--set", setting]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_endless_files_end() -> None:
    command = [sys.executable, "-m", "flows.cli.app", "run", "lifecycle", "--config", "/dev/zero"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
