from __future__ import annotations

import json
import subprocess
import sys

import pytest

from flows.cli.app import main
from model_defs import list_models, model_info
from model_defs.counting import count_macs, count_parameters, on_meta
from pipeline.report.wording import magnitude


@pytest.mark.parametrize("columns", [80, 160])
def test_every_model_has_its_line_and_its_whole_name(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    told = {line.split()[0]: line for line in lines[1:-1]}
    assert list(told) == list_models()
    for name, line in told.items():
        info = model_info(name)
        assert str(info.year) in line
        assert magnitude(info.parameters) in line
        # In a narrow terminal the weights are told by where they come from, in a wide one by their names.
        source = info.weights or ""
        assert (source if columns == 160 else source.partition(" ")[0]) in line


def test_a_pattern_needs_no_word_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "resnet?8"]) == main(["models", "list", "resnet?8"]) == 0
    first, second = (part.split()[0] for part in capsys.readouterr().out.split("weights")[1:])
    assert first == second == "resnet18"


def test_json_tells_everything_the_catalogue_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "vit_base_patch16_384", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["top1_error"] == 22.09
    assert (row["kind"], row["image_size"], row["parameters"]) == ("image", 384, 86_859_496)
    assert set(row) == {
        "name", "kind", "year", "paper", "image_size", "parameters", "macs", "top1_error", "top5_error", "weights",
        "errors_from", "normalisation",
    }  # fmt: skip
    halves = [0.5, 0.5, 0.5]
    assert (row["normalisation"]["mean"], row["normalisation"]["std"]) == (halves, halves)


def test_a_model_s_error_is_told_with_the_paper_s_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "resnet18"]) == 0
    assert "error 27.88 %, table 2: mean of ten crops" in capsys.readouterr().out
    assert main(["models", "show", "vit_micro"]) == 0
    assert "error" not in capsys.readouterr().out


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from flows.cli.app import main; main(['models']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'prefect', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_layer_table_adds_up_to_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["models", "show", "vit_micro", "--img-size", "32", "--num-classes", "5", "--in-chans", "1", "--json"]
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    model = on_meta("vit_micro", img_size=32, num_classes=5, in_chans=1)
    assert told["total"] == {"parameters": count_parameters(model), "macs": count_macs(model)}
    assert sum(layer["parameters"] for layer in told["layers"]) == told["total"]["parameters"]
    assert sum(layer["macs"] for layer in told["layers"]) == told["total"]["macs"]


@pytest.mark.parametrize("name", ["resnet152", "vit_large_patch16_224", "clip"])
def test_a_layer_table_fits_on_a_page_unless_more_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", name]) == 0
    short = capsys.readouterr().out.splitlines()
    assert 8 < len(short) < 60
    assert short[-1].split()[0] == "total"
    assert main(["models", "show", name, "--depth", "9"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > len(short)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["models", "vit_gigantic*"], "unknown model 'vit_gigantic*'"),
        (["models", "show", "resnet5"], "unknown model 'resnet5'; did you mean resnet50"),
        (["models", "show", "vit_micro", "--img-size", "60"], "use a multiple of 8"),
        (["models", "show", "text_transformer", "--in-chans", "1"], "takes no images"),
        (["models", "show"], "Missing argument 'NAME'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
