"""The argument of `tutelage data ...`: an artifact of the store, or tars."""

from __future__ import annotations

import os
import re

from flows.preflight import open_store
from pipeline.artifacts import Artifact
from pipeline.errors import InputError

_REFERENCE = re.compile(r"[a-z][a-z0-9-]*/[0-9a-f]+")


def named_artifact(what: str) -> Artifact | None:
    """The artifact with this STAGE/KEY; None if the argument names tars.

    Raises:
        InputError: it has the form STAGE/KEY, and no artifact or several match.
    """
    store = open_store()
    # The folder of an artifact names the artifact; a path below it names tars.
    reference = what.removeprefix(f"{store.storage.url}/artifacts/").rstrip("/")
    if not _REFERENCE.fullmatch(reference) or (reference == what and os.path.exists(what)):
        return None
    artifact = store.resolve(reference)
    if "index.arrow" not in artifact.files:
        raise InputError(
            f"{what}: is an artifact of {artifact.stage} without shards; give one of shard-dataset, or tars"
        )
    return artifact
