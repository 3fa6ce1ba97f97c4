"""Checks of the archive: whether it is a complete tar, and whether its headers are valid for an image data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline.errors import InputError
from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.inspection.lint.findings import Code, Finding, Findings, code
from pipeline.sharding.sources.tar_members import FaultKind, Member, Read, TarFault, TarWalk, check_tar

NOT_A_TAR = code("not-a-tar", "error", "The file is empty, compressed, or not a tar: no reader gets a sample from it.")
UNREADABLE = code("tar-unreadable", "error", "The tar is missing, or this user cannot read it to its end.")
CUT = code("tar-truncated", "error", "The archive ends before a member does: readers raise, or drop the last samples.")
HEADER = code("tar-header", "error", "A header's checksum, size, name or pax records are damaged: readers stop here.")
AFTER_END = code(
    "tar-after-end", "error", "Data follow the end mark, as in tars joined by `cat`: readers never reach them."
)
NO_END = code(
    "tar-no-end",
    "warning",
    "The two empty blocks at the end are missing or incomplete: the writer may have been killed between two members.",
)
NAME = code(
    "member-name", "error", "A name is absolute, leaves the folder by `..`, is empty or has control characters."
)
LINK = code("member-link", "error", "A hard or symbolic link, which WebDataset skips and unpacking follows.")
SPECIAL = code("member-special", "error", "A device, pipe, sparse file or anything else that is not a regular file.")
LARGE = code("member-large", "warning", "More bytes than the limit for an image (256 MiB) or a text (1 MiB).")
_CODES: dict[FaultKind, Code] = {
    "header": HEADER, "cut": CUT, "name": NAME, "link": LINK, "special": SPECIAL, "large": LARGE,
    "after": AFTER_END, "end": NO_END, "mark": NO_END,
}  # fmt: skip

MAX_MEMBER_BYTES = 256 << 20  # a larger member is a finding


class Archive:
    """A tar that is read from front to back; its faults become findings.

    Args:
        name: name of the shard in findings.
        size: size in bytes.
        read: read(start, length) returns a byte range of the tar.

    Attributes:
        digest: digest of the headers read so far: equal for tars whose members have equal names and sizes; "" for a
            file that is not a tar.
    """

    def __init__(self, name: str, size: int, read: Read, findings: Findings) -> None:
        self._name = name
        self._size = size
        self._read = read
        self._findings = findings
        self._digest = hashlib.sha256()
        self._is_tar = True

    @property
    def digest(self) -> str:
        return self._digest.hexdigest() if self._is_tar else ""

    def members(self) -> Iterator[Member]:
        """The files, in order, including those with invalid names; links and special members are omitted."""
        try:
            check_tar(self._name, self._size, self._read(0, min(self._size, BLOCK)))
        except InputError as error:
            self._report(NOT_A_TAR, str(error).removeprefix(f"{self._name}: "), byte=0)
            self._is_tar = False
            return
        walk = TarWalk(self._size, self._read, max_bytes=MAX_MEMBER_BYTES, on_fault=self._fault)
        for member in walk.members():
            self._digest.update(f"{member.name}\0{member.length}\n".encode("utf-8", "surrogateescape"))
            yield member
        end = walk.end_fault()
        if end is not None:
            self._report(_CODES[end.kind], end.what, byte=end.byte)

    def _fault(self, fault: TarFault) -> None:
        if fault.kind == "cut":
            message, byte = f"{fault.what}, in a member whose header is at byte {fault.byte}", self._size
        else:
            message, byte = fault.what, fault.byte
        if fault.kind == "large":
            message = message.replace("max_member_mb allows", f"an image has ({MAX_MEMBER_BYTES >> 20} MiB)")
        self._report(_CODES[fault.kind], message, member=fault.member, byte=byte)

    def _report(self, code: Code, message: str, *, member: str = "", byte: int) -> None:
        self._findings.add(Finding(code, self._name, message, member=member, byte=byte))
