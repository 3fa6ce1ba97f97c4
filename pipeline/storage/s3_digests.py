"""The size, ETag and SHA-256 that S3 must report for an object that was stored correctly.

The ETag of an object from a single put is its MD5; of a multipart upload it is the MD5 of the parts' MD5s and the
number of parts. Buckets that encrypt with their own keys have other ETags; for them S3 stores the SHA-256 sent with the
bytes, combined from the parts in the same way.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MAX_PARTS = 10_000  # S3's limit


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of uploaded bytes.

    Attributes:
        size: bytes.
        etag: as reported by S3, without quotes.
        checksum: SHA-256 as reported by S3 (base64; with the suffix "-N" for a multipart upload).
        sha256: SHA-256 of all bytes, in hex.
    """

    size: int
    etag: str
    checksum: str
    sha256: str

    @classmethod
    def of_bytes(cls, data: bytes) -> Digests:
        """The digests of an object from a single put."""
        return _digests([data], multipart=False)

    @classmethod
    def of_file(cls, path: Path, *, multipart_threshold: int, part_bytes: int) -> Digests:
        """The digests of a file that boto3 uploads.

        Args:
            multipart_threshold: as in boto3: files of this size in bytes or larger are multipart uploads.
            part_bytes: size of a part; boto3 doubles it until there are at most 10,000.
        """
        size = path.stat().st_size
        while size > part_bytes * _MAX_PARTS:
            part_bytes *= 2
        with path.open("rb") as file:
            return _digests(iter(lambda: file.read(part_bytes), b""), multipart=size >= multipart_threshold)


def _digests(parts: Iterable[bytes], *, multipart: bool) -> Digests:
    size, count = 0, 0
    whole_md5, whole_sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    md5s, sha256s = b"", b""
    for part in parts:
        size, count = size + len(part), count + 1
        whole_sha256.update(part)
        if multipart:
            md5s += hashlib.md5(part, usedforsecurity=False).digest()
            sha256s += hashlib.sha256(part).digest()
        else:
            whole_md5.update(part)
    if multipart:
        etag = f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{count}"
        checksum = f"{base64.b64encode(hashlib.sha256(sha256s).digest()).decode()}-{count}"
    else:
        etag = whole_md5.hexdigest()
        checksum = base64.b64encode(whole_sha256.digest()).decode()
    return Digests(size, etag, checksum, whole_sha256.hexdigest())
