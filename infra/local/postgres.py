"""PostgreSQL on loopback, if it is installed; its data folder is created once, with a password.

PostgreSQL refuses to run as root, so for root it runs as the user `postgres`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from infra.local.server import LOOPBACK, Server, ServerError

_USER = "tutelage"
_PROGRAMS = ("postgres", "initdb", "createdb", "psql", "pg_isready")


def is_installed() -> bool:
    """Whether PostgreSQL's programs are on the PATH."""
    return all(shutil.which(program) for program in _PROGRAMS)


def has_data(folder: Path) -> bool:
    """Whether a server was created in this folder."""
    return (folder / "data" / "PG_VERSION").is_file()


def postgres_server(folder: Path, port: int) -> Server:
    """A PostgreSQL server for a folder, which the first call creates.

    Raises:
        ServerError: the folder cannot be created, e.g. because the user `postgres` cannot access it.
    """
    folder = folder.absolute()
    data = folder / "data"
    if not has_data(folder):
        _create(folder, data)
    settings = [f"listen_addresses={LOOPBACK}", "unix_socket_directories="]
    return Server(
        name="PostgreSQL",
        command=[
            *_user_prefix(),
            "postgres",
            f"-D{data}",
            f"-p{port}",
            *(word for setting in settings for word in ("-c", setting)),
        ],
        url=f"postgresql://{_USER}@{LOOPBACK}:{port}",
        probes=[f"{LOOPBACK}:{port}"],
        log=folder / "postgres.log",
        ports=[port],
        # PostgreSQL complains if its user cannot enter the working directory.
        folder=Path("/"),
        # After a power loss it accepts connections but refuses logins until it has recovered, which can take minutes.
        is_ready=partial(_accepts_logins, port),
        start_timeout_s=300,
    )


def database(folder: Path, port: int, name: str, driver: str) -> str:
    """The SQLAlchemy URL, including the password, of a database on a running server; creates it if it does not exist.

    Args:
        driver: dialect and driver of the URL, e.g. "postgresql+psycopg2".

    Raises:
        ServerError: the database cannot be created.
    """
    password = (folder.absolute() / "password").read_text().strip()
    login = ["-h", LOOPBACK, "-p", str(port), "-U", _USER]
    env = {**os.environ, "PGPASSWORD": password}
    exists = _run(
        ["psql", *login, "-d", "postgres", "-Atc", f"SELECT 1 FROM pg_database WHERE datname = '{name}'"], env
    )
    if exists.strip() != "1":
        _run(["createdb", *login, name], env)
    return f"{driver}://{_USER}:{password}@{LOOPBACK}:{port}/{name}"


def _accepts_logins(port: int) -> bool:
    command = ["pg_isready", "--quiet", "-h", LOOPBACK, "-p", str(port)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _create(folder: Path, data: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(data, ignore_errors=True)
    partial = folder / "making"
    shutil.rmtree(partial, ignore_errors=True)
    password = secrets.token_urlsafe(24)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(password)
        file.flush()
        partial.mkdir(mode=0o700)
        if _user_prefix():  # this process runs as root
            shutil.chown(partial, "postgres")
            shutil.chown(file.name, "postgres")
        _run(
            [
                *_user_prefix(),
                "initdb",
                f"-D{partial}",
                f"-U{_USER}",
                "-Ascram-sha-256",
                f"--pwfile={file.name}",
                "-EUTF8",
            ],
            dict(os.environ),
        )
    descriptor = os.open(folder / "password", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as password_file:
        password_file.write(password)
    # Renamed last, so that the data folder is complete if it exists.
    partial.rename(data)


def _user_prefix() -> list[str]:
    """The command prefix that runs a program as the user `postgres`; empty unless this process runs as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


def _run(command: Sequence[str], env: dict[str, str]) -> str:
    try:
        answer = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"PostgreSQL: {command[0]} does not run: {error}") from None
    if answer.returncode != 0:
        program = next(word for word in command if word in _PROGRAMS)
        lines = answer.stderr.strip().splitlines() or [f"exit {answer.returncode}"]
        raise ServerError(f"PostgreSQL: {program} failed: {lines[-1]}")
    return answer.stdout
