"""S3 storage: the same promises over any server that honours conditional writes.

Endpoint, keys and region come from where boto3 looks for them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, ...). An answer that is lost on the way says nothing about the write: every conditional
write carries a name of its own in the object's metadata, and is looked up before anyone claims to have
won or lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as ClientConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from pipeline.errors import InputError
from pipeline.storage.base import ObjectInfo
from pipeline.storage.s3_errors import explain, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

# SeaweedFS lets the losers of a race wait in steps of 1 s (16 writers: 3 s, rarely more than 6), so a
# short timeout would turn a plain "lost" into "unknown".
_READ_TIMEOUT_S = 60
_CONNECT_TIMEOUT_S = 10
_TRIES = 4
_TORN = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_WRITER = "writer"
_PROBES = ".aside/probe-"
_TRANSFER = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
_FILES_AT_ONCE = 4


class S3Storage:
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
            self._client = _client()
        except (BotoCoreError, ValueError) as error:
            raise explain(error, self.url, answered=False) from error

    @classmethod
    def from_url(cls, url: str) -> S3Storage:
        """The storage that s3://bucket/prefix names.

        Raises:
            InputError: the URL names no bucket.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise InputError(f"{url}: names no bucket; write s3://bucket/prefix")
        return cls(parts.netloc, url.removeprefix(f"s3://{parts.netloc}"))

    def __reduce__(self) -> tuple[Any, ...]:
        # A client does not travel to another process; its description does.
        return S3Storage, (self.bucket, self.prefix)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def check_writable(self) -> None:
        probe = f"{_PROBES}{uuid.uuid4().hex}"
        self.create(probe, b"probe")
        try:
            again = self.create(probe, b"probe")
        finally:
            self.delete(probe)
        if again:
            raise InputError(
                f"{self.url}: the server ignores conditional writes (If-None-Match), so two runs could overwrite "
                "each other; use a server that honours them, e.g. AWS S3 or SeaweedFS"
            )

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            if self.stat(path) is None:
                raise FileNotFoundError(f"{self.url}/{path}")
            return b""
        span = f"bytes={start}-" + ("" if length is None else str(start + length - 1))

        def get() -> bytes:
            for attempt in range(_TRIES):
                try:
                    return self._client.get_object(Bucket=self.bucket, Key=self._key(path), Range=span)["Body"].read()
                except ClientError as error:
                    if status_of(error) == 416:  # From the end on there are no bytes, as in a file.
                        return b""
                    raise
                except _TORN:  # boto3 retries the request, not the reading of what it answers.
                    if attempt == _TRIES - 1:
                        raise
                    # Of many workers that a busy server cut off, not all come back at once.
                    time.sleep(random.uniform(0, 0.2 * 2**attempt))
            raise AssertionError("unreachable")

        return self._ask(path, get)

    def write(self, path: str, data: bytes) -> None:
        self._ask(path, lambda: self._client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data))

    def create(self, path: str, data: bytes) -> bool:
        return self._put_if(path, data, IfNoneMatch="*")

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        return self._put_if(path, data, IfMatch=etag)

    def stat(self, path: str) -> ObjectInfo | None:
        try:
            head = self._ask(path, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path)))
        except FileNotFoundError:
            return None
        return ObjectInfo(path, head["ContentLength"], head["ETag"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        top = self._key(prefix.strip("/"))
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{top.rstrip('/')}/" if top else ""
            )
        )
        found = []
        while (page := self._ask(prefix, lambda: next(pages, None))) is not None:
            found += [
                ObjectInfo(item["Key"].removeprefix(self._key("")), item["Size"], item["ETag"])
                for item in page.get("Contents", [])
            ]
        # SeaweedFS walks folder by folder ("a/b" before "a-b"); S3 itself sorts by the whole key.
        yield from sorted(found, key=lambda info: info.path)

    def delete(self, path: str) -> None:
        self._ask(path, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(path)))

    def upload(self, source: Path, path: str) -> None:
        self._ask(path, lambda: self._client.upload_file(str(source), self.bucket, self._key(path), Config=_TRANSFER))

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        # It goes into a file beside the target and is moved there by boto3.
        self._ask(path, lambda: self._client.download_file(self.bucket, self._key(path), str(target), Config=_TRANSFER))

    def local_path(self, path: str) -> Path | None:
        return None

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        place = f"{path}/manifest.json"
        root = f"attempt-{uuid.uuid4().hex}/"
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        won = False
        if self.stat(place) is None:
            try:
                with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                    tasks = [(file, f"{path}/{root}{file.relative_to(folder).as_posix()}") for file in files]
                    list(pool.map(lambda task: self.upload(*task), tasks))
            except BaseException:
                with contextlib.suppress(Exception):
                    self._delete_all(f"{path}/{root}")
                raise
            # If this raises, the manifest may be there all the same and name our files: they stay.
            won = self.create(place, json.dumps({**manifest, "root": root}, indent=1, sort_keys=True).encode())
            if not won:
                self._delete_all(f"{path}/{root}")
        shutil.rmtree(folder)
        return won

    def _put_if(self, path: str, data: bytes, **condition: str) -> bool:
        """A conditional put; True only if what lies there now was put by this very call."""
        writer = uuid.uuid4().hex
        key = self._key(path)

        def put() -> bool | None:
            try:
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=data,
                    Metadata={_WRITER: writer},
                    **condition,  # type: ignore[arg-type]
                )
            except ClientError as error:
                status = status_of(error)
                if status == 412:
                    # boto3 may have sent it twice, so that we lost against ourselves.
                    return self._written_by(path) == writer
                if status == 404 and "IfMatch" in condition and error.response["Error"]["Code"] != "NoSuchBucket":
                    return False
                # 409: S3 is busy with another conditional write of this key.
                if status != 409 and status < 500:
                    raise
            except HTTPClientError:
                pass
            except ConnectionError:
                if not self._answered:
                    raise
            else:
                return True
            return True if self._written_by(path) == writer else None

        for attempt in range(_TRIES):
            outcome = self._ask(path, put)
            if outcome is not None:
                return outcome
            time.sleep(0.2 * 2**attempt)
        raise explain(TimeoutError(f"no clear answer in {_TRIES} tries"), f"{self.url}/{path}", answered=True)

    def _written_by(self, path: str) -> str | None:
        try:
            head = self._ask(path, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path)))
        except FileNotFoundError:
            return None
        return head["Metadata"].get(_WRITER)

    def _ask(self, path: str, request: Callable[[], T]) -> T:
        """The answer to a request; what boto3 raises becomes one of our errors."""
        try:
            answer = request()
        except (BotoCoreError, ClientError, Boto3Error) as error:
            # Whoever asks whether the store can be written knows nothing of a probe.
            where = self.url if path.startswith(_PROBES) else f"{self.url}/{path}".rstrip("/")
            raise explain(error, where, answered=self._answered) from error
        self._answered = True
        return answer

    def _delete_all(self, prefix: str) -> None:
        for info in list(self.list(prefix)):
            self.delete(info.path)

    def _key(self, path: str) -> str:
        if ".." in path.split("/") or path.startswith("/"):
            raise InputError(f"{path}: leaves the storage folder {self.url}")
        return f"{self.prefix}/{path}" if self.prefix else path


def _client() -> S3Client:
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return boto3.session.Session().client(
        "s3",
        config=ClientConfig(
            signature_version="s3v4",
            # A server of one's own rarely answers at BUCKET.its-name; AWS does.
            s3={"addressing_style": "path"} if own_endpoint else None,
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            max_pool_connections=32,
        ),
    )
