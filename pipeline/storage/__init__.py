"""Storage: one small protocol over a local folder or an S3 bucket."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError
from pipeline.storage.base import ObjectInfo, Storage

__all__ = ["ObjectInfo", "Storage", "open_storage"]


def open_storage(url: str) -> Storage:
    """Opens the storage at a URL: "s3://bucket/prefix", "file:///folder" or a folder.

    Raises:
        InputError: the URL is empty or its scheme is unknown.
    """
    scheme, separator, rest = url.partition("://")
    if url.startswith("s3:") and scheme != "s3":
        raise InputError(f"{url}: write s3://bucket/prefix")
    if not url.strip():
        raise InputError("the store's URL is empty; name a folder or s3://bucket/prefix")
    if not separator:
        scheme, rest = "file", url
    if scheme == "file":
        from pipeline.storage.local import LocalStorage

        return LocalStorage(Path(rest))
    if scheme == "s3":
        if "@" in rest:
            raise InputError(
                f"{url}: keys are not allowed in the URL of a store; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        from pipeline.storage.s3 import S3Storage

        return S3Storage.from_url(url)
    raise InputError(f"{url}: unknown storage scheme {scheme!r}; use a folder or s3://bucket/prefix")
