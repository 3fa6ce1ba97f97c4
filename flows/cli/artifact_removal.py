"""`tutelage artifacts rm`: removes artifacts that no other artifact needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.filesize import decimal

from flows.cli.artifact_commands import readable
from flows.preflight import open_store
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError, listed
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import owner_of


def remove_artifacts(references: Sequence[str], *, force: bool) -> int:
    """Removes artifacts, all or none of them, and prints what was removed.

    Args:
        force: also remove artifacts from which others were built; never those that store shards of others.
    Raises:
        InputError: there is no such artifact, or another one needs it.
    """
    store = open_store()
    uris = list(dict.fromkeys(store.uri(reference) for reference in references))
    others, _ = readable(store, (uri for uri in store.uris() if uri not in uris))
    _check_unneeded(store, uris, others, force=force)
    for uri in uris:
        print(f"{uri}: removed, {decimal(store.remove(uri))}")
    return 0


def _check_unneeded(store: ArtifactStore, uris: Collection[str], others: Sequence[Artifact], *, force: bool) -> None:
    for other in others:
        read_from = sorted(_shard_owners(other).intersection(uris))
        if read_from:
            raise InputError(
                f"{read_from[0]}: stores shards of {other.uri}; remove that too, or run `tutelage data compact` on it"
            )
    built = {uri: [other.uri for other in others if uri in other.manifest["inputs"].values()] for uri in uris}
    for uri, results in built.items():
        if results and not force:
            raise InputError(
                f"{uri}: {listed(results)} {'was' if len(results) == 1 else 'were'} built from it; "
                f"remove {'that' if len(results) == 1 else 'those'} too, or add --force"
            )


def _shard_owners(artifact: Artifact) -> set[str]:
    """STAGE/KEY of the other artifacts that store shards of this one."""
    if "index.arrow" not in artifact.files:
        return set()
    return {owner for name in SampleIndex.open(artifact).shard_names if (owner := owner_of(name)) is not None}
