"""The objects of an S3 bucket: requests, retries and errors.

Endpoint, keys and region are configured as in boto3 (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...). Errors of
boto3 are converted to one of ours, in one line.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from pipeline.errors import InputError
from pipeline.storage.base import ObjectInfo
from pipeline.storage.s3_client import (
    MULTIPART_THRESHOLD,
    PART_BYTES,
    TRANSFER,
    request_time_limit,
    s3_client,
    time_limit_passed,
)
from pipeline.storage.s3_digests import Digests
from pipeline.storage.s3_errors import explain, status_of

T = TypeVar("T")

TRIES = 4
ASIDE = ".aside"
"""Folder of a storage for temporary objects and records of its processes."""
PROBES = f"{ASIDE}/probe-"
_INTERRUPTED_READ = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload: the object's key, the upload's id, and its Unix start time."""

    key: str
    id: str
    started: float


class S3Objects:
    """Objects below `prefix` in a bucket.

    Args:
        bucket: its name; it must exist.
        prefix: folder in the bucket; "" for the bucket itself.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self._answered = False
        try:
            self._client = s3_client()
        except (BotoCoreError, ValueError) as error:
            raise explain(error, self.url, answered=False) from error

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The storage at s3://bucket/prefix.

        Raises:
            InputError: the URL names no bucket.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise InputError(f"{url}: names no bucket; write s3://bucket/prefix")
        return cls(parts.netloc, url.removeprefix(f"s3://{parts.netloc}"))

    def __reduce__(self) -> tuple[Any, ...]:
        # A client cannot be pickled; bucket and prefix can.
        return type(self), (self.bucket, self.prefix)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            if self.stat(path) is None:
                raise FileNotFoundError(f"{self.url}/{path}")
            return b""
        span = f"bytes={start}-" + ("" if length is None else str(start + length - 1))

        def get() -> bytes:
            for attempt in range(TRIES):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self._key(path), Range=span)
                    data = answer["Body"].read()
                except ClientError as error:
                    if status_of(error) == 416:  # `start` is at or past the end: no bytes, as with a file.
                        return b""
                    raise
                except _INTERRUPTED_READ as error:  # boto3 retries the request, but not the reading of the body.
                    if attempt == TRIES - 1 or (isinstance(error, ReadTimeoutError) and time_limit_passed()):
                        raise
                    # Random, so that many workers cut off by a busy server do not all retry at once.
                    time.sleep(random.uniform(0, 0.2 * 2**attempt))
                else:
                    if "ContentRange" in answer:
                        return data
                    # A server may answer a range request with the whole object.
                    return data[start:] if length is None else data[start : start + length]
            raise AssertionError("unreachable")

        return self._ask(path, get)

    def stat(self, path: str) -> ObjectInfo | None:
        try:
            head = self._ask(path, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path)))
        except FileNotFoundError:
            return None
        return ObjectInfo(path, head["ContentLength"], head["ETag"], head["LastModified"].timestamp())

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        top = self._key(prefix.strip("/"))
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{top.rstrip('/')}/" if top else ""
            )
        )
        infos = []
        while (page := self._ask(prefix, lambda: next(pages, None))) is not None:
            infos += [
                ObjectInfo(
                    item["Key"].removeprefix(self._key("")),
                    item["Size"],
                    item["ETag"],
                    item["LastModified"].timestamp(),
                )
                for item in page.get("Contents", [])
            ]
        # SeaweedFS walks folder by folder ("a/b" before "a-b"); S3 itself sorts by the whole key.
        yield from sorted(infos, key=lambda info: info.path)

    def delete(self, path: str) -> None:
        self._ask(path, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(path)))

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        # boto3 downloads to a temporary file next to the target and renames it.
        self._ask(path, lambda: self._client.download_file(self.bucket, self._key(path), str(target), Config=TRANSFER))

    def local_path(self, path: str) -> Path | None:
        return None

    def _send(self, source: Path, path: str) -> Digests:
        """Uploads a file without checking the stored object."""
        digests = Digests.of_file(source, multipart_threshold=MULTIPART_THRESHOLD, part_bytes=PART_BYTES)
        self._ask(
            path,
            lambda: self._client.upload_file(
                str(source), self.bucket, self._key(path), ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=TRANSFER
            ),
        )
        return digests

    def _uploads(self, prefix: str) -> Iterator[Upload]:
        """The unfinished multipart uploads below a folder."""
        pages = iter(
            self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
        )
        while (page := self._ask("", lambda: next(pages, None))) is not None:
            for upload in page.get("Uploads", []):
                if upload["Key"].startswith(self._key(prefix)):
                    yield Upload(upload["Key"], upload["UploadId"], upload["Initiated"].timestamp())

    def _abort(self, upload: Upload) -> None:
        """Aborts a multipart upload."""
        self._ask(
            "",
            lambda: self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload.key, UploadId=upload.id),
        )

    def _delete_all(self, prefix: str) -> None:
        for info in list(self.list(prefix)):
            self.delete(info.path)

    def _ask(self, path: str, request: Callable[[], T]) -> T:
        """Runs a request; converts errors of boto3 to ours."""
        try:
            with request_time_limit():
                answer = request()
        except (BotoCoreError, ClientError, Boto3Error, ResponseParserError) as error:
            # The user does not know about the probe of `check_writable`.
            where = self.url if path.startswith(PROBES) else f"{self.url}/{path}".rstrip("/")
            converted = explain(error, where, answered=self._answered)
            if isinstance(converted, FileNotFoundError) and getattr(error, "operation_name", "") != "HeadObject":
                self._answered = True
            raise converted from error
        self._answered = True
        return answer

    def _key(self, path: str) -> str:
        if ".." in path.split("/") or path.startswith("/"):
            raise InputError(f"{path}: leaves the storage folder {self.url}")
        return f"{self.prefix}/{path}" if self.prefix else path
