"""Fields of configs are described in one style, since forms, YAML files and data cards show them side by side."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config

ROOT = Path(__file__).parents[1]


def configs(base: type[Config] = Config) -> Iterator[type[Config]]:
    """Every config of the product, its modules imported."""
    if base is Config:
        for file in sorted([*ROOT.glob("flows/**/*.py"), *ROOT.glob("pipeline/**/*.py")]):
            if re.search(r"^class \w+\(.*Config\b|^class \w+\($", file.read_text("utf-8"), re.MULTILINE):
                importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    for one in base.__subclasses__():
        if one.__module__.partition(".")[0] in ("flows", "pipeline"):
            yield one
        yield from configs(one)


def test_every_description_is_a_sentence_with_a_capital_and_a_period() -> None:
    described = {
        f"{one.__module__}.{one.__name__}.{name}": field.description
        for one in configs()
        for name, field in one.model_fields.items()
        if field.description
    }
    assert len(described) > 300
    assert [name for name, text in described.items() if not re.fullmatch(r"[A-Z0-9].*\.", text, re.DOTALL)] == []
