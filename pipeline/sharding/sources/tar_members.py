"""The members of a tar from its headers: names and byte ranges; nothing is extracted.

Tars are untrusted, so members that no image data set needs are rejected with shard, member and byte: names that leave
the folder, links, devices, sparse files, sizes beyond the archive or a limit, damaged headers. The old, ustar, GNU and
pax formats are read, and names of any length.
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

_WINDOW = 1 << 20
_LONGEST_NAME = 4096
_PAX_BYTES = 1 << 20
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


# header: a damaged header or extended header; cut: the archive ends inside the member or header; name: invalid, or
# leaves the folder; link, special: not a file; large: more bytes than allowed. At the archive's end, after: data after
# the end mark; end: no end mark; mark: an incomplete end mark, without loss of data.
FaultKind = Literal["header", "cut", "name", "link", "special", "large", "after", "end", "mark"]
# The faults that `ends=read` tolerates.
_OF_THE_END: tuple[FaultKind, ...] = ("cut", "after", "end")


@dataclass(frozen=True, slots=True)
class TarFault:
    """A fault of a tar: `member` ("" if unknown), and `byte`, the offset of its header or of the fault."""

    kind: FaultKind
    member: str
    byte: int
    what: str


class RefusedTarError(InputError):
    """A tar is damaged, or has a member that no image data set needs."""

    def __init__(self, tar: str, fault: TarFault) -> None:
        where = f"member {fault.member!r} at byte {fault.byte}" if fault.member else f"byte {fault.byte}"
        what_to_do = "write it again, or leave it out"
        if fault.kind in _OF_THE_END:
            what_to_do = "write it again, leave it out, or set ends=read to read every whole sample in it"
        super().__init__(f"{tar}, {where}: {fault.what}; the tar is refused whole: {what_to_do}")


def check_tar(tar: str, size: int, start: bytes) -> None:
    """Rejects a file that is not a tar, by its first block.

    Raises:
        InputError: it is compressed, or not a tar.
    """
    compression = compression_of(start)
    if compression is not None:
        raise InputError(
            f"{tar}: compressed ({compression}), so that no image in it can be read by its place; decompress it first"
        )
    if size == 0 or len(start) < BLOCK or (any(start) and not _sum_holds(start)):
        what = file_type(start)
        said = f"it is {what}" if what is not None else f"{size} bytes that no tar begins with"
        raise InputError(f"{tar}: not a tar ({said})")


def tar_members(
    tar: str, size: int, read: Read, *, max_bytes: int, on_end: Callable[[TarFault], None] | None = None
) -> Iterator[Member]:
    """The files of a tar, in order.

    Args:
        tar: name of the tar in errors.
        size: size of the archive in bytes.
        read: read(start, length) returns a byte range of the archive.
        max_bytes: a larger member is rejected.
        on_end: receives faults at the end of the archive, and members after an inner end mark are returned too; None:
            such faults are errors.
    Raises:
        RefusedTarError: a member is rejected, or the archive goes on after its end mark, has none or is cut; raised
            after the preceding members were returned.
    """
    check_tar(tar, size, read(0, min(size, BLOCK)))

    def fault_found(fault: TarFault) -> None:
        if on_end is None or fault.kind not in _OF_THE_END:
            raise RefusedTarError(tar, fault)
        on_end(fault)

    walk = TarWalk(size, read, max_bytes=max_bytes, on_fault=fault_found, past_marks=on_end is not None)
    yield from walk.members()
    fault = walk.end_fault()
    if fault is not None and fault.kind != "mark":
        fault_found(fault)


class TarWalk:
    """A walk over a tar from header to header.

    Args:
        on_fault: receives every fault, in the order of the bytes; unless it raises, the walk continues with the next
            intact header after a damaged one, and ends at a cut.
        past_marks: continue with the next header after an end mark; `on_fault` receives a fault for it.

    Attributes:
        end: current offset of the walk: the end of the last member.
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
                if self._past_marks and (place := self._header_behind(self.end)) is not None:
                    self._fault("after", "", f"the archive goes on at byte {place}, after its end mark")
                    self._marked, self.end = False, place
                    continue
                return
            name = self._long_name if self._long_name is not None else _header_name(header)
            kind = header[tar_layout.KIND]
            length = _number(header[tar_layout.SIZE]) if self._long_size is None or kind in b"xgLK" else self._long_size
            if not _sum_holds(header):
                self._fault("header", "", "no tar header: the archive is damaged or was cut and went on")
                self._to_next_header()
                continue
            if length is None:
                self._fault("header", name, "its size is no number")
                self._to_next_header()
                continue
            if kind == _FOLDER:  # The size of a folder is a hint in some tars; no data follows.
                length = 0
            place = self.end + BLOCK
            if place + length > self._size:
                left = self._size - place
                self._fault("cut", name, f"{length} bytes are promised and {left} are left: the archive is cut")
                self.end, self._cut = self._size, True
                return
            member = None
            if kind in b"xgLK":
                self._extend(kind, name, place, length)
            else:
                self._long_name, self._long_size = None, None
                member = self._file(kind, name, place, length)
            self.end = place + length + padding(length)
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
        place = self.end
        while place < self._size:
            window = self._read(place, min(_WINDOW, self._size - place))
            if not window:
                break
            rest = window.lstrip(b"\0")
            if rest:
                byte = place + len(window) - len(rest)
                what = f"the end mark is at byte {self.end}, and {self._size - byte} bytes follow from here"
                return TarFault("after", "", byte, what)
            place += len(window)
        if self._size < self.end + END_BYTES:
            what = f"{self._size - self.end} of the {END_BYTES} empty bytes of the end mark are there"
            return TarFault("mark", "", self.end, what)
        return None

    def _header_behind(self, place: int) -> int | None:
        """The offset of the next block that is an intact header, or None."""
        while place + BLOCK <= self._size:
            window = self._read(place, min(_WINDOW, (self._size - place) // BLOCK * BLOCK))
            if len(window) < BLOCK:
                return None
            for start in range(0, len(window) - BLOCK + 1, BLOCK):
                block = window[start : start + BLOCK]
                if any(block) and _sum_holds(block):
                    return place + start
            place += len(window) // BLOCK * BLOCK
        return None

    def _fault(self, kind: FaultKind, member: str, what: str) -> None:
        self._on_fault(TarFault(kind, member, self.end, what))

    def _extend(self, kind: bytes, name: str, place: int, length: int) -> None:
        """Reads the name and size of the next member from an extended header."""
        if kind in (b"L", b"K"):
            if length > _LONGEST_NAME:
                self._fault("header", name, f"a name of {length} bytes")
            elif kind == b"L":
                self._long_name = _text(self._read(place, length).split(b"\0")[0])
            return
        if length > _PAX_BYTES:
            self._fault("header", name, f"{length} bytes of pax records")
            return
        records = _pax_records(self._read(place, length))
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

    def _file(self, kind: bytes, name: str, place: int, length: int) -> Member | None:
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
        return Member(name.removeprefix("./"), place, length)

    def _to_next_header(self) -> None:
        """Moves to the next intact header or end mark; otherwise to the end of the archive."""
        self._long_name, self._long_size = None, None
        self.end += BLOCK
        while self.end + BLOCK <= self._size:
            block = self._read(self.end, BLOCK)
            if not any(block) and not any(self._read(self.end, min(END_BYTES, self._size - self.end))):
                return
            if any(block) and _sum_holds(block):
                return
            self.end += BLOCK


def _sum_holds(header: bytes) -> bool:
    """Whether a header's checksum is correct; old tars computed it over signed bytes."""
    said = _number(header[tar_layout.CHECKSUM])
    rest = header[: tar_layout.CHECKSUM.start] + b" " * 8 + header[tar_layout.CHECKSUM.stop :]
    return said is not None and (said == sum(rest) or said == sum(rest) - 256 * sum(byte > 127 for byte in rest))


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
    place = 0
    while place < len(data):
        length, space, _ = data[place : place + 20].partition(b" ")
        if not space or not length.isdigit() or not 0 < int(length) <= len(data) - place:
            return None
        record = data[place + len(length) + 1 : place + int(length)]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals or not record.endswith(b"\n"):
            return None
        records[_text(key)] = _text(value)
        place += int(length)
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
