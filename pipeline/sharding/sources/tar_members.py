"""The members of a tar by their headers alone: names and places, nothing is extracted.

A tar comes from anywhere, so what no image data set needs is refused with shard, member and byte: names that leave
the folder, links, devices, sparse files, sizes beyond the archive or a limit, damaged headers. Old, ustar, GNU and pax
forms are read, and names of any length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.errors import InputError

_BLOCK = 512
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
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its data are the bytes [offset, offset + length)."""

    name: str
    offset: int
    length: int


class HostileTarError(InputError):
    """A member that no image data set needs, or a damaged archive."""

    def __init__(self, tar: str, member: str, byte: int, what: str) -> None:
        where = f"member {member!r} at byte {byte}" if member else f"byte {byte}"
        super().__init__(f"{tar}, {where}: {what}; the tar is refused whole: make it anew, or leave it out")


def check_tar(tar: str, size: int, start: bytes) -> None:
    """Refuses what is no tar, by its first block.

    Raises:
        InputError: it is compressed, or no tar.
    """
    for magic, form in _COMPRESSED.items():
        if start.startswith(magic):
            raise InputError(
                f"{tar}: compressed ({form}), so that no image in it can be read by its place; decompress it first"
            )
    if size == 0 or len(start) < _BLOCK or (any(start) and not _sum_holds(start)):
        raise InputError(f"{tar}: not a tar ({size} bytes, starts with {start[:8]!r})")


def tar_members(tar: str, size: int, read: Read, *, most_bytes: int) -> Iterator[Member]:
    """The files of a tar, in their order.

    Args:
        tar: what errors call it.
        size: of the archive, in bytes.
        read: read(start, length) gives bytes of the archive.
        most_bytes: a larger member is refused.
    Raises:
        HostileTarError: a member that is refused; those before it have come out.
    """
    check_tar(tar, size, read(0, min(size, _BLOCK)))
    place = 0
    long_name: str | None = None
    long_size: int | None = None
    while place + _BLOCK <= size:
        header = read(place, _BLOCK)
        if not any(header):
            return
        at = place
        name = long_name if long_name is not None else _header_name(header)

        def refused(what: str, name: str = name, at: int = at) -> HostileTarError:
            return HostileTarError(tar, name, at, what)

        if not _sum_holds(header):
            raise HostileTarError(tar, "", at, "no tar header: the archive is damaged or was cut and went on")
        kind = header[156:157]
        length = _number(header[124:136]) if long_size is None or kind in b"xgLK" else long_size
        if length is None:
            raise refused("its size is no number")
        if kind == _FOLDER:  # What some tars note there is a hint, no data follow.
            length = 0
        place += _BLOCK
        if place + length > size:
            raise refused(f"{length} bytes are promised and {size - place} are left: the archive is cut")
        if kind in (b"L", b"K"):
            if length > _LONGEST_NAME:
                raise refused(f"a name of {length} bytes")
            if kind == b"L":
                long_name = _text(read(place, length).split(b"\0")[0])
        elif kind in (b"x", b"g"):
            if length > _PAX_BYTES:
                raise refused(f"{length} bytes of pax records")
            records = _pax_records(read(place, length))
            if records is None:
                raise refused("damaged pax records")
            if any(key.startswith("GNU.sparse") for key in records):
                raise refused("a sparse file")
            if kind == b"g" and records.keys() & {"path", "size", "linkpath"}:
                raise refused("one name or size for all members")
            if kind == b"x":
                long_name = records.get("path", long_name)
                if "size" in records:
                    if not records["size"].isdigit():
                        raise refused("its size is no number")
                    long_size = int(records["size"])
        else:
            long_name, long_size = None, None
            if kind in _REFUSED:
                raise refused(_REFUSED[kind])
            if kind not in (*_REGULAR, _FOLDER):
                raise refused(f"of unknown type {kind!r}")
            fault = _name_fault(name)
            if fault is not None:
                raise refused(fault)
            if kind != _FOLDER and not name.endswith("/"):
                if length > most_bytes:
                    raise refused(f"{length} bytes, more than max_member_mb allows")
                yield Member(name.removeprefix("./"), place, length)
        place += -(-length // _BLOCK) * _BLOCK


def _sum_holds(header: bytes) -> bool:
    """Whether a header's checksum is right; old tars took it over signed bytes."""
    said = _number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    return said is not None and (said == sum(rest) or said == sum(rest) - 256 * sum(byte > 127 for byte in rest))


def _number(field: bytes) -> int | None:
    """A number in octal, or in GNU's base 256 for what octal cannot hold."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip(b" ")
    if not text:
        return 0
    return int(text, 8) if re.fullmatch(rb"[0-7]+", text) else None


def _header_name(header: bytes) -> str:
    name = _text(header[:100].split(b"\0")[0])
    prefix = _text(header[345:500].split(b"\0")[0]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[str, str] | None:
    """ "LENGTH KEY=VALUE\\n", one after another; None if they are not."""
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
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        return "an absolute name"
    if ".." in re.split(r"[/\\]", name):
        return "a name that leaves the folder"
    if any(ord(char) < 32 for char in name):
        return "a name with control characters"
    return None
