"""`tutelage artifacts rm`: removes artifacts that no other artifact needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from rich.filesize import decimal

from flows.cli.artifact_commands import commit_time, open_artifacts
from flows.preflight import open_store
from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError, InputError, WorkError, listed
from pipeline.sharding.deltas.delta_base import STAGES
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import owner_of


def remove_artifacts(references: Sequence[str], *, force: bool) -> int:
    """Removes artifacts and prints what was removed; all are checked before any is removed.

    Args:
        force: also remove artifacts from which others were built; never those that store shards of others.
    Raises:
        InputError: there is no such artifact, or another one needs it.
        WorkError: an artifact that stays cannot be read, so it is not known what it needs.
    """
    store = open_store()
    names = list(dict.fromkeys(store.full_name(reference) for reference in references))
    others, unreadable = open_artifacts(store, (name for name in store.names() if name not in names))
    if unreadable:
        raise WorkError(
            f"nothing was removed: it is not known whether this artifact needs them: {unreadable[0]}"
            + (f" ({len(unreadable) - 1:,} more)" if len(unreadable) > 1 else "")
        )
    _check_unneeded(names, others, force=force)
    # The newest first: if this is interrupted, no artifact is left without those that it was built from.
    commits = {artifact.name: commit_time(artifact) for artifact in open_artifacts(store, names)[0]}
    for name in sorted(names, key=lambda name: commits.get(name, math.inf), reverse=True):
        print(f"{name}: removed, {decimal(store.remove(name))}", flush=True)
    return 0


def _check_unneeded(names: Collection[str], others: Sequence[Artifact], *, force: bool) -> None:
    if any(name.partition("/")[0] in STAGES for name in names):
        for other in others:
            stored = sorted(_shard_owners(other).intersection(names))
            if stored:
                raise InputError(
                    f"{stored[0]}: stores shards of {other.name}; remove that too, or run `tutelage data compact` on it"
                )
    built = {name: [other.name for other in others if name in other.manifest["inputs"].values()] for name in names}
    for name, results in built.items():
        if results and not force:
            raise InputError(
                f"{name}: {listed(results)} {'was' if len(results) == 1 else 'were'} built from it; "
                f"remove {'that' if len(results) == 1 else 'those'} too, or add --force"
            )


def _shard_owners(artifact: Artifact) -> set[str]:
    """STAGE/KEY of the other artifacts that store shards of this one; of a damaged index, those of its inputs."""
    if "index.arrow" not in artifact.files:
        return set()
    try:
        names = SampleIndex.open(artifact).shard_names
    except DamagedError:
        return set(artifact.manifest["inputs"].values())
    return {owner for name in names if (owner := owner_of(name)) is not None}
