"""The targets of the lint: tars by a pattern, or the shards of an artifact with its index and its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError, InputError, UnknownNameError, first_line
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import ShardLocations, is_own
from pipeline.sharding.format.tars_file import TARS_FILE, tars_outside_store
from pipeline.sharding.inspection.lint.findings import Finding, Findings, code
from pipeline.sharding.sources.tar_members import TAR_SUFFIXES

MISSING = code("shard-missing", "error", "A shard in the index or the manifest is missing.")
CHANGED = code(
    "tar-changed",
    "error",
    "A tar that was indexed in place has changed in size or time since: reads are refused.",
)
DAMAGED = code("file-damaged", "error", "A file of the artifact is missing, or its bytes differ from the manifest.")
INDEX = code("index-damaged", "error", "The index cannot be opened: nothing can be read by number.")


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar to check.

    Attributes:
        name: its name in findings.
        number: its number in the index; -1 without an index.
    """

    name: str
    file: FoundFile
    number: int = -1


@dataclass(frozen=True)
class Target:
    """Tars that are checked together.

    Attributes:
        name: STAGE/KEY of an artifact; "" for other tars.
        index: the index of an artifact, if it can be opened.
        written_with_index: the shards were written together with the index; False if any was indexed in place.
    """

    name: str
    shards: Sequence[Shard]
    artifact: Artifact | None = None
    index: SampleIndex | None = None

    @property
    def written_with_index(self) -> bool:
        return self.artifact is not None and TARS_FILE not in self.artifact.files


def tars_target(patterns: Sequence[str]) -> Target:
    """Tars by folders, names or patterns, local or in S3, without duplicates.

    Raises:
        InputError: a pattern matches no tar.
    """
    tars = list({file.url: file for pattern in patterns for file in addresses.find(pattern, TAR_SUFFIXES)}.values())
    root = addresses.common_folder(tars)
    return Target("", [Shard(file.url.removeprefix(root).lstrip("/"), file) for file in tars])


def artifact_target(artifact: Artifact, findings: Findings) -> Target:
    """The existing shards of an artifact; missing files become findings.

    Raises:
        InputError: it is not a shards artifact.
    """
    if "index.arrow" not in artifact.files:
        raise InputError(f"{artifact.name}: holds no shards; give an artifact of shard-dataset, or tars")
    index = _index(artifact, findings)
    return Target(artifact.name, _shards(artifact, index, findings), artifact, index)


def _index(artifact: Artifact, findings: Findings) -> SampleIndex | None:
    """The index; None, with a finding, if it is damaged. It is verified first: mapping a damaged file could crash."""
    try:
        return SampleIndex.open(artifact)
    except (DamagedError, OSError, ValueError, KeyError, AttributeError) as error:
        findings.add(Finding(INDEX, "index.arrow", first_line(error)))
        return None


def check_files(artifact: Artifact, findings: Findings, *, deep: bool) -> None:
    """Compares the artifact's files with its manifest: their hashes if `deep`, otherwise only their sizes."""
    if deep:
        for line in artifact.verify():
            name, _, message = line.removeprefix(f"{artifact.name}/").partition(": ")
            findings.add(Finding(MISSING if message == "missing" and name.endswith(".tar") else DAMAGED, name, message))
        return
    for name, entry in artifact.files.items():
        info = artifact.storage.stat(artifact.object_path(name))
        if info is None:
            findings.add(Finding(MISSING if name.endswith(".tar") else DAMAGED, name, "missing"))
        elif info.size != entry.size:
            findings.add(Finding(DAMAGED, name, f"{info.size} bytes, the manifest says {entry.size}"))


def _shards(artifact: Artifact, index: SampleIndex | None, findings: Findings) -> list[Shard]:
    """The artifact's own tars, those of other artifacts in the store, and tars outside it; a mixture may have all."""
    outside_store = {tar.url: tar for tar in tars_outside_store(artifact)}
    listed = [*(name for name in artifact.files if name.endswith(".tar")), *outside_store]
    names = list(index.shard_names) if index is not None else listed
    locations = ShardLocations(artifact, names)
    shards = []
    for number, name in enumerate(names):
        if name in outside_store:
            file = _file_outside_store(outside_store[name], findings)
        else:
            file = _stored_file(artifact, locations, number, name, findings)
        if file is not None:
            shards.append(Shard(name, file, number if index is not None else -1))
    return shards


def _stored_file(
    artifact: Artifact, locations: ShardLocations, number: int, name: str, findings: Findings
) -> FoundFile | None:
    if is_own(name) and name not in artifact.files:
        findings.add(Finding(MISSING, name, "the index names it, the manifest does not"))
        return None
    try:
        info = artifact.storage.stat(locations.object(number)[1])
    except (DamagedError, UnknownNameError) as error:
        findings.add(Finding(MISSING, name, str(error)))
        return None
    if info is None:
        if not is_own(name):  # `check_files` reports a missing file of the artifact itself.
            findings.add(Finding(MISSING, name, "missing"))
        return None
    url = artifact.storage.local_path(info.path)
    return FoundFile(str(url) if url is not None else f"{artifact.storage.url}/{info.path}", info.size, "")


def _file_outside_store(tar: FoundFile, findings: Findings) -> FoundFile | None:
    try:
        now = addresses.stat(tar.url)
    except InputError as error:
        findings.add(Finding(MISSING, tar.url, str(error).removeprefix(f"{tar.url}: ")))
        return None
    if (now.size, now.mtime_or_etag) != (tar.size, tar.mtime_or_etag):
        message = f"{now.size} bytes, {tar.size} when it was indexed"
        if now.size == tar.size:
            message = "rewritten since it was indexed, with the same size"
        findings.add(Finding(CHANGED, tar.url, message))
    return now
