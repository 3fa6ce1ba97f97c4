"""The argument of `tutelage data ...`: an artifact of the store, or tars."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from flows.preflight import open_store
from pipeline.artifacts import Artifact
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.sharding.inspection.lint.target import Target, tars_target
from pipeline.sharding.sources.image_listing import images_in
from pipeline.sharding.sources.skipped_files import SkipCounter
from pipeline.sharding.sources.tar_members import TAR_SUFFIXES

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


def named_tars(what: Sequence[str]) -> Target:
    """The tars that arguments name.

    Raises:
        InputError: one names no tar; if it is a folder of images, the message has the command that shards it.
    """
    try:
        return tars_target(what)
    except InputError:
        for name in what:
            if os.path.isdir(name):
                _refuse_images(name)
        raise


def _refuse_images(folder: str) -> None:
    """Raises InputError if a folder holds images and no tars."""
    skipped = SkipCounter()
    images = images_in(folder, skipped).names
    if not images or any(kind in TAR_SUFFIXES for kind in skipped.result().kinds):
        return
    command = f"tutelage run shard-dataset --preset photos --set data.source.folder={shlex.quote(folder)}"
    sort = "" if any("/" in name for name in images) else "put the images of each class into a sub-folder, then "
    raise InputError(
        f"{folder}: a folder of {counted(len(images), 'image')} without tars; {sort}shard it by `{command}`, and give "
        "the artifact STAGE/KEY"
    )
