"""Writes samples into plain ustar tars that any WebDataset reader reads.

The same samples in the same order give the same bytes: no times, no owners, no file-system order.
The members of a sample are adjacent: KEY.png (or jpg, webp), KEY.json, KEY.txt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.sharding.format import tar_layout
from pipeline.sharding.format.tar_layout import BLOCK, END_BYTES, padding

_BUFFER_BYTES = 4 << 20
_MAX_BUFFERS = 1000  # IOV_MAX is 1,024 on Linux
_PADDING = tuple(bytes(count) for count in range(BLOCK))
IMAGE_EXTENSIONS = ("png", "jpg", "webp")

Members = Sequence[tuple[str, bytes]]


def members(key: str, extension: str, image: bytes, metadata: str, captions: Sequence[str]) -> Members:
    """The members of a sample.

    Args:
        metadata: KEY.json without the key: a non-empty JSON object.
        captions: the first becomes KEY.txt.
    """
    texts = [("txt", captions[0].encode())] if captions else []
    return [(extension, image), ("json", f'{{"key":"{key}",{metadata[1:]}'.encode()), *texts]


def sample_bytes(sizes: Iterable[int]) -> int:
    """Bytes that a sample with members of these sizes occupies in a tar."""
    return sum(BLOCK + size + padding(size) for size in sizes)


class TarFile:
    """One shard that is being written.

    Buffers are collected and written by `writev`, without concatenating them.

    Args:
        path: the file; existing content is overwritten.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._buffers: list[bytes] = []
        self._unwritten_bytes = 0
        self.size = 0

    def add(self, key: str, members: Members) -> tuple[int, int]:
        """Appends a sample.

        Args:
            key: the sample's name; without dots, because readers split a member name at its first dot.
            members: (extension, data), the image first.

        Returns:
            Offset and length of the first member's data.
        """
        if not key or "." in key or "/" in key or not key.isascii():
            raise ValueError(f"sample key {key!r}: must be ASCII, not empty, without dots and slashes")
        start = self.size + BLOCK
        size_before = self.size
        buffers = self._buffers
        for extension, data in members:
            size = len(data)
            zeros = padding(size)
            buffers += (_header(f"{key}.{extension}", size), data)
            if zeros:
                buffers.append(_PADDING[zeros])
            self.size += BLOCK + size + zeros
        self._unwritten_bytes += self.size - size_before
        if self._unwritten_bytes >= _BUFFER_BYTES or len(buffers) >= _MAX_BUFFERS:
            self._write()
        return start, len(members[0][1])

    def close(self) -> int:
        """Ends the archive; returns its size in bytes."""
        if self._descriptor >= 0:
            self._buffers.append(bytes(END_BYTES))
            self.size += END_BYTES
            try:
                self._write()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1
        return self.size

    def _write(self) -> None:
        buffers, self._buffers, self._unwritten_bytes = self._buffers, [], 0
        for first in range(0, len(buffers), _MAX_BUFFERS):
            some = buffers[first : first + _MAX_BUFFERS]
            written = os.writev(self._descriptor, some)
            if written < sum(map(len, some)):
                # A short write, e.g. near a full disk or beyond 2 GiB: the rest is written as one buffer.
                rest = memoryview(b"".join(some))[written:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]


def shard_name(split: str, number: int) -> str:
    """The path of a shard below the artifact's folder."""
    return f"shards/{split}-{number:05d}.tar"


def _header(name: str, size: int) -> bytes:
    """A ustar header with mode 644, no time and no owner: as tarfile writes it, ten times as fast."""
    encoded = name.encode("ascii")
    length = len(encoded)
    if length > tar_layout.NAME.stop:
        raise ValueError(f"{name}: {length} bytes; a name in a tar has at most {tar_layout.NAME.stop}")
    digits = b"%011o" % size
    # The sum of all bytes, with the checksum field as eight spaces; only name and size differ from the empty header.
    total = _HEADER_SUM + sum(encoded) + sum(digits)
    return b"".join((encoded, _HEADER[length:_SIZE_AT], digits, _BEFORE_SUM, b"%06o\0 " % total, _AFTER_SUM))


def _empty_header() -> bytes:
    header = bytearray(BLOCK)
    header[tar_layout.MODE] = b"0000644\0"
    header[tar_layout.USER] = header[tar_layout.GROUP] = b"0000000\0"
    header[tar_layout.TIME] = b"00000000000\0"
    header[tar_layout.CHECKSUM] = b" " * 8
    header[tar_layout.KIND] = b"0"
    header[tar_layout.MAGIC] = tar_layout.USTAR
    header[tar_layout.VERSION] = b"00"
    return bytes(header)


_HEADER = _empty_header()
_HEADER_SUM = sum(_HEADER)
_SIZE_AT = tar_layout.SIZE.start
_BEFORE_SUM = _HEADER[tar_layout.SIZE.stop - 1 : tar_layout.CHECKSUM.start]
_AFTER_SUM = _HEADER[tar_layout.CHECKSUM.stop :]
