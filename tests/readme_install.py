"""A fresh clone with what the README's install brings, and nothing that only development does.

Installing takes minutes and 7 GB. Here the environment is links to the packages that are installed already, and only to
those that `make demo` asks for, with what those ask for; so whatever else is needed is missing, as it is for a user.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_EXTRAS = ("demo", "photos", "up")
README = [
    Requirement(text)
    for text in [
        *_PROJECT["dependencies"],
        *(one for extra in _EXTRAS for one in _PROJECT["optional-dependencies"][extra]),
    ]
]


def closure(wanted: list[Requirement], python: str) -> Iterator[tuple[Requirement, str]]:
    """Requirements and those of installed ones among them, on Linux, each with the package that requires it."""
    machine = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    waiting = [(requirement, "pyproject.toml") for requirement in wanted]
    seen = set()
    while waiting:
        requirement, required_by = waiting.pop()
        yield requirement, required_by
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            dependencies = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in dependencies:
            dependency = Requirement(text)
            extras = ["", *requirement.extras]
            if dependency.marker is None or any(
                dependency.marker.evaluate({**machine, "extra": extra}) for extra in extras
            ):
                waiting.append((dependency, requirement.name))


def fresh_clone(folder: Path) -> Path:
    """Puts the tree and its `.venv` into a folder; gives the folder of its programs."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    environment = folder / ".venv"
    venv.create(environment, with_pip=False, symlinks=True)
    programs = environment / "bin"
    site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    _link_packages(site, programs)
    _install_ours(folder, site, programs)
    return programs


def _link_packages(site: Path, programs: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = {canonicalize_name(requirement.name) for requirement, _ in closure(README, version)}
    files: dict[str, list[metadata.PackagePath]] = {}
    for installed in metadata.distributions():
        files.setdefault(canonicalize_name(installed.metadata["Name"]), list(installed.files or []))
    files.pop("tutelage", None)
    # Folders in which a package that is not wanted has files too, e.g. `google`: linked file by file.
    shared = {file.parts[0] for name, theirs in files.items() if name not in wanted for file in theirs}
    for name in wanted & files.keys():
        for file in files[name]:
            source = Path(str(file.locate()))
            if file.parts[0] == "..":
                # Programs that are no Python scripts, which name the Python that they run in.
                if file.parent.name == "bin" and source.is_file() and source.read_bytes()[:2] != b"#!":
                    _link(programs / file.name, source)
            elif file.parts[0] in shared:
                _link(site / file, source)
            else:
                _link(site / file.parts[0], source.parents[len(file.parts) - 2] if len(file.parts) > 1 else source)


def _link(link: Path, source: Path) -> None:
    if not link.is_symlink() and source.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)


def _install_ours(folder: Path, site: Path, programs: Path) -> None:
    """What `pip install -e` leaves: a path, the package's metadata and its program."""
    (site / "tutelage.pth").write_text(f"{folder}\n")
    info = site / f"tutelage-{_PROJECT['version']}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: tutelage", f"Version: {_PROJECT['version']}"]
    lines += [f"Requires-Python: {_PROJECT['requires-python']}"]
    lines += [f"Requires-Dist: {text}" for text in _PROJECT["dependencies"]]
    (info / "METADATA").write_text("\n".join([*lines, ""]))
    groups = {"console_scripts": _PROJECT["scripts"], **_PROJECT["entry-points"]}
    text = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items())
        for group, rows in groups.items()
    )
    (info / "entry_points.txt").write_text(text)
    for name, value in _PROJECT["scripts"].items():
        module, _, function = value.partition(":")
        program = programs / name
        program.write_text(
            f"#!{programs / 'python'}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        program.chmod(0o755)
