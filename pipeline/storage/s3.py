"""S3 storage: the `Storage` protocol over any server that honours conditional writes.

A lost response leaves open whether the write succeeded. So every conditional write stores a unique name in the
object's metadata, which is read back to decide whether this call won.

A successful response is verified too: bytes are sent with their SHA-256, which the server compares, and the size and
ETag of the stored object are checked. The files of an artifact are checked by one listing, before its manifest is
written.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from pipeline.errors import InputError, WorkError
from pipeline.owners import is_left_over, owned_name
from pipeline.storage.base import ObjectInfo
from pipeline.storage.s3_client import request_time_limit, time_limit_passed
from pipeline.storage.s3_digests import Digests
from pipeline.storage.s3_errors import endpoint, explain, status_of
from pipeline.storage.s3_objects import ASIDE, PROBES, TRIES, S3Objects
from pipeline.storage.sha256 import ranges_sha256

_WRITER = "writer"
_ARTIFACTS = "artifacts/"
_ATTEMPT = "attempt-"
_PARALLEL_UPLOADS = 4
# Younger objects are not swept, even if their owner has ended: the server may still process a request of it, and clones
# of one virtual machine snapshot, which cannot be distinguished, may share a bucket.
_MIN_IDLE_S = 3600.0


class S3Storage(S3Objects):
    """A `Storage` below a prefix in a bucket, with confirmed writes; one conditional write publishes an artifact."""

    def check_writable(self) -> None:
        probe = f"{PROBES}{owned_name()}"
        with request_time_limit():
            self.create(probe, b"probe")
            try:
                created_twice = self.create(probe, b"probe")
            finally:
                self.delete(probe)
        if created_twice:
            raise InputError(
                f"{self.url}: the server ignores conditional writes (If-None-Match), so two runs could overwrite "
                "each other; use a server that honours them, e.g. AWS S3 or SeaweedFS"
            )

    def write(self, path: str, data: bytes) -> None:
        def put() -> None:
            self._client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, ChecksumAlgorithm="SHA256")

        with request_time_limit():
            self._ask(path, put)
            self._confirm(path, self.stat(path), Digests.of_bytes(data))

    def create(self, path: str, data: bytes) -> bool:
        return self._put_if(path, data, IfNoneMatch="*")

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        return self._put_if(path, data, IfMatch=etag)

    def upload(self, source: Path, path: str) -> None:
        digests = self._send(source, path)
        self._confirm(path, self.stat(path), digests)

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        manifest_path = f"{path}/manifest.json"
        attempt = f"{_ATTEMPT}{owned_name()}"
        root = f"{attempt}/"
        won = False
        if self.stat(manifest_path) is None:
            try:
                # If this process is killed, `sweep` finds the folder by this record without listing the store.
                self.write(f"{ASIDE}/{attempt}", f"{path}/{root}".encode())
                self._confirm_all(f"{path}/{root}", self._send_all(folder, f"{path}/{root}"))
            except BaseException:
                # The server may be the cause: delete with one try only; `sweep` removes the rest later.
                with contextlib.suppress(Exception), request_time_limit(0):
                    self._delete_all(f"{path}/{root}")
                    self.delete(f"{ASIDE}/{attempt}")
                raise
            # If this raises, the manifest may have been written and name our files, so they are not deleted.
            won = self.create(manifest_path, json.dumps({**manifest, "root": root}, indent=1, sort_keys=True).encode())
            if not won:
                self._delete_all(f"{path}/{root}")
            self.delete(f"{ASIDE}/{attempt}")
        shutil.rmtree(folder)
        return won

    def unpublish(self, path: str) -> None:
        try:
            root = str(json.loads(self.read(f"{path}/manifest.json"))["root"])
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError):
            root = ""
        if not (root.startswith(_ATTEMPT) and root.find("/") == len(root) - 1):
            # Not a manifest of `publish`, so delete everything below the path.
            self.delete(f"{path}/manifest.json")
            self._delete_all(path)
            return
        # `sweep` removes these files if this process is killed. Others stay: another run may be publishing here.
        record = f"{ASIDE}/{root.rstrip('/')}"
        self.write(record, f"{path}/{root}".encode())
        self.delete(f"{path}/manifest.json")
        self._delete_all(f"{path}/{root}")
        self.delete(record)

    def sweep(self) -> Sequence[str]:
        swept = []
        for info in self.list(ASIDE):
            name = info.path.rpartition("/")[2]
            if name.startswith(_ATTEMPT):
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
        """Whether the files below `root` are those of the artifact at `path`; True if the manifest is invalid."""
        try:
            manifest = json.loads(self.read(f"{path}/manifest.json"))
            return bool(manifest["root"] == root)
        except FileNotFoundError:
            return False
        except (ValueError, TypeError, KeyError):
            return True

    def _sweep_uploads(self) -> Sequence[str]:
        """Aborts abandoned multipart uploads, whose parts are invisible but billed."""
        swept = []
        for upload in list(self._uploads(_ARTIFACTS)):
            if _is_abandoned(upload.key, upload.started):
                self._abort(upload)
                swept.append(upload.key)
        return swept

    def _send_all(self, folder: Path, prefix: str) -> dict[str, Digests]:
        """Uploads the files of a folder; returns the expected digests by path."""
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

        with ThreadPoolExecutor(_PARALLEL_UPLOADS) as pool:
            return dict(sent for sent in pool.map(send, files) if sent is not None)

    def _confirm_all(self, prefix: str, sent: Mapping[str, Digests]) -> None:
        """Checks by one listing that all files are stored below `prefix`.

        Raises:
            WorkError: a file is missing or differs.
        """
        infos = {info.path: info for info in self.list(prefix)}
        for path, digests in sent.items():
            self._confirm(path, infos.get(path), digests)

    def _confirm(self, path: str, info: ObjectInfo | None, sent: Digests) -> None:
        """Checks that the stored object is the one that was sent.

        Raises:
            WorkError: it is missing or differs.
        """
        wrong = None
        if info is None:
            wrong = "it is not there"
        elif info.size != sent.size:
            wrong = f"it has {info.size} bytes there, not {sent.size}"
        elif info.etag.strip('"') != sent.etag and not self._has_bytes(path, sent):
            wrong = "it has other bytes there"
        if wrong is not None:
            raise WorkError(
                f"{self.url}/{path}: {endpoint()} answered that it is stored, but {wrong}; nothing was committed with "
                "it; check what is between here and the server (a proxy, a gateway), then run again"
            )

    def _has_bytes(self, path: str, sent: Digests) -> bool:
        """Whether an object with an ETag that is not its MD5 (e.g. in an encrypted bucket) has the sent bytes."""
        head = self._ask(
            path,
            lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path), ChecksumMode="ENABLED"),
        )
        if head.get("ChecksumSHA256") is not None:
            return bool(head["ChecksumSHA256"] == sent.checksum)
        # The server stores no checksum: read the object and hash it.
        return ranges_sha256(partial(self.read, path), sent.size) == sent.sha256

    def _put_if(self, path: str, data: bytes, **condition: str) -> bool:
        """A conditional put; True only if this call wrote the stored object."""
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
                    # boto3 may have sent the request twice; then the second failed because of the first.
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
                last_writer = self._written_by(path)
                if last_writer is None:
                    self._confirm(path, self.stat(path), digests)
                # If the response has the ETag of our bytes, they were stored; another writer has replaced them since.
                return True if last_writer == writer or answer["ETag"].strip('"') == digests.etag else None
            return True if self._written_by(path) == writer else None

        with request_time_limit():
            for attempt in range(TRIES):
                outcome = self._ask(path, put)
                if outcome is not None:
                    return outcome
                if time_limit_passed():
                    break
                time.sleep(0.2 * 2**attempt)
        raise explain(TimeoutError("no clear answer"), f"{self.url}/{path}", answered=True)

    def _written_by(self, path: str) -> str | None:
        try:
            head = self._ask(path, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(path)))
        except FileNotFoundError:
            return None
        return head["Metadata"].get(_WRITER)


def _is_abandoned(name: str, last_changed: float) -> bool:
    return is_left_over(name, last_changed) and time.time() - last_changed > _MIN_IDLE_S
