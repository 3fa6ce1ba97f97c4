"""S3: an answer is believed only if it is one, and one that never comes is waited for two minutes at most."""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.storage import open_storage, s3_client
from pipeline.storage.s3 import S3Storage
from pipeline.storage.s3_digests import Digests


@pytest.fixture
def small_parts(monkeypatch):
    """Uploads go in parts from 6 MiB on (5 MiB is S3's smallest part)."""
    from boto3.s3.transfer import TransferConfig

    transfer = TransferConfig(multipart_threshold=6 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    for name, value in (("TRANSFER", transfer), ("MULTIPART_THRESHOLD", 6 << 20), ("PART_BYTES", 5 << 20)):
        monkeypatch.setattr(f"pipeline.storage.s3_objects.{name}", value)


def folder_of(tmp_path, **files):
    folder = tmp_path / "out"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def one_line(action, error=TutelageError):
    with pytest.raises(error) as caught:
        action()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


LIES = ("page", "page with etag", "nothing", "json", "stored")


@pytest.mark.servers
def test_a_put_that_was_not_done_is_no_part_of_a_committed_artifact(gateway, s3_url, tmp_path):
    storage = open_storage(s3_url)
    store = ArtifactStore(storage, tmp_path / "local")
    about = {"config": {}, "inputs": {}, "summary": {}, "seconds": 1.0, "origin": {}}
    folder = folder_of(tmp_path, **{f"train-00000{n}.tar": os.urandom(1000 + n) for n in range(4)})
    for fake in LIES:
        gateway.sent.clear()
        gateway.fakes = lambda method, path, fake=fake: (
            fake if method == "PUT" and path.endswith("/train-000001.tar") else None
        )
        line = one_line(lambda: store.commit("s", "k", folder, **about), WorkError)
        assert "train-000001.tar" in line
        assert gateway.sent == [fake]
        assert store.find("s/k") is None
        assert list(storage.list()) == []
    gateway.fakes = lambda method, path: None
    assert store.commit("s", "k", folder, **about).verify() == []


@pytest.mark.servers
def test_an_upload_in_parts_counts_only_if_every_request_was_done(gateway, s3_url, tmp_path, small_parts):
    requests = {
        "begin": lambda method, query: method == "POST" and query.startswith("uploads"),
        "part": lambda method, query: method == "PUT" and "partNumber=2" in query,
        "end": lambda method, query: method == "POST" and "uploadId=" in query,
    }
    storage = open_storage(s3_url)
    folder = folder_of(tmp_path, large=os.urandom(11 << 20))
    for (name, is_it), fake in itertools.product(requests.items(), LIES):
        gateway.sent.clear()
        gateway.fakes = lambda method, path, fake=fake, is_it=is_it: (
            fake if is_it(method, path.partition("?")[2]) else None
        )
        line = one_line(lambda: storage.publish(folder, "artifacts/s/k", {}))
        assert "/large: " in line, (name, fake)
        assert gateway.sent[0] == fake
        gateway.fakes = lambda method, path: None
        assert list(storage.list()) == [], (name, fake)
    assert storage.publish(folder, "artifacts/s/k", {})


@pytest.mark.servers
def test_a_conditional_put_that_was_not_done_is_not_won(gateway, s3_url):
    storage = open_storage(s3_url)
    storage.write("state", b"1")
    etag = storage.stat("state").etag
    for fake in LIES:
        gateway.fakes = lambda method, path, fake=fake: fake if method == "PUT" else None
        one_line(lambda: storage.create("claim", b"mine"), WorkError)
        one_line(lambda: storage.replace("state", b"2", etag), WorkError)
        one_line(lambda: storage.write("state", b"22"), WorkError)
        gateway.fakes = lambda method, path: None
        assert storage.stat("claim") is None
        assert storage.read("state") == b"1"
    assert storage.create("claim", b"mine")


@pytest.mark.servers
def test_a_page_is_no_object_no_listing_and_no_size(gateway, s3_url, tmp_path):
    storage = open_storage(s3_url)
    storage.write("a/b", b"x" * 100)
    requests = (
        lambda: storage.read("a/b"),
        lambda: storage.read("a/b", 3, 4),
        lambda: storage.stat("a/b"),
        lambda: list(storage.list()),
        lambda: storage.download("a/b", tmp_path / "target"),
    )
    for fake, request in itertools.product(("page", "page with etag", "nothing", "json"), requests):
        gateway.fakes = lambda method, path, fake=fake: fake
        line = one_line(request, WorkError)
        assert "did not answer as an S3 server" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.servers
def test_an_upload_outside_an_artifact_is_looked_at_too(gateway, s3_url, tmp_path, small_parts):
    storage = open_storage(s3_url)
    (tmp_path / "small").write_bytes(b"checkpoint")
    (tmp_path / "large").write_bytes(os.urandom(7 << 20))
    for name in ("small", "large"):
        storage.upload(tmp_path / name, name)
        assert storage.read(name) == (tmp_path / name).read_bytes()
    gateway.fakes = lambda method, path: "stored" if method == "PUT" else None
    assert "small: " in one_line(lambda: storage.upload(tmp_path / "small", "new/small"), WorkError)


@pytest.mark.servers
def test_an_encrypted_buckets_etag_is_looked_behind(s3_url, tmp_path, small_parts, monkeypatch):
    """There an ETag is not made of the bytes: the SHA-256 that the server keeps decides, or the bytes themselves."""
    storage = S3Storage.from_url(s3_url)
    for name, size in (("small", 1000), ("large", 11 << 20)):
        (tmp_path / name).write_bytes(os.urandom(size))
        storage.upload(tmp_path / name, name)
        digests = Digests.of_file(tmp_path / name, multipart_threshold=6 << 20, part_bytes=5 << 20)
        assert storage._has_bytes(name, digests)
        other = Digests.of_bytes(os.urandom(size))
        assert not storage._has_bytes(name, other)
        with monkeypatch.context() as without:
            head = storage._client.head_object

            def plain(head=head, **request):
                answer = head(**request)
                answer.pop("ChecksumSHA256", None)
                return answer

            without.setattr(storage._client, "head_object", plain)
            assert storage._has_bytes(name, digests)
            assert not storage._has_bytes(name, other)


def every_request(url, tmp_path):
    (tmp_path / "source").write_bytes(b"x")
    (tmp_path / "large").write_bytes(bytes(40 << 20))
    folder = folder_of(tmp_path, **{f"file-{n}": b"x" for n in range(9)})
    storage = open_storage(url)
    return {
        "check": lambda: storage.check_writable(),
        "read": lambda: storage.read("a"),
        "stat": lambda: storage.stat("a"),
        "list": lambda: list(storage.list()),
        "write": lambda: storage.write("a", b"x"),
        "create": lambda: storage.create("a", b"x"),
        "replace": lambda: storage.replace("a", b"x", '"0"'),
        "delete": lambda: storage.delete("a"),
        "upload": lambda: storage.upload(tmp_path / "source", "a"),
        "upload in parts": lambda: storage.upload(tmp_path / "large", "a"),
        "download": lambda: storage.download("a", tmp_path / "target"),
        "publish": lambda: storage.publish(folder, "artifacts/s/k", {}),
        "send all": lambda: storage._send_all(folder, "artifacts/s/k/attempt"),
    }


def seconds_of(action):
    started = time.monotonic()
    line = one_line(action, InputError)
    assert "no answer from" in line
    return time.monotonic() - started


def test_an_endpoint_that_never_answers_is_one_line_from_every_request(silent_endpoint, tmp_path, monkeypatch):
    # A hundredth of the true waiting; what boto3 waits between two tries (3 s at most) stays.
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", s3_client.READ_TIMEOUT_S / 100)
    monkeypatch.setattr(s3_client, "REQUEST_TIME_LIMIT_S", s3_client.REQUEST_TIME_LIMIT_S / 100)
    requests = every_request("s3://bucket/prefix", tmp_path)
    with ThreadPoolExecutor(len(requests)) as pool:
        took = dict(zip(requests, pool.map(seconds_of, requests.values()), strict=True))
    assert max(took.values()) < 8, took


@pytest.mark.heavy
def test_an_endpoint_that_never_answers_is_given_up_within_two_minutes(silent_endpoint, tmp_path):
    requests = every_request("s3://bucket/prefix", tmp_path)
    with ThreadPoolExecutor(len(requests)) as pool:
        took = dict(zip(requests, pool.map(seconds_of, requests.values()), strict=True))
    assert max(took.values()) < 110, took


@pytest.mark.servers
@pytest.mark.parametrize("silent", ["PUT", "HEAD", "GET", "POST", "DELETE"])
def test_a_server_that_falls_silent_is_failed_work(gateway, s3_url, tmp_path, monkeypatch, silent):
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(s3_client, "REQUEST_TIME_LIMIT_S", 0.5)
    storage = open_storage(s3_url)
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 20.0)
    open_storage(s3_url).write("a", b"x")
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")
    gateway.fakes = lambda method, path: "silence" if method == silent else None
    (tmp_path / "large").write_bytes(bytes(40 << 20))
    requests = {
        "PUT": lambda: storage.create("b", b"x"),
        "HEAD": lambda: storage.create("b", b"x"),
        "GET": lambda: storage.download("a", tmp_path / "target"),
        "POST": lambda: storage.upload(tmp_path / "large", "large"),
        "DELETE": storage.check_writable,
    }
    started = time.monotonic()
    assert "it did answer before" in one_line(requests[silent], WorkError)
    assert time.monotonic() - started < 10


class Stranger(BaseHTTPRequestHandler):
    """A web server that is no S3 server: it answers as the test says."""

    protocol_version = "HTTP/1.1"
    status, kind, body = 200, "text/html", b"<html><body>Welcome!</body></html>"

    def serve(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = serve


STRANGERS = [
    (200, "text/html", b"<!doctype html><p>Welcome<br>to nginx"),
    (200, "text/html", b"<html><body>Welcome!</body></html>"),
    (200, "application/json", b'{"status": "OK"}'),
    (200, "text/plain", b"OK"),
    (200, "text/plain", b""),
    (200, "application/xml", b"<?xml version='1.0'?><feed></feed>"),
    (404, "text/html", b"<html><body>404 Not Found</body></html>"),
    (404, "application/json", b'{"detail": "Not Found"}'),
    (404, "text/plain", b"404 page not found"),
    (405, "application/json", b'{"detail": "Method Not Allowed"}'),
    (501, "text/html", b"<p>Unsupported method"),
]


@pytest.fixture
def stranger(serving):
    with serving(Stranger) as address:
        yield address


def test_a_server_that_is_not_s3_is_one_line(monkeypatch, stranger):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{stranger}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    storage = open_storage("s3://bucket/prefix")
    requests = (
        storage.check_writable,
        lambda: list(storage.list()),
        lambda: storage.read("a"),
        lambda: storage.write("a", b"x"),
    )
    for answer, request in itertools.product(STRANGERS, requests):
        # The class that serves is derived from this one.
        Stranger.status, Stranger.kind, Stranger.body = answer
        line = one_line(request, InputError)
        assert f"http://{stranger} is not an S3 server" in line, answer
        assert "set AWS_ENDPOINT_URL" in line
