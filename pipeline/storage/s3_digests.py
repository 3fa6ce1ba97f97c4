"""What S3 must say of an object that lies there as it was sent: its size, its ETag, its SHA-256.

The ETag of an object that was put at once is its MD5; of one that came in parts it is the MD5 of the parts' MD5s, and
how many there were. Buckets that encrypt with keys of their own have other ETags; for them S3 keeps the SHA-256 that
came with the bytes, made of the parts' in the same way.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MOST_PARTS = 10_000  # S3's limit


@dataclass(frozen=True, slots=True)
class Digests:
    """Of the bytes that were sent.

    Attributes:
        size: bytes.
        etag: as S3 gives it, without its quotes.
        checksum: SHA-256 as S3 gives it (base64; of an upload in parts with "-N" behind it).
        sha256: of all bytes, in hex.
    """

    size: int
    etag: str
    checksum: str
    sha256: str

    @classmethod
    def of_bytes(cls, data: bytes) -> Digests:
        """Of an object that is put at once."""
        return _digests([data], in_parts=False)

    @classmethod
    def of_file(cls, path: Path, *, largest_put: int, part_bytes: int) -> Digests:
        """Of a file that boto3 uploads.

        Args:
            largest_put: from this size on it goes in parts.
            part_bytes: size of a part; boto3 doubles it until there are at most 10,000.
        """
        size = path.stat().st_size
        while size > part_bytes * _MOST_PARTS:
            part_bytes *= 2
        with path.open("rb") as file:
            return _digests(iter(lambda: file.read(part_bytes), b""), in_parts=size >= largest_put)


def _digests(parts: Iterable[bytes], *, in_parts: bool) -> Digests:
    size, count = 0, 0
    whole_md5, whole_sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    md5s, sha256s = b"", b""
    for part in parts:
        size, count = size + len(part), count + 1
        whole_sha256.update(part)
        if in_parts:
            md5s += hashlib.md5(part, usedforsecurity=False).digest()
            sha256s += hashlib.sha256(part).digest()
        else:
            whole_md5.update(part)
    if in_parts:
        etag = f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{count}"
        checksum = f"{base64.b64encode(hashlib.sha256(sha256s).digest()).decode()}-{count}"
    else:
        etag = whole_md5.hexdigest()
        checksum = base64.b64encode(whole_sha256.digest()).decode()
    return Digests(size, etag, checksum, whole_sha256.hexdigest())
