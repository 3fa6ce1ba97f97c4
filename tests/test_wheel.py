"""An install has the data files of the packages too, not only their Python files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]


def test_wheel_has_every_file_of_the_packages_and_the_licences_of_what_is_vendored(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "built"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    built.mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {file.relative_to(ROOT).as_posix() for package in PACKAGES for file in (ROOT / package).rglob("*")}
    files = {name for name in ours if (ROOT / name).is_file() and "__pycache__" not in name}
    assert "pipeline/loading/clip_merges.txt.gz" in files
    assert files - names == set()
    licences = {name.partition("/licenses/")[2] for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "pipeline/loading/clip_merges.LICENSE"}
