"""The commands of docs/serving.md, on a classifier of three colours: a bare process, requests by curl, a rollback."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mlflow.models.cli import serve
from mlflow.pyfunc.scoring_server import init

from infra.local.server import free_port
from pipeline.registration.lookup import load_predictor
from tests.page_commands import blocks, run_blocks

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
MODEL = "models:/image-classifier@champion"
(COMMAND,) = re.findall(r"^mlflow models serve .+ &$", PAGE.read_text(), flags=re.MULTILINE)


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_the_commands_of_the_page_print_what_it_shows(colours: Any, tmp_path: Path) -> None:
    colours.register(colours.classifier("green"), classifier_name="image-classifier")
    colours.register(colours.classifier(), classifier_name="image-classifier")
    (tmp_path / ".tutelage").symlink_to(Path(colours.store.storage.local_path("")))
    for label in ("red", "blue"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "0.png").write_bytes(colours.picture(label, 7))
    env = {
        "HOME": os.environ.get("HOME", "/"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with served(load_predictor(colours.store, MODEL).model) as port:
        replaced = {COMMAND: "true", "kill %1": "true", ":5001": f":{port}"}
        run_blocks(blocks(PAGE), tmp_path, env=env, within_s=400, replaced=replaced)


def test_the_command_that_serves_has_the_options_of_the_page() -> None:
    options = {option for parameter in serve.params for option in parameter.opts}
    assert set(re.findall(r"(?<= )--?[a-z-]+", COMMAND)) <= options
    assert {"--workers", "--host"} <= options


@contextmanager
def served(model: Any) -> Iterator[int]:
    """The port on which the application of `mlflow models serve` answers, in a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(init(model), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=30)
