"""JSON files: UTF-8, indented, and without NaN if that is required."""

import json
from pathlib import Path

import pytest

from pipeline.json_file import write_json


def test_json_is_utf_8_and_a_nan_in_it_can_be_refused(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"b": "grün", "a": 1}, sort_keys=True)
    assert path.read_bytes() == '{\n "a": 1,\n "b": "grün"\n}\n'.encode()
    with pytest.raises(ValueError):
        write_json(path, [float("nan")], allow_nan=False)
    assert json.loads(path.read_text("utf-8"))["a"] == 1
