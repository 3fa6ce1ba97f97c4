"""S3 storage: the same promises over any server that honours conditional writes.

Endpoint, keys and region come from where boto3 looks for them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, ...). An answer that is lost on the way says nothing about the write: every conditional
write carries a name of its own in the object's metadata, and is looked up before anyone claims to have
won or lost.

Nor is a good answer believed: bytes go out with their SHA-256, which the server compares, and what lies there is
looked at before it counts (size and ETag). The files of an artifact are looked at by one listing, before its manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from pipeline.errors import InputError, WorkError
from pipeline.owners import is_left_over, owned_name
from pipeline.storage.base import ObjectInfo
from pipeline.storage.s3_client import LARGEST_PUT, PART_BYTES, TRANSFER, is_over, patience, s3_client
from pipeline.storage.s3_digests import Digests
from pipeline.storage.s3_errors import endpoint, explain, status_of

T = TypeVar("T")

_TRIES = 4
_TORN = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_WRITER = "writer"
_ASIDE = ".aside"
_PROBES = f"{_ASIDE}/probe-"
_ARTIFACTS = "artifacts/"
ATTEMPT = "attempt-"
_FILES_AT_ONCE = 4
# What changed so lately is left alone, though its owner seems gone: the server may still be at a request of it, and
# clones of one snapshot of a virtual machine, which nothing tells apart, may share a bucket.
_QUIET_S = 3600.0


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
            self._client = s3_client()
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
        probe = f"{_PROBES}{owned_name()}"
        with patience():
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
                    answer = self._client.get_object(Bucket=self.bucket, Key=self._key(path), Range=span)
                    data = answer["Body"].read()
                except ClientError as error:
                    if status_of(error) == 416:  # From the end on there are no bytes, as in a file.
                        return b""
                    raise
                except _TORN as error:  # boto3 retries the request, not the reading of what it answers.
                    if attempt == _TRIES - 1 or (isinstance(error, ReadTimeoutError) and is_over()):
                        raise
                    # Of many workers that a busy server cut off, not all come back at once.
                    time.sleep(random.uniform(0, 0.2 * 2**attempt))
                else:
                    if "ContentRange" in answer:
                        return data
                    # A server may answer a range with the whole.
                    return data[start:] if length is None else data[start : start + length]
            raise AssertionError("unreachable")

        return self._ask(path, get)

    def write(self, path: str, data: bytes) -> None:
        def put() -> None:
            self._client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, ChecksumAlgorithm="SHA256")

        with patience():
            self._ask(path, put)
            self._confirm(path, self.stat(path), Digests.of_bytes(data))

    def create(self, path: str, data: bytes) -> bool:
        return self._put_if(path, data, IfNoneMatch="*")

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        return self._put_if(path, data, IfMatch=etag)

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
        found = []
        while (page := self._ask(prefix, lambda: next(pages, None))) is not None:
            found += [
                ObjectInfo(
                    item["Key"].removeprefix(self._key("")),
                    item["Size"],
                    item["ETag"],
                    item["LastModified"].timestamp(),
                )
                for item in page.get("Contents", [])
            ]
        # SeaweedFS walks folder by folder ("a/b" before "a-b"); S3 itself sorts by the whole key.
        yield from sorted(found, key=lambda info: info.path)

    def delete(self, path: str) -> None:
        self._ask(path, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(path)))

    def upload(self, source: Path, path: str) -> None:
        digests = self._send(source, path)
        self._confirm(path, self.stat(path), digests)

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        # It goes into a file beside the target and is moved there by boto3.
        self._ask(path, lambda: self._client.download_file(self.bucket, self._key(path), str(target), Config=TRANSFER))

    def local_path(self, path: str) -> Path | None:
        return None

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        place = f"{path}/manifest.json"
        attempt = f"{ATTEMPT}{owned_name()}"
        root = f"{attempt}/"
        won = False
        if self.stat(place) is None:
            try:
                # Says where to look, should this process be killed: nobody has to list a whole store for that.
                self.write(f"{_ASIDE}/{attempt}", f"{path}/{root}".encode())
                self._confirm_all(f"{path}/{root}", self._send_all(folder, f"{path}/{root}"))
            except BaseException:
                # The server may be the reason: it is asked once, and what stays there is swept later.
                with contextlib.suppress(Exception), patience(0):
                    self._delete_all(f"{path}/{root}")
                    self.delete(f"{_ASIDE}/{attempt}")
                raise
            # If this raises, the manifest may be there all the same and name our files: they stay.
            won = self.create(place, json.dumps({**manifest, "root": root}, indent=1, sort_keys=True).encode())
            if not won:
                self._delete_all(f"{path}/{root}")
            self.delete(f"{_ASIDE}/{attempt}")
        shutil.rmtree(folder)
        return won

    def sweep(self) -> Sequence[str]:
        swept = []
        for info in self.list(_ASIDE):
            name = info.path.rpartition("/")[2]
            if name.startswith(ATTEMPT):
                prefix = self.read(info.path).decode(errors="replace")
                newest = max((file.modified for file in self.list(prefix)), default=info.modified)
                if not _is_abandoned(name, max(newest, info.modified)) or not prefix.endswith(f"/{name}/"):
                    continue
                if not self._is_published(prefix.removesuffix(f"/{name}/"), f"{name}/"):
                    self._delete_all(prefix)
                    swept.append(prefix)
            elif not _is_abandoned(name, info.modified):
                continue
            self.delete(info.path)
        return [*swept, *self._sweep_uploads()]

    def _is_published(self, path: str, root: str) -> bool:
        """Whether the files below `root` are those of the artifact at `path`; what cannot be read counts as yes."""
        try:
            manifest = json.loads(self.read(f"{path}/manifest.json"))
            return bool(manifest["root"] == root)
        except FileNotFoundError:
            return False
        except (ValueError, TypeError, KeyError):
            return True

    def _sweep_uploads(self) -> Sequence[str]:
        """Gives up uploads in parts that nobody will end; their parts are paid for and seen by nobody."""
        swept = []
        pages = iter(
            self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self._key(_ARTIFACTS)
            )
        )
        while (page := self._ask("", lambda: next(pages, None))) is not None:
            for upload in page.get("Uploads", []):
                key, begun = upload["Key"], upload["Initiated"].timestamp()
                if key.startswith(self._key(_ARTIFACTS)) and _is_abandoned(key, begun):
                    about = {"Bucket": self.bucket, "Key": key, "UploadId": upload["UploadId"]}
                    self._ask("", lambda about=about: self._client.abort_multipart_upload(**about))  # type: ignore[misc]
                    swept.append(key)
        return swept

    def _send_all(self, folder: Path, prefix: str) -> dict[str, Digests]:
        """Uploads the files of a folder; what S3 must say of each, by its path."""
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        failed = threading.Event()

        def send(file: Path) -> tuple[str, Digests] | None:
            if failed.is_set():
                return None
            path = f"{prefix}{file.relative_to(folder).as_posix()}"
            try:
                return path, self._send(file, path)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            return dict(sent for sent in pool.map(send, files) if sent is not None)

    def _send(self, source: Path, path: str) -> Digests:
        """Uploads a file, without a look at what lies there then."""
        digests = Digests.of_file(source, largest_put=LARGEST_PUT, part_bytes=PART_BYTES)
        self._ask(
            path,
            lambda: self._client.upload_file(
                str(source), self.bucket, self._key(path), ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=TRANSFER
            ),
        )
        return digests

    def _confirm_all(self, prefix: str, sent: Mapping[str, Digests]) -> None:
        """Does nothing if all that was sent lies below `prefix`, by one listing.

        Raises:
            WorkError: something does not.
        """
        found = {info.path: info for info in self.list(prefix)}
        for path, digests in sent.items():
            self._confirm(path, found.get(path), digests)

    def _confirm(self, path: str, found: ObjectInfo | None, sent: Digests) -> None:
        """Does nothing if what was found is what was sent.

        Raises:
            WorkError: it is not.
        """
        wrong = None
        if found is None:
            wrong = "it is not there"
        elif found.size != sent.size:
            wrong = f"it has {found.size} bytes there, not {sent.size}"
        elif found.etag.strip('"') != sent.etag and not self._has(path, sent):
            wrong = "it has other bytes there"
        if wrong is not None:
            raise WorkError(
                f"{self.url}/{path}: {endpoint()} answered that it is stored, but {wrong}; nothing was committed with "
                "it; see what lies between here and the server (a proxy, a gateway), then run again"
            )

    def _has(self, path: str, sent: Digests) -> bool:
        """Whether an object whose ETag says nothing of its bytes (of an encrypted bucket, say) has those sent."""
        head = self._ask(
            path,
            lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path), ChecksumMode="ENABLED"),
        )
        if head.get("ChecksumSHA256") is not None:
            return bool(head["ChecksumSHA256"] == sent.checksum)
        # No checksum is kept there: what came back is hashed.
        hasher = hashlib.sha256()
        for start in range(0, sent.size, PART_BYTES):
            hasher.update(self.read(path, start, min(PART_BYTES, sent.size - start)))
        return hasher.hexdigest() == sent.sha256

    def _put_if(self, path: str, data: bytes, **condition: str) -> bool:
        """A conditional put; True only if what lies there now was put by this very call."""
        writer = uuid.uuid4().hex
        key = self._key(path)
        digests = Digests.of_bytes(data)

        def put() -> bool | None:
            try:
                answer = self._client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=data,
                    Metadata={_WRITER: writer},
                    ChecksumAlgorithm="SHA256",
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
                found = self._written_by(path)
                if found is None:
                    self._confirm(path, self.stat(path), digests)
                # Another writer's: it came after us, if the answer was that to our bytes.
                return True if found == writer or answer["ETag"].strip('"') == digests.etag else None
            return True if self._written_by(path) == writer else None

        with patience():
            for attempt in range(_TRIES):
                outcome = self._ask(path, put)
                if outcome is not None:
                    return outcome
                if is_over():
                    break
                time.sleep(0.2 * 2**attempt)
        raise explain(TimeoutError("no clear answer"), f"{self.url}/{path}", answered=True)

    def _written_by(self, path: str) -> str | None:
        try:
            head = self._ask(path, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path)))
        except FileNotFoundError:
            return None
        return head["Metadata"].get(_WRITER)

    def _ask(self, path: str, request: Callable[[], T]) -> T:
        """The answer to a request; what boto3 raises becomes one of our errors."""
        try:
            with patience():
                answer = request()
        except (BotoCoreError, ClientError, Boto3Error, ResponseParserError) as error:
            # Whoever asks whether the store can be written knows nothing of a probe.
            where = self.url if path.startswith(_PROBES) else f"{self.url}/{path}".rstrip("/")
            meaning = explain(error, where, answered=self._answered)
            if isinstance(meaning, FileNotFoundError) and getattr(error, "operation_name", "") != "HeadObject":
                self._answered = True
            raise meaning from error
        self._answered = True
        return answer

    def _delete_all(self, prefix: str) -> None:
        for info in list(self.list(prefix)):
            self.delete(info.path)

    def _key(self, path: str) -> str:
        if ".." in path.split("/") or path.startswith("/"):
            raise InputError(f"{path}: leaves the storage folder {self.url}")
        return f"{self.prefix}/{path}" if self.prefix else path


def _is_abandoned(name: str, last_changed: float) -> bool:
    return is_left_over(name, last_changed) and time.time() - last_changed > _QUIET_S
