"""A Prefect server of the tests, and pictures to shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.servers import Server, free_port, prefect_server


@pytest.fixture(scope="session")
def prefect(prefect_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Prefect server, one for the session."""
    from flows.shell_run import flush_prefect

    home = prefect_home(tmp_path_factory.mktemp("prefect") / "home")
    with prefect_server(home, free_port()) as server:
        yield server
        flush_prefect()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes of tiny pictures."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for label, colour in {"red": (200, 0, 0), "blue": (0, 0, 200)}.items():
        (folder / label).mkdir()
        for number in range(24):
            picture = Image.new("RGB", (16, 16), (colour[0] + number, number, colour[2] + number))
            picture.save(folder / label / f"{number}.png")
    return folder
