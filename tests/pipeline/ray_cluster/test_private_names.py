"""What Tutelage uses of Ray's inside is there in the Ray that is installed: each name, each variable.

Ray promises none of it, which is why pyproject.toml bounds it to the tested minor version. Whoever raises that bound
reads here what to replace.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import mmap
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = ("ray_cluster", "training/ray_train")
DOORS = sorted(file for room in ROOMS for file in (ROOT / "pipeline" / room).glob("*.py"))
SPEC = importlib.util.find_spec("ray")
assert SPEC is not None
assert SPEC.origin is not None
RAY = Path(SPEC.origin).parent


def is_private(name: str) -> bool:
    return (name.startswith("ray.") and any(part.startswith("_") for part in name.split("."))) or ".generated." in name


def private_names() -> Iterator[tuple[str, str]]:
    """(file, dotted name) of all that our code imports from private modules, with the attributes it reads of it."""
    for file in DOORS:
        tree = ast.parse(file.read_text())
        known = {"ray": "ray"}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and is_private(f"{node.module}."):
                for alias in node.names:
                    known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    yield file.name, f"{node.module}.{alias.name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
                name = f"{known[node.value.id]}.{node.attr}"
                if is_private(name):
                    yield file.name, name
            # ray._raylet.NAME
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("ray._"):
                yield file.name, ast.unparse(node)


def variables() -> Iterator[tuple[str, str]]:
    """(file, name) of each environment variable of Ray that our code sets or reads."""
    for file in DOORS:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(r"RAY_\w+", str(node.value)):
                yield file.name, str(node.value)


@cache
def python_of_ray() -> str:
    folders = ("_private", "_common", "train/v2", "tune")
    return "".join(file.read_text() for folder in folders for file in sorted((RAY / folder).rglob("*.py")))


def is_in_the_binary(name: str) -> bool:
    with (RAY / "_raylet.so").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name.encode()) >= 0


def has(name: str) -> bool:
    """Whether a dotted name can be imported, or read as an attribute of what can be."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        return bool(parent) and has(parent) and hasattr(resolved(parent), attribute)
    return True


def resolved(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        return getattr(resolved(parent), attribute)


@pytest.mark.parametrize(("file", "name"), sorted(set(private_names())))
def test_every_private_name_is_there(file: str, name: str) -> None:
    assert has(name), f"{file}: {name} is gone from this Ray; replace it before the bound in pyproject.toml is raised"


@pytest.mark.parametrize(("file", "name"), sorted(set(variables())))
def test_ray_reads_every_variable(file: str, name: str) -> None:
    # RAY_lower_case are settings of Ray's C++, which knows them without the prefix.
    setting = name.removeprefix("RAY_") if name != name.upper() else name
    found = name in python_of_ray() or is_in_the_binary(setting)
    assert found, f"{file}: {name} is read by this Ray no more; find what took its place"


def test_the_search_finds_what_is_known_to_be_used() -> None:
    names = {name for _, name in private_names()}
    assert names >= {
        "ray._private.ray_constants.ENABLE_RAY_CLUSTER",
        "ray._private.utils.set_kill_on_parent_death_linux",
        "ray._raylet.Config.initialize",
        "ray._raylet.AuthenticationTokenLoader.instance",
        "ray._raylet.GcsClient",
        "ray._raylet.RAY_NODE_ID_KEY",
        "ray.train.v2._internal.execution.controller.TrainController",
    }
    assert not has("ray._private.utils.no_such_name")
    assert not is_in_the_binary("no_such_setting_of_ray")


def test_ray_calls_the_hook_by_its_module() -> None:
    """Otherwise replacing the function in the module would change nothing."""
    services = (RAY / "_private" / "services.py").read_text()
    assert "ray._private.utils.set_kill_on_parent_death_linux()" in services, "see _own_process_groups in session.py"
    assert "ray_constants.ENABLE_RAY_CLUSTER" in services, "see _on_loopback in session.py"


def test_trainers_override_methods_that_are_there() -> None:
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.controller import TrainController

    for owner, names in (
        (TorchTrainer, ("_initialize_and_run_controller", "_create_default_callbacks")),
        (TrainController, ("run", "get_result", "abort")),
    ):
        for name in names:
            assert callable(getattr(owner, name, None)), f"trainer.py: {owner.__name__}.{name} is gone from this Ray"
