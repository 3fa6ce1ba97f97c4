"""`tutelage`: the command line. Commands import what they need when they run, so that --help is instant."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from flows.catalog import find_flow
from flows.cli.artifacts_app import artifacts_app
from flows.cli.data_app import data_app
from flows.cli.exit_code import exit_code
from flows.cli.models_app import models_app
from flows.cli.shell_arguments import (
    COMPARE_EXAMPLES,
    COMPARED_HELP,
    EVALUATE_EXAMPLES,
    IMAGES_HELP,
    AsJson,
    ConfigFile,
    Flow,
    Images,
    Model,
    Preset,
    Settings,
)
from flows.cli.standard_files import open_standard_files
from flows.prefect_login import move_login_out_of_url
from pipeline.errors import InputError, WorkError, shortened

_SERVER_ERROR_CHARS = 500
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # With a server, MLflow prints two lines for each run to stdout, where --json prints its object.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The first use of a store creates MLflow's database, and MLflow logs that.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class _Commands(typer.core.TyperGroup):
    """The commands; Ctrl-C reaches `main`, which prints "interrupted". Typer would exit with code 130 silently."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


app = typer.Typer(
    name="tutelage",
    cls=_Commands,
    help="Train vision models from images to a registered champion: shard, train, distil, pretrain CLIP, register.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(artifacts_app, name="artifacts")
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tutelage {version('tutelage')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    flow: Flow,
    preset: Preset = None,
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> int:
    """Run a flow. Stages with a committed artifact are not run again."""
    from flows.cli.parameters_file import shell_parameters

    entry = find_flow(flow)
    parameters, origin = shell_parameters(entry, preset, config, settings or [])
    from flows.cli.shell_run import run_in_shell

    return run_in_shell(entry, parameters, origin, as_json=as_json)


@app.command()
def plan(
    flow: Flow,
    preset: Preset = None,
    config: ConfigFile = None,
    settings: Settings = None,
    steps: Annotated[
        int, typer.Option(min=10, max=10_000, help="Number of steps of the short trainings that are measured.")
    ] = 20,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of this machine for an hour, to print the price of the run.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Print what a run would cost: time, memory, disk. Short trainings on this machine measure it."""
    from flows.cli.parameters_file import shell_parameters

    entry = find_flow(flow)
    parameters, origin = shell_parameters(entry, preset, config, settings or [])
    from flows.cli.plan_command import plan

    return plan(entry, parameters, origin, steps=steps, price_per_hour=price_per_hour, as_json=as_json)


@app.command()
def config(flow: Flow, preset: Preset = None, settings: Settings = None, as_json: AsJson = False) -> int:
    """Print the parameters of a flow as YAML, for `run --config`."""
    from flows.cli.parameters_file import dump, shell_parameters

    parameters, _ = shell_parameters(find_flow(flow), preset, None, settings or [])
    sys.stdout.write(f"{parameters.model_dump_json(indent=1)}\n" if as_json else dump(parameters))
    return 0


@app.command()
def presets(as_json: AsJson = False) -> int:
    """List the presets, with the data and models of each."""
    from flows.cli.preset_command import list_presets

    return list_presets(as_json=as_json)


@app.command()
def sources(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Print the fields of this source.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the data sources. For each: data.source.kind, what it needs, and an example."""
    from flows.cli.source_commands import list_sources

    return list_sources(kind, as_json=as_json)


@app.command()
def predict(
    model_uri: Model,
    images: Images,
    as_json: AsJson = False,
) -> int:
    """Classify images with a model."""
    from flows.cli.predict_command import predict

    return predict(model_uri, images, as_json=as_json)


@app.command("zero-shot")
def zero_shot(
    model_uri: Model,
    images: Images,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A text to rank; repeat the option.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Rank text prompts for images with a dual encoder. A classifier ranks none: see predict."""
    from flows.cli.predict_command import zero_shot

    return zero_shot(model_uri, images, prompts=prompts or [], as_json=as_json)


@app.command()
def explain(
    model_uri: Model,
    images: Annotated[list[Path] | None, typer.Argument(metavar="[IMAGE...]", help=IMAGES_HELP)] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="grad-cam, occlusion, deconvnet, rollout or patch-text; with --data: top-activations. "
            "auto: the first that fits the model.",
        ),
    ] = "auto",
    data: Annotated[
        str | None,
        typer.Option(metavar="STAGE/KEY", help="Shards instead of images: the images that activate each channel most."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --data: train, val or test. Default: all.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --data: the largest number of images to read.")] = 2000,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for the PNG files.")] = Path(),
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="For patch-text: a text; repeat the option.")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class instead of the predicted one.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="For deconvnet and --data: a layer by its number. Default: the last.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="For deconvnet and --data: the number of channels to show.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Explain predictions as PNG files. Write one for each image, or one for a data set."""
    from flows.cli.explain_command import explain, explain_over_data

    if data is not None:
        if images or prompts or class_name is not None or method not in ("auto", "top-activations"):
            raise InputError(
                "explain --data: draws top-activations, and takes no images, --prompt, --class or other --method"
            )
        return explain_over_data(
            model_uri, data, split=split, limit=limit, out=out, layer=layer, channels=channels, as_json=as_json
        )
    if not images:
        raise InputError("explain: give image files, or --data STAGE/KEY to read shards")
    if method == "top-activations" or split is not None:
        raise InputError("explain: top-activations and --split need shards; name them by --data STAGE/KEY")
    return explain(
        model_uri,
        images,
        method=method,
        out=out,
        prompts=prompts or [],
        class_name=class_name,
        layer=layer,
        channels=channels,
        as_json=as_json,
    )


@app.command(epilog=EVALUATE_EXAMPLES)
def evaluate(
    model_uri: Model,
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Shards STAGE/KEY, a folder of one folder per class, or a table with the columns path and label.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all. Default: test of shards, all images of a folder or a table."),
    ] = None,
    leave_out_unknown: Annotated[
        bool, typer.Option("--leave-out-unknown", help="Leave out images whose label the model does not have.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Measure a model on shards or images. List its worst classes and mistakes."""
    from flows.cli.evaluate_command import evaluate

    return evaluate(model_uri, data, split=split, leave_out_unknown=leave_out_unknown, as_json=as_json)


@app.command(epilog=COMPARE_EXAMPLES)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=COMPARED_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    out: Annotated[
        Path | None, typer.Option(metavar="PAGE.html", help="Also write a page with the images on which they differ.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare two models or runs on the same images. Test the difference with a paired test."""
    from flows.cli.compare_command import compare

    return compare(a, b, out=out, as_json=as_json)


@app.command()
def replay(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT", help="STAGE/KEY of a training, also of one that failed or was stopped on this machine."
        ),
    ],
    step: Annotated[int, typer.Argument(min=0, metavar="STEP", help="The step; the first is 0.")],
    as_json: AsJson = False,
) -> int:
    """Run one step of a training again, exactly. Print its loss, gradients and samples."""
    from flows.cli.replay_command import replay_step

    return replay_step(artifact, step, as_json=as_json)


@app.command()
def doctor(as_json: AsJson = False) -> int:
    """Check this machine and say how to fix each problem."""
    from flows.cli.doctor_command import show

    return show(as_json=as_json)


@app.command()
def up(
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The folder for data, logs and keys of the servers.")
    ] = Path(".tutelage/up"),
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Listen on free ports instead of the usual ones.")
    ] = False,
) -> int:
    """Start all servers on this machine. S3, PostgreSQL, Prefect, MLflow and Ray run until Ctrl-C."""
    from flows.deployments import WORK_POOL
    from infra.local.servers import PortTakenError, ServerError
    from infra.local.up import Ports
    from infra.local.up import up as run_servers
    from pipeline.machine import whole_cores

    try:
        run_servers(folder, pool=WORK_POOL, ports=Ports.free() if free_ports else None, cpus=whole_cores())
    except PortTakenError as error:
        raise InputError(str(error)) from None
    except ServerError as error:
        # The lines after the first are the end of the server's log, of which the last one is the reason.
        head, *log = str(error).splitlines()
        raise WorkError(shortened(" ".join([head, *log[-1:]]), _SERVER_ERROR_CHARS)) from None
    return 0


@app.command()
def deploy() -> int:
    """Create the six deployments on the server at PREFECT_API_URL."""
    server = os.environ.get("PREFECT_API_URL")
    if not server:
        raise InputError("deploy: PREFECT_API_URL is not set; point it at your Prefect server")
    from pipeline.service_url import without_credentials

    # At once: Prefect's imports and the six deployments take half a minute.
    print(f"creating six deployments on {without_credentials(server)}, in about half a minute ...", flush=True)
    from flows.deployments import apply
    from flows.prefect_server import check_server

    check_server()
    return apply()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code. Every error is one line on stderr.

    Args:
        arguments: None: those of the process; a process that ran a flow then exits here.
    """
    if arguments is None:
        open_standard_files()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    move_login_out_of_url()
    code = exit_code(app, list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
    if arguments is None and "flows.cli.shell_run" in sys.modules:
        # All our resources are closed by now. After an interrupted training, threads in Ray's core delay the
        # interpreter's exit by a minute.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
