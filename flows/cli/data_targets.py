"""What the argument of `tutelage data ...` names: an artifact of the store, or tars."""

from __future__ import annotations

import os
import re

from flows.preflight import open_store
from pipeline.artifacts import Artifact
from pipeline.errors import InputError

_REFERENCE = re.compile(r"[a-z][a-z0-9-]*/[0-9a-f]+")


def named_artifact(what: str) -> Artifact | None:
    """The artifact that STAGE/KEY names, or None for what names tars.

    Raises:
        InputError: it looks like STAGE/KEY, and there is none or there are several.
    """
    store = open_store()
    # An artifact's folder is the artifact; what lies below it is tars.
    inside = what.removeprefix(f"{store.storage.url}/artifacts/").rstrip("/")
    if not _REFERENCE.fullmatch(inside) or (inside == what and os.path.exists(what)):
        return None
    artifact = store.resolve(inside)
    if "index.arrow" not in artifact.files:
        raise InputError(f"{what}: is made by {artifact.stage} and holds no shards; give one of shard-dataset, or tars")
    return artifact
