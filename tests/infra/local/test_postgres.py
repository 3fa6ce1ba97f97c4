"""PostgreSQL as `tutelage up` runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import postgres
from infra.local.server import free_port

FILL = "CREATE TABLE filled AS SELECT i, md5(i::text) FROM generate_series(1, 1000000) i"


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path, which PostgreSQL's own user cannot enter when pytest runs as root.
    created = Path(tempfile.mkdtemp(prefix="tutelage-postgres-"))
    created.chmod(0o755)
    yield created
    shutil.rmtree(created)


@pytest.mark.skipif(not postgres.is_installed(), reason="no PostgreSQL here")
def test_after_a_kill_it_is_waited_for_until_it_has_recovered(folder: Path) -> None:
    """It then listens at once, but refuses logins while it replays its log."""
    with postgres.postgres_server(folder, free_port()) as server:
        port = server.ports[0]
        url = postgres.database(folder, port, "mlflow", "postgresql")
        subprocess.run(["psql", url, "-qc", FILL], check=True, cwd="/")
        for line in (folder / "data" / "postmaster.pid").read_text().splitlines()[:1]:
            os.killpg(int(line), signal.SIGKILL)
    with postgres.postgres_server(folder, free_port()) as server:
        url = postgres.database(folder, server.ports[0], "mlflow", "postgresql")
        counted = subprocess.run(
            ["psql", url, "-Atc", "SELECT count(*) FROM filled"], check=True, cwd="/", capture_output=True, text=True
        )
    assert counted.stdout.strip() == "1000000"
    assert "not properly shut down" in (folder / "postgres.log").read_text()
