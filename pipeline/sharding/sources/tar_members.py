"""Reads the names and byte ranges of a tar's members from its headers; nothing is extracted.

Tars are untrusted: damaged headers, names that lead out of the folder, links, devices, sparse files, and sizes beyond
the archive or a limit are rejected, since no image data set needs them. The error names tar, member and byte. The old,
ustar, GNU and pax formats are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import InputError
from pipeline.sharding.format import tar_layout
from pipeline.sharding.format.tar_layout import BLOCK, END_BYTES, padding
from pipeline.sharding.sources.file_type import compression_of, file_type

# Compressed tars are found and rejected with advice; otherwise a part of the data would be silently skipped.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SEARCH_BYTES = 1 << 20  # read at once in the search for the next header
_MAX_NAME_BYTES = 4096
_MAX_PAX_BYTES = 1 << 20
_REGULAR = (b"0", b"\0", b"7")
_FOLDER = b"5"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "the rest of a file on another volume",
    b"D": "a folder dump",
    b"V": "a volume header",
}

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_OCTAL = re.compile(rb"[0-7]+")

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its data is the byte range [offset, offset + length)."""

    name: str
    offset: int
    length: int


FaultKind = Literal["header", "cut", "name", "link", "special", "large", "after", "end", "mark"]
"""Kinds of faults.

header: a damaged header or extended header. cut: the archive ends inside a member or a header. name: an invalid name,
or one that leads out of the folder. link, special: the member is not a regular file. large: it has more bytes than
allowed. after: data follow the end mark. end: there is no end mark. mark: the end mark is incomplete; no data is lost.
"""
# The faults that `ends=read` tolerates.
_END_FAULTS: tuple[FaultKind, ...] = ("cut", "after", "end")


@dataclass(frozen=True, slots=True)
class TarFault:
    """A fault of a tar.

    Attributes:
        member: name of the faulty member; "" if it is unknown or the fault is not in a member.
        byte: offset of the member's header, or of the fault.
        what: the fault in words.
    """

    kind: FaultKind
    member: str
    byte: int
    what: str


class RefusedTarError(InputError):
    """A tar is damaged, or has a member that no image data set needs."""

    def __init__(self, tar: str, fault: TarFault) -> None:
        where = f"member {fault.member!r} at byte {fault.byte}" if fault.member else f"byte {fault.byte}"
        what_to_do = "write it again, or leave it out"
        if fault.kind in _END_FAULTS:
            what_to_do = "write it again, leave it out, or set ends=read to read every whole sample in it"
        super().__init__(f"{tar}, {where}: {fault.what}; the whole tar is refused: {what_to_do}")


def check_tar(tar: str, size: int, start: bytes) -> None:
    """Rejects a file that is not a tar, by its first block.

    Raises:
        InputError: it is compressed, or not a tar.
    """
    compression = compression_of(start)
    if compression is not None:
        raise InputError(
            f"{tar}: compressed ({compression}), so that no image in it can be read by its offset; decompress it first"
        )
    if size == 0 or len(start) < BLOCK or (any(start) and not _has_valid_checksum(start)):
        what = file_type(start)
        reason = f"it is {what}" if what is not None else f"{size} bytes, and the first are not those of a tar"
        raise InputError(f"{tar}: not a tar ({reason})")


def tar_members(
    tar: str, size: int, read: Read, *, max_bytes: int, on_end: Callable[[TarFault], None] | None = None
) -> Iterator[Member]:
    """The files of a tar, in order.

    Args:
        tar: name of the tar in errors.
        size: size of the archive in bytes.
        read: read(start, length) returns a byte range of the archive.
        max_bytes: a larger member is rejected.
        on_end: receives the faults that `ends=read` tolerates: a cut, no end mark, data after an end mark. Members
            after an end mark are yielded too. None: these faults are errors.
    Raises:
        RefusedTarError: a fault; raised after the preceding members were yielded.
    """
    check_tar(tar, size, read(0, min(size, BLOCK)))

    def handle(fault: TarFault) -> None:
        if on_end is None or fault.kind not in _END_FAULTS:
            raise RefusedTarError(tar, fault)
        on_end(fault)

    walk = TarWalk(size, read, max_bytes=max_bytes, on_fault=handle, past_marks=on_end is not None)
    yield from walk.members()
    fault = walk.end_fault()
    if fault is not None and fault.kind != "mark":
        handle(fault)


class TarWalk:
    """A walk over a tar from header to header.

    Args:
        size: size of the archive in bytes.
        read: read(start, length) returns a byte range of the archive.
        max_bytes: a larger member is a fault.
        on_fault: receives every fault, in the order of the bytes. Unless it raises, the walk goes on with the next
            intact header after a damaged one, and ends at a cut.
        past_marks: go on with the next header after an end mark, which is reported as a fault.

    Attributes:
        end: the offset that the walk has reached: the end of the last member.
    """

    def __init__(
        self,
        size: int,
        read: Read,
        *,
        max_bytes: int,
        on_fault: Callable[[TarFault], None],
        past_marks: bool = False,
    ) -> None:
        self._size = size
        self._read = read
        self._max_bytes = max_bytes
        self._on_fault = on_fault
        self._past_marks = past_marks
        self._long_name: str | None = None
        self._long_size: int | None = None
        self._marked = False
        self._cut = False
        self.end = 0

    def members(self) -> Iterator[Member]:
        """The files, in order; for a tar that passed `check_tar`."""
        while self.end + BLOCK <= self._size:
            header = self._read(self.end, BLOCK)
            if not any(header):
                self._marked = True
                if self._past_marks and (offset := self._header_after(self.end)) is not None:
                    self._fault("after", "", f"the archive goes on at byte {offset}, after its end mark")
                    self._marked, self.end = False, offset
                    continue
                return
            name = self._long_name if self._long_name is not None else _header_name(header)
            kind = header[tar_layout.KIND]
            length = _number(header[tar_layout.SIZE]) if self._long_size is None or kind in b"xgLK" else self._long_size
            if not _has_valid_checksum(header):
                self._fault("header", "", "no tar header: the archive is damaged, or a part of it is missing")
                self._to_next_header()
                continue
            if length is None:
                self._fault("header", name, "its size is no number")
                self._to_next_header()
                continue
            if kind == _FOLDER:  # The size of a folder is a hint in some tars; no data follows.
                length = 0
            data = self.end + BLOCK
            if data + length > self._size:
                left = self._size - data
                self._fault("cut", name, f"{length} bytes are promised and {left} are left: the archive is cut")
                self.end, self._cut = self._size, True
                return
            member = None
            if kind in b"xgLK":
                self._read_extension(kind, name, data, length)
            else:
                self._long_name, self._long_size = None, None
                member = self._file(kind, name, data, length)
            self.end = data + length + padding(length)
            if member is not None:
                yield member

    def end_fault(self) -> TarFault | None:
        """The fault at the end of the archive after the walk; None if it is intact, or if a cut was reported."""
        if not self._marked:
            left = self._size - self.end
            if self._cut:
                return None
            if left > 0:
                # A truncated end mark consists of zeros.
                inside = "a header" if any(self._read(self.end, left)) else "its end mark"
                what = f"the archive ends inside {inside}, of which {left} of {BLOCK} bytes are there"
                return TarFault("cut" if inside == "a header" else "mark", "", self._size, what)
            what = "the archive ends without its end mark, two empty blocks: it may have been cut"
            return TarFault("end", "", self._size, what)
        offset = self.end
        while offset < self._size:
            window = self._read(offset, min(_SEARCH_BYTES, self._size - offset))
            if not window:
                break
            rest = window.lstrip(b"\0")
            if rest:
                byte = offset + len(window) - len(rest)
                what = f"the end mark is at byte {self.end}, and {self._size - byte} bytes follow from here"
                return TarFault("after", "", byte, what)
            offset += len(window)
        if self._size < self.end + END_BYTES:
            what = f"{self._size - self.end} of the {END_BYTES} empty bytes of the end mark are there"
            return TarFault("mark", "", self.end, what)
        return None

    def _header_after(self, offset: int) -> int | None:
        """The offset of the first intact header from the block at `offset` on, or None."""
        while offset + BLOCK <= self._size:
            window = self._read(offset, min(_SEARCH_BYTES, (self._size - offset) // BLOCK * BLOCK))
            if len(window) < BLOCK:
                return None
            for start in range(0, len(window) - BLOCK + 1, BLOCK):
                block = window[start : start + BLOCK]
                if any(block) and _has_valid_checksum(block):
                    return offset + start
            offset += len(window) // BLOCK * BLOCK
        return None

    def _fault(self, kind: FaultKind, member: str, what: str) -> None:
        self._on_fault(TarFault(kind, member, self.end, what))

    def _read_extension(self, kind: bytes, name: str, offset: int, length: int) -> None:
        """Reads the name and size of the next member from an extended header, whose data begin at `offset`."""
        if kind in (b"L", b"K"):
            if length > _MAX_NAME_BYTES:
                self._fault("header", name, f"a name of {length} bytes")
            elif kind == b"L":
                self._long_name = _text(self._read(offset, length).split(b"\0")[0])
            return
        if length > _MAX_PAX_BYTES:
            self._fault("header", name, f"{length} bytes of pax records")
            return
        records = _pax_records(self._read(offset, length))
        if records is None:
            self._fault("header", name, "damaged pax records")
            return
        if any(key.startswith("GNU.sparse") for key in records):
            self._fault("special", name, "a sparse file")
        if kind == b"g":
            if records.keys() & {"path", "size", "linkpath"}:
                self._fault("header", name, "one name or size for all members")
            return
        self._long_name = records.get("path", self._long_name)
        if "size" in records:
            if records["size"].isdecimal() and records["size"].isascii():
                self._long_size = int(records["size"])
            else:
                self._fault("header", name, "its size is no number")

    def _file(self, kind: bytes, name: str, offset: int, length: int) -> Member | None:
        """The member, if it is a file that can be read; faults are reported."""
        if kind in _REFUSED:
            self._fault("link" if kind in b"12" else "special", name, _REFUSED[kind])
            return None
        if kind not in (*_REGULAR, _FOLDER):
            self._fault("special", name, f"of unknown type {kind!r}")
            return None
        fault = _name_fault(name)
        if fault is not None:
            self._fault("name", name, fault)
        if kind == _FOLDER or not name or name.endswith("/"):
            return None
        if length > self._max_bytes:
            self._fault("large", name, f"{length} bytes, more than max_member_mb allows")
        return Member(name.removeprefix("./"), offset, length)

    def _to_next_header(self) -> None:
        """Moves to the next intact header or end mark; otherwise to the end of the archive."""
        self._long_name, self._long_size = None, None
        self.end += BLOCK
        while self.end + BLOCK <= self._size:
            block = self._read(self.end, BLOCK)
            if not any(block) and not any(self._read(self.end, min(END_BYTES, self._size - self.end))):
                return
            if any(block) and _has_valid_checksum(block):
                return
            self.end += BLOCK


def _has_valid_checksum(header: bytes) -> bool:
    """Whether a header's checksum is correct; some old programs computed it over signed bytes."""
    checksum = _number(header[tar_layout.CHECKSUM])
    rest = header[: tar_layout.CHECKSUM.start] + b" " * 8 + header[tar_layout.CHECKSUM.stop :]
    return checksum == (total := sum(rest)) or checksum == total - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes) -> int | None:
    """The value of a field in octal, or in GNU's base 256 for larger numbers; None if it is not a number."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip(b" ")
    if not text:
        return 0
    return int(text, 8) if _OCTAL.fullmatch(text) else None


def _header_name(header: bytes) -> str:
    name = _text(header[tar_layout.NAME].split(b"\0")[0])
    prefix = _text(header[tar_layout.PREFIX].split(b"\0")[0]) if header[tar_layout.MAGIC] == tar_layout.USTAR else ""
    return f"{prefix}/{name}" if prefix else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[str, str] | None:
    """The values of consecutive records "LENGTH KEY=VALUE\\n"; None if the data has another form."""
    records = {}
    start = 0
    while start < len(data):
        length, space, _ = data[start : start + 20].partition(b" ")
        if not space or not length.isdigit() or not 0 < int(length) <= len(data) - start:
            return None
        record = data[start + len(length) + 1 : start + int(length)]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals or not record.endswith(b"\n"):
            return None
        records[_text(key)] = _text(value)
        start += int(length)
    return records


def _name_fault(name: str) -> str | None:
    if not name:
        return "no name"
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return "an absolute name"
    if ".." in name and ".." in re.split(r"[/\\]", name):
        return "a name that leaves the folder"
    if _CONTROL.search(name):
        return "a name with control characters"
    return None
