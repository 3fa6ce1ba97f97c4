"""MLflow's SQLite database, created under a temporary name and renamed, so that it is always complete.

MLflow creates its tables in dozens of steps. A process that is killed between two of them leaves a database that
no later process can use.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pipeline.atomic_files import atomic_write
from pipeline.owners import is_left_over

_log = logging.getLogger("tutelage.training")
_CORRUPT_CODES = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
# Files that SQLite creates next to a database during writes.
_COMPANION_SUFFIXES = ("-journal", "-wal", "-shm")


def sqlite_file(uri: str) -> Path | None:
    """The file of a database URI, or None if it names no SQLite file."""
    scheme, separator, rest = uri.partition(":///")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    path = rest.partition("?")[0]
    return Path(path).absolute() if path and path != ":memory:" else None


def is_nonempty_file(database: Path) -> bool:
    """Whether the file exists and is not empty. (Opening a missing file with SQLite leaves an empty one.)"""
    return database.exists() and database.stat().st_size > 0


def create_database(database: Path) -> None:
    """Creates a database with all its tables; call it under a lock.

    Raises:
        OSError: its folder is not writable, or its disk is full.
    """
    for leftover in database.parent.glob(f".{database.name}.*"):
        if is_left_over(leftover.name, leftover.stat().st_mtime):
            leftover.unlink(missing_ok=True)
    with atomic_write(database) as temporary:
        try:
            # MLflow retries for an hour if SQLite cannot open its file.
            sqlite3.connect(temporary).execute("PRAGMA user_version").connection.close()
        except sqlite3.Error as error:
            raise OSError(f"{database}: {error}") from None
        try:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            store = SqlAlchemyStore(f"sqlite:///{temporary}", (database.parent / "artifacts").as_uri())
            store.engine.dispose()
        finally:
            for suffix in _COMPANION_SUFFIXES:
                temporary.with_name(f"{temporary.name}{suffix}").unlink(missing_ok=True)


def rename_if_incomplete(database: Path) -> None:
    """Renames an unused database if a killed process left it without all its tables.

    Raises:
        OSError, SQLAlchemyError: it cannot be read, e.g. because another process has locked it.
    """
    if not is_nonempty_file(database) or _has_experiments(database) or _has_all_tables(database):
        return
    renamed = database.with_name(f"{database.name}.broken-{int(time.time())}")
    for suffix in ("", *_COMPANION_SUFFIXES):
        file = database.with_name(f"{database.name}{suffix}")
        if file.exists():
            os.rename(file, renamed.with_name(f"{renamed.name}{suffix}"))
    _log.warning(
        "%s: was left incomplete by a killed process; a new one is created, the old one is renamed to %s",
        database,
        renamed,
    )


def _has_experiments(database: Path) -> bool:
    """Whether a database has an experiment; one of another MLflow version may lack tables and still contain runs."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except sqlite3.Error as error:
        if _sqlite_code(error) in (sqlite3.SQLITE_ERROR, *_CORRUPT_CODES):  # SQLITE_ERROR: no such table
            return False
        raise OSError(f"{database}: {error}") from None


def _sqlite_code(error: BaseException | None) -> int:
    """The SQLite code of an SQLite error."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _has_all_tables(database: Path) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _all_tables_exist, _verify_schema, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(f"sqlite:///{database}")
    try:
        if not _all_tables_exist(engine):
            return False
        _verify_schema(engine)
    except (MlflowException, OSError, ValueError):
        return False
    except Exception as error:
        # SQLAlchemy's errors wrap SQLite's: "file is not a database", "database disk image is malformed".
        if _sqlite_code(getattr(error, "orig", None)) not in _CORRUPT_CODES:
            raise
        return False
    finally:
        engine.dispose()
    return True
