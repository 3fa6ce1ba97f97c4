"""The command line keeps its promises: one line for a mistake, the right exit code, an instant --help."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from flows.catalog import find_flow
from flows.cli.app import main
from infra.local.server import Server, free_port
from infra.local.servers import ServerError
from infra.local.up import Stack

VIT_DEPTH = "teacher.model.kwargs.depth: must be 1 to 1,000, not 0 (vit_micro)"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr, which must be exactly one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "train-techer"], "did you mean train-teacher"),
        (["run", "lifecycle", "--preset", "emojis"], "did you mean emoji"),
        (["run", "shard-dataset", "--set", "data.sourse.size=3"], "unknown key 'data.sourse'; did you mean source?"),
        (["run", "shard-dataset", "--set", "data.source.size=3"], "data.source.size: "),
        (["run", "shard-dataset", "--set", "data.source.size.x=3"], "data.source.size is a value"),
        (["run", "shard-dataset", "--set", "data"], "write KEY=VALUE"),
        (["run", "shard-dataset", "--set", "data.source.size=[1"], "not YAML"),
        (["run", "shard-dataset", "--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["run", "shard-dataset", "--config", "a.yaml", "--preset", "emoji"], "give one of them"),
        (["run", "train-teacher", "--set", "shards=shard-dataset/00000"], "unknown artifact"),
        (["run", "train-teacher", "--set", "teacher.model.name=resnet_smal"], "did you mean resnet_small"),
        (["run", "train-teacher", "--set", "teacher.model.kwargs={widht: 3}"], "did you mean widths"),
        (["run", "train-teacher", "--set", "teacher.model={name: vit_micro, kwargs: {depth: 0}}"], VIT_DEPTH),
        (["run", "lifecycle", "--set", "teacher.model={name: vit_micro, kwargs: {depth: 0}}"], VIT_DEPTH),
        (
            ["run", "train-teacher", "--set", "teacher.model={name: vit_micro, kwargs: {drop_path: 1.5}}"],
            "teacher.model.kwargs.drop_path: must be at least 0 and below 1, not 1.5",
        ),
        (
            ["run", "train-teacher", "--set", "teacher.model.kwargs.widths=wide"],
            "teacher.model.kwargs.widths: must be a list, not 'wide'",
        ),
        (
            ["run", "train-teacher", "--set", "teacher.model.kwargs.num_classes=3"],
            "teacher.model: kwargs.num_classes is the number of labels",
        ),
        (
            ["run", "train-teacher", "--set", "teacher.channels=2"],
            "teacher.channels: must be 3 for RGB or 1 for greyscale",
        ),
        (
            ["run", "pretrain-clip", "--set", "clip.text={name: bert, kwargs: {depth: 0}}"],
            "clip.text.kwargs.depth: must be 1 to 1,000, not 0 (bert)",
        ),
        (["run", "distill-student", "--set", "student.image_size=60"], "use a multiple of 16"),
        (
            ["run", "lifecycle", "--preset", "emoji", "--set", "student.model={name: lenet5, kwargs: {}}"],
            "student.model 'lenet5' has no distillation token; set student.distillation.method=soft or hard",
        ),
        (
            ["run", "train-teacher", "--set", "teacher={runner: {workers: 4000}, training: {global_batch: 4000}}"],
            "teacher.runner: workers=4000",
        ),
        (
            ["run", "train-teacher", "--set", "teacher.runner.workers=4000"],
            "teacher: 4000 workers share global_batch=64: one row each at least",
        ),
        (
            [
                "run",
                "train-teacher",
                "--set",
                "teacher={runner: {workers: 60}, training: {sync_batch_norm: true, accumulation: 5}}",
            ],
            "teacher: training.sync_batch_norm: a worker has 4 rows of global_batch=256 for accumulation=5",
        ),
        (["run", "--presett", "x"], "No such option: --presett"),
        (["evaluate", "models:/x@champion", "--data"], "requires an argument; see tutelage evaluate --help"),
        (["run", "lifecycle", "data.seed=1"], "(data.seed=1); write --set data.seed=...; see tutelage run --help"),
        (["rum"], "Did you mean 'run'?"),
        (["run"], "Missing argument 'FLOW'"),
        (["artifacts", "show", "shard-dataset/0a"], "unknown artifact"),
        (["zero-shot", "models:/x@champion", __file__], "models:/x@champion: cannot"),
        (["zero-shot", "models:/x@champion", "a.png"], "a.png: cannot be read"),
        (["zero-shot", "models:/x@champion", "a.png", "--prompt", "a", "--prompt", "b"], "a.png: cannot be read"),
        (["zero-shot", "models:/x@champion", __file__, "--prompt", "a", "--prompt", "b"], "models:/x@champion: cannot"),
        (["predict", "models:/x@champion", "nowhere.png"], "nowhere.png: "),
        (["deploy"], "PREFECT_API_URL is not set"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 2
    line = one_line(capsys)
    assert says in line
    assert line.startswith("tutelage: ")
    assert not list(tmp_path.rglob("artifacts"))


def test_up_says_why_a_server_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In one line, which ends with the last line of the server's log."""
    weed = tmp_path / "weed"
    weed.write_text("#!/bin/sh\necho starting\necho 'no volume can be written'\nexit 1\n")
    weed.chmod(0o755)
    # weed is looked for next to Python.
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main(["up", "--folder", str(tmp_path / "up"), "--free-ports"]) == 1
    line = one_line(capsys)
    assert line.startswith("tutelage: SeaweedFS: ended early")
    assert line.endswith("weed.log: no volume can be written")


def test_up_gives_ray_only_the_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray itself counts those of the machine, and would start more workers than there are cores for."""
    commands: list[list[str]] = []

    def bring_up(stack: Stack, *servers: Server) -> None:
        commands.extend(list(server.command) for server in servers)
        if any(server.name == "Ray head" for server in servers):
            raise ServerError("started no further")

    monkeypatch.setattr(Stack, "_bring_up", bring_up)
    monkeypatch.setattr(Stack, "_s3", lambda *ignored: None)
    monkeypatch.setattr(Stack, "_database", lambda *ignored: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert main(["up", "--folder", str(tmp_path / "up"), "--free-ports"]) == 1
    (head,) = [command for command in commands if "--head" in command]
    assert "--num-cpus=1" in head


def test_deploy_names_the_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert main(["deploy"]) == 2
    assert "PREFECT_API_URL=http://127.0.0.1:1/api: no Prefect server answers there" in one_line(capsys)


@pytest.mark.parametrize("group", [[], ["artifacts"], ["data"], ["models"]])
def test_the_list_of_commands_fits_80_columns_uncut(
    group: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*group, "--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert len(commands) > 2
    assert [line for line in commands if line.endswith("...") or len(line) > 80] == []


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tutelage {version('tutelage')}\n"


@pytest.mark.parametrize("command", [[], ["run"], ["artifacts"], ["data", "lint"]])
def test_h_is_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-h"]) == 0
    assert "Show this message and exit" in capsys.readouterr().out


def test_every_preset_is_listed_with_its_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.presets import PRESETS

    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["presets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(PRESETS)
    assert main(["presets"]) == 0
    page = capsys.readouterr().out
    for one in listed:
        assert len(one["summary"]) > 20
        assert one["summary"] in page


def test_config_names_the_allowed_values_and_has_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "train-teacher"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (loss,) = [line for line in lines if line.strip().startswith("loss: ")]
    assert loss.endswith("One of: cross_entropy, binary_cross_entropy.")
    (policy,) = [line for line in lines if line.strip().startswith("policy: ")]
    assert policy.endswith("Kinds: shuffled, streams, class-balanced, mixture.")
    assert main(["config", "train-teacher", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["teacher"]["training"]["schedule"] == {"kind": "cosine"}


def test_a_flow_takes_its_part_of_a_config_of_the_lifecycle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli.parameters_file import shell_parameters

    file = tmp_path / "lifecycle.yaml"
    assert main(["config", "lifecycle", "--set", "data.source.size=40"]) == 0
    file.write_text(capsys.readouterr().out)
    parameters, _ = shell_parameters(find_flow("shard-dataset"), None, file, [])
    assert parameters.model_dump()["data"]["source"]["size"] == 40
    file.write_text(f"{file.read_text()}techer: 1\n")
    assert main(["run", "shard-dataset", "--config", str(file)]) == 2
    assert "unknown key 'techer'" in one_line(capsys)


def test_output_to_a_pipe_is_not_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sharding.sources.catalogue import SOURCES

    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["sources"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SOURCES) + 3
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["sources"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_a_store_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_STORE", f"{tmp_path}/file/store")
    assert main(["run", "shard-dataset", "--preset", "emoji-tiny"]) == 2
    assert "cannot be written" in one_line(capsys)


def test_an_unknown_storage_scheme_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_STORE", "gs://bucket/x")
    assert main(["artifacts", "list"]) == 2
    assert "unknown storage scheme 'gs'" in one_line(capsys)


@pytest.mark.parametrize("port", ["taken", "99999", "http"])
def test_a_port_that_is_taken_or_no_port_is_refused_before_any_work(
    port: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = str(listener.getsockname()[1])
        monkeypatch.setenv("TUTELAGE_PREFECT_PORT", taken if port == "taken" else port)
        code = main(["run", "shard-dataset", "--preset", "photos", "--set", f"data.source.folder={pictures}"])
    assert code == 2
    assert "TUTELAGE_PREFECT_PORT" in one_line(capsys)


def test_a_prefect_server_that_does_not_answer_is_refused(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    assert main(["run", "shard-dataset", "--preset", "photos", "--set", f"data.source.folder={pictures}"]) == 2
    assert "no Prefect server answers there" in one_line(capsys)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run", "--help"], ["artifacts", "list"]])
def test_help_and_an_empty_store_are_not_mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert not captured.err


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "prefect", "mlflow", "ray", "boto3", "pyarrow", "numpy", "pydantic"]
    code = (
        "import sys; from flows.cli.app import main; main(['--help']);"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stderr.strip() == "[]"
    assert "lifecycle" not in answer.stderr


def test_the_installed_command_answers(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("tutelage")
    answer = subprocess.run([command, "run", "life"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "lifecycle" in answer.stderr
    assert not answer.stdout


def test_models_are_listed_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "deit_*distilled*"]) == 0
    assert "deit_micro_distilled" in capsys.readouterr().out
    assert main(["models", "nothing*"]) == 2
    assert "nothing*" in one_line(capsys)
