"""S3: a wrong key, bucket or address is one line, and a lost answer is looked up, never guessed."""

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from pipeline.errors import InputError, WorkError
from pipeline.storage import open_storage
from pipeline.storage.s3 import S3Storage


def refused(action, *, never):
    with pytest.raises(InputError) as caught:
        action()
    line = str(caught.value)
    assert "\n" not in line
    assert never not in line
    return line


def every_request(storage, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    return [
        storage.check_writable,
        lambda: storage.read("a"),
        lambda: storage.stat("a"),
        lambda: list(storage.list()),
        lambda: storage.write("a", b"x"),
        lambda: storage.create("a", b"x"),
        lambda: storage.replace("a", b"x", '"0"'),
        lambda: storage.upload(source, "a"),
        lambda: storage.download("a", tmp_path / "target"),
    ]


@pytest.mark.servers
def test_a_wrong_secret_is_one_line_from_every_request(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    for request in every_request(open_storage(s3_url), tmp_path):
        line = refused(request, never="a-wrong-secret")
        assert s3_url in line
        assert "AWS_ACCESS_KEY_ID" in line


@pytest.mark.servers
def test_an_unknown_key_is_one_line(s3_url, s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "refused the keys (InvalidAccessKeyId)" in refused(
        open_storage(s3_url).check_writable, never=s3_server.keys.secret
    )


@pytest.mark.servers
def test_no_keys_at_all_is_one_line(s3_url, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "no S3 keys; set AWS_ACCESS_KEY_ID" in refused(open_storage(s3_url).check_writable, never="hidden")


@pytest.mark.servers
def test_a_bucket_that_is_not_there_is_one_line(s3_url):
    storage = open_storage("s3://no-such-bucket/prefix")
    for request in (storage.check_writable, lambda: storage.read("a"), lambda: list(storage.list())):
        assert "there is no bucket 'no-such-bucket' at http://127.0.0.1" in refused(request, never="hidden")


@pytest.fixture
def nowhere(monkeypatch):
    """An address where nobody listens, and keys that nobody will see."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")


def test_an_endpoint_where_nobody_listens_is_one_line_from_every_request(nowhere, tmp_path):
    for request in every_request(open_storage("s3://bucket/prefix"), tmp_path):
        line = refused(request, never="hidden")
        assert "no answer from http://127.0.0.1:9" in line
        assert "AWS_ENDPOINT_URL" in line


def test_an_endpoint_that_answered_before_is_failed_work_not_wrong_input(nowhere):
    storage = open_storage("s3://bucket/prefix")
    storage._answered = True
    with pytest.raises(WorkError, match="it did answer before: run again"):
        storage.read("a")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3:bucket/prefix", "write s3://bucket/prefix"),
        ("gs://bucket", "unknown storage scheme 'gs'"),
        ("", "URL is empty"),
        ("s3://not_A_bucket!/x", "Invalid bucket name"),
    ],
)
def test_a_wrong_url_is_one_line(url, line, nowhere):
    assert line in refused(lambda: open_storage(url).read("a"), never="hidden")


def test_a_misshapen_endpoint_is_one_line(nowhere, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nowhere")
    assert "AWS_ENDPOINT_URL" in refused(lambda: open_storage("s3://bucket"), never="hidden")


class Interfering:
    """A real client whose conditional puts do their work and then lose the answer, or repeat it."""

    def __init__(self, client, fault):
        self._client, self._fault = client, fault

    def __getattr__(self, name):
        return getattr(self._client, name)

    def put_object(self, **request):
        fault, self._fault = self._fault, None
        if fault == "lost before":
            raise ReadTimeoutError(endpoint_url="here")
        answer = self._client.put_object(**request)
        if fault == "lost after":
            raise ReadTimeoutError(endpoint_url="here")
        if fault == "sent twice":
            return self._client.put_object(**request)
        if fault == "busy":
            about = {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
            raise ClientError(about, "PutObject")
        return answer


@pytest.mark.servers
@pytest.mark.parametrize("fault", ["lost before", "lost after", "sent twice", "busy"])
def test_a_conditional_put_whose_answer_is_lost_is_looked_up(s3_url, fault):
    sure = open_storage(s3_url)
    storage = S3Storage.from_url(s3_url)
    client = storage._client

    storage._client = Interfering(client, fault)
    assert storage.create("mine", b"x")
    storage._client = Interfering(client, fault)
    assert not storage.create("mine", b"x")

    sure.write("yours", b"y")
    storage._client = Interfering(client, "lost before")
    assert not storage.create("yours", b"y")
    assert sure.read("yours") == b"y"

    storage._client = Interfering(client, fault)
    assert storage.replace("mine", b"z", sure.stat("mine").etag)
    assert sure.read("mine") == b"z"


@pytest.mark.servers
def test_a_server_that_ignores_conditions_is_refused(s3_url):
    class Careless(Interfering):
        def put_object(self, **request):
            request.pop("IfNoneMatch")
            return self._client.put_object(**request)

    storage = S3Storage.from_url(s3_url)
    storage._client = Careless(storage._client, None)
    assert "ignores conditional writes" in refused(storage.check_writable, never="hidden")


@pytest.mark.servers
def test_an_upload_that_fails_leaves_no_attempt_behind_and_keeps_the_folder(s3_url, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(b"x")
    storage = S3Storage.from_url(s3_url)
    send = storage._send

    def fails_at_c(source, path):
        if source.name == "c":
            raise WorkError("the cable was pulled")
        return send(source, path)

    monkeypatch.setattr(storage, "_send", fails_at_c)
    with pytest.raises(WorkError, match="cable"):
        storage.publish(folder, "artifacts/s/k", {})
    assert list(storage.list()) == []
    assert len(list(folder.iterdir())) == 3
    monkeypatch.undo()


@pytest.mark.servers
def test_the_list_goes_on_after_a_page_of_a_thousand(s3_url):
    from concurrent.futures import ThreadPoolExecutor

    storage = open_storage(s3_url)
    names = [f"many/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.write(name, b""), names))
    assert [info.path for info in storage.list("many")] == names
