"""No release of a stranger reaches an install unseen: ranges are bounded, and the whole install is pinned."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.readme_install import README, closure

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
BASE: list[str] = PROJECT["project"]["dependencies"]
OURS = PROJECT["tool"]["importlinter"]["root_packages"]
# Parts of a package that is declared, which bounds them itself.
PARTS = {"botocore": "boto3", "pydantic-core": "pydantic", "mlflow-skinny": "mlflow", "mlflow-tracing": "mlflow"}


def asked_for() -> list[tuple[str, str]]:
    """Every requirement that pyproject.toml states, with where it stands."""
    rows = [("build-system", text) for text in PROJECT["build-system"]["requires"]]
    rows += [("dependencies", text) for text in BASE]
    return rows + [(extra, text) for extra, texts in EXTRAS.items() for text in texts]


def is_bounded(specifier: SpecifierSet) -> bool:
    """Whether a version that nobody has seen yet, of whatever number, is refused."""
    return not specifier.contains("999999", prereleases=True)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs), "a package is pinned twice"
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize(("where", "text"), asked_for())
def test_every_range_is_bounded_above(where: str, text: str) -> None:
    assert is_bounded(Requirement(text).specifier), f"{where}: {text}: bound it, e.g. below the next major version"


@pytest.mark.parametrize("name", ["ray", "torch", "torchvision"])
def test_what_breaks_in_minor_versions_is_bounded_to_the_tested_one(name: str) -> None:
    (wanted,) = (Requirement(text) for text in BASE if Requirement(text).name == name)
    major, minor, _ = Version(pins()[name]).release
    refused = [f"{major}.{minor + 1}.0", f"{major + 1}.0.0"]
    assert not any(map(wanted.specifier.contains, refused)), f"{wanted}: constraints.txt pins {major}.{minor}"


def test_an_open_range_would_be_noticed() -> None:
    assert not any(map(is_bounded, map(SpecifierSet, ("", ">=1", ">1,!=2", ">=0.8"))))
    assert all(map(is_bounded, map(SpecifierSet, ("<2", ">=1,<2", "==1.2", "~=1.2", "==1.*", "<=3"))))


@pytest.mark.parametrize(("where", "text"), asked_for())
def test_a_pin_lies_within_its_range(where: str, text: str) -> None:
    wanted = Requirement(text)
    pinned = pins().get(canonicalize_name(wanted.name))
    assert pinned is not None or where in ("bench", "onnx"), f"{where}: {text} is not in constraints.txt"
    assert pinned is None or wanted.specifier.contains(pinned, prereleases=True), f"{where}: {text}, pinned {pinned}"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_all_that_the_readme_installs_is_pinned_and_fits_together(python: str) -> None:
    pinned = pins()
    wrong, walked = [], set()
    for wanted, asker in closure(README, python):
        walked.add(canonicalize_name(wanted.name))
        version = pinned.get(canonicalize_name(wanted.name))
        if version is None:
            wrong.append(f"{asker} asks for {wanted}: not in constraints.txt")
        elif not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{asker} asks for {wanted}: constraints.txt pins {version}")
    assert not wrong
    assert len(walked) > 150


def test_whatever_is_imported_is_declared() -> None:
    declared = {canonicalize_name(Requirement(text).name) for _, text in asked_for()}
    # For the type checker only.
    declared |= {"mypy-boto3-s3", canonicalize_name("_typeshed")}
    distributions = metadata.packages_distributions()
    for package, file in imported():
        names = {canonicalize_name(name) for name in distributions.get(package, [package])}
        names |= {PARTS[name] for name in names if name in PARTS}
        assert names & declared, f"{file} imports {package}, which pyproject.toml does not ask for"


def imported() -> Iterator[tuple[str, Path]]:
    """Top-level packages that ours import, wherever in a file, with the file."""
    for folder in OURS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module is not None:
                    names = [node.module]
                for package in {name.partition(".")[0] for name in names}:
                    if package not in sys.stdlib_module_names and package not in OURS:
                        yield package, file


def test_the_readmes_install_brings_the_servers_of_up() -> None:
    made = re.findall(r"pip install .*-e '\.\[([a-z,]+)\]'", (ROOT / "Makefile").read_text())
    assert made
    assert all({"demo", "up"} <= set(extras.split(",")) for extras in made)
