"""The variants, for every test of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


VARIANTS = _module("encoded_variants", Path(__file__).with_name("variants.py"))


@pytest.fixture(scope="session")
def served_file(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The file that is stored with a registered model, imported as MLflow imports it."""
    from pipeline.registration.package import served_code

    path = tmp_path_factory.mktemp("served") / "served_model.py"
    path.write_text(served_code(), encoding="utf-8")
    return _module("stored_served_model", path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "variant" in metafunc.fixturenames:
        every = VARIANTS.variants()
        metafunc.parametrize("variant", every, ids=[variant.name for variant in every])
