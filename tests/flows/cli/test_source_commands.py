"""`tutelage sources` names every source; each example is a command that its own parser takes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from flows.catalog import find_flow
from flows.cli.app import main
from flows.cli.parameters_file import shell_parameters
from flows.cli.source_commands import example_command
from pipeline.sharding.sources.catalogue import SOURCES


def test_every_source_is_listed_with_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources"]) == 0
    shown = capsys.readouterr().out
    assert main(["sources", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in listed] == list(SOURCES)
    for one in listed:
        assert f"\n{one['kind']} " in shown
        assert one["needs"]
        assert f"--set data.source.kind={one['kind']}" in one["example"]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_example_is_taken_as_it_stands(kind: str) -> None:
    words = shlex.split(example_command(kind, SOURCES[kind].about))
    assert words[:4] == ["tutelage", "run", "shard-dataset", "--preset"]
    settings = [word for word in words[5:] if word != "--set"]
    parameters, _ = shell_parameters(find_flow("shard-dataset"), words[4], None, settings)
    data = parameters.model_dump()["data"]
    assert data["source"]["kind"] == kind
    # Without artists there is no hand to hold out, and the run would be refused.
    assert kind == "emoji" or data["split"]["holdout_family"] is None


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_shows_its_fields_those_that_must_be_set_first(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", kind]) == 0
    page = capsys.readouterr().out
    assert main(["sources", kind, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)["fields"]
    assert {field["name"] for field in fields} == set(SOURCES[kind].model_fields) - {"kind", "fingerprint"}
    required = [field["default"] == "required" for field in fields]
    assert required == sorted(required, reverse=True)
    for field in fields:
        assert field["name"] in page


def test_an_unknown_source_is_one_line_with_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "web_dataset"]) == 2
    assert capsys.readouterr().err == "tutelage: unknown source 'web_dataset'; did you mean webdataset?\n"


def test_listing_imports_no_torch_and_no_boto3() -> None:
    code = (
        "import sys; from flows.cli.app import main; main(['sources']);"
        "print([name for name in ('torch', 'boto3', 'prefect') if name in sys.modules], file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stderr.strip() == "[]"
