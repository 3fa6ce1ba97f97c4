"""Artifacts: whole or not there, found by key, and every changed byte is noticed."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.artifacts import ArtifactStore
from pipeline.errors import DamagedError, InputError, UnknownNameError
from pipeline.storage import open_storage


@pytest.fixture
def local_store(tmp_path):
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def s3_store(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ArtifactStore.open(s3_url)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.servers)])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def commit():
    def commit(store, key="0123abcd", files=None, **summary):
        folder = store.local / "out"
        for name, content in (files or {"a.bin": b"abc", "deep/b.bin": b"defg"}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        about = {"config": {"n": 1}, "inputs": {"x": "s/0"}, "seconds": 1.5, "origin": {"tutelage": "test"}}
        return store.commit("stage", key, folder, summary=summary, **about)

    return commit


def change(store, path, data):
    """Puts other bytes where an artifact's file lies, as a failing disk or a careless hand would."""
    store.storage.write(path, data)


def test_work_for_a_distant_store_lies_where_it_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    distant = ArtifactStore.open("s3://bucket/prefix")
    assert distant.work == distant.local / "work"
    assert distant.local.parent == tmp_path / "cache" / "tutelage"
    monkeypatch.setenv("TUTELAGE_WORK", str(tmp_path / "scratch"))
    elsewhere = ArtifactStore.open("s3://bucket/prefix")
    assert elsewhere.local == distant.local
    assert elsewhere.work.parent == tmp_path / "scratch"
    assert ArtifactStore.open("s3://bucket/other").work != elsewhere.work
    # A local store's is in the store, so that committing is a rename.
    here = ArtifactStore.open(str(tmp_path / "store"))
    assert here.work == tmp_path / "store" / "work"


def test_what_was_committed_is_found_whole(store, commit):
    made = commit(store, accuracy=0.5)
    found = store.find("stage/0123abcd")
    assert found == made
    assert not found.cached
    assert found.name == "stage/0123abcd"
    assert found.summary == {"accuracy": 0.5}
    assert found.config == {"n": 1}
    assert found.seconds == 1.5
    assert {name: entry.size for name, entry in found.files.items()} == {"a.bin": 3, "deep/b.bin": 4}
    assert found.read("a.bin") == b"abc"
    assert found.path("deep/b.bin").read_bytes() == b"defg"
    assert store.storage.read(found.object_path("deep/b.bin"), 1, 2) == b"ef"
    assert (found.folder() / "deep" / "b.bin").read_bytes() == b"defg"
    assert (found.folder("deep/") / "b.bin").read_bytes() == b"defg"
    assert found.verify() == []


def test_one_that_was_committed_is_got_or_missed_by_its_name(store, commit):
    made = commit(store)
    assert store.get(made.name) == made
    for gone in ("stage/ffff", "stage", ""):
        assert store.find(gone) is None
        with pytest.raises(DamagedError, match="was committed and is no longer in"):
            store.get(gone)


def test_a_folder_without_a_manifest_is_no_artifact(store):
    store.storage.write("artifacts/stage/k/a.bin", b"abc")
    assert store.find("stage/k") is None
    assert list(store.list()) == []


def test_a_removed_one_leaves_no_file_and_its_key_is_free_again(store, commit):
    artifact = commit(store)
    other = commit(store, key="4567")
    assert artifact.read("deep/b.bin") == b"defg"
    assert store.remove(artifact.name) > 7
    assert store.find(artifact.name) is None
    assert list(store.storage.list(f"artifacts/{artifact.name}")) == []
    assert not [path for path in store.local.rglob(f"{artifact.key}/*") if path.is_file()]
    assert other.verify() == []
    assert commit(store).verify() == []
    assert store.remove("stage/nowhere") == 0


@pytest.mark.servers
def test_a_removal_that_is_killed_leaves_what_the_sweep_removes(s3_store, commit, monkeypatch):
    artifact = commit(s3_store)
    storage = s3_store.storage

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "_delete_all", killed)
        with pytest.raises(KeyboardInterrupt):
            s3_store.remove(artifact.name)
    assert s3_store.find(artifact.name) is None
    assert len(list(storage.list("artifacts"))) == 2
    monkeypatch.setattr("pipeline.storage.s3._is_abandoned", lambda name, last_changed: True)
    storage.sweep()
    assert list(storage.list()) == []


def test_a_second_commit_of_a_key_gives_the_first_one_back(store, commit):
    first = commit(store, n=1)
    second = commit(store, n=2)
    assert second.manifest == first.manifest
    assert second.verify() == []


def test_the_list_is_by_stage_and_key(store, commit):
    for key in ("bb", "aa"):
        commit(store, key)
    assert [artifact.name for artifact in store.list()] == ["stage/aa", "stage/bb"]
    assert list(store.list("other")) == []


def test_a_beginning_of_a_key_names_its_artifact(store, commit):
    for key in ("aa11", "aa22", "bb33"):
        commit(store, key)
    assert store.resolve("stage/b").key == "bb33"
    assert store.resolve("stage/aa11").key == "aa11"
    assert store.resolve(store.resolve("stage/b").url).key == "bb33"
    with pytest.raises(InputError, match="stage/aa: names 2 artifacts"):
        store.resolve("stage/aa")
    with pytest.raises(UnknownNameError, match="did you mean stage/bb33"):
        store.resolve("stage/bb34")
    for nothing in ("stage", "stage/", "other/aa11"):
        with pytest.raises(UnknownNameError):
            store.resolve(nothing)


def test_an_unknown_file_is_answered_with_the_near_ones(store, commit):
    with pytest.raises(UnknownNameError, match=r"unknown file in artifact .* did you mean a\.bin"):
        commit(store).path("a.bni")


def test_verify_names_a_flipped_byte_and_a_missing_file(store, commit):
    artifact = commit(store)
    change(store, artifact.object_path("a.bin"), b"abd")
    store.storage.delete(artifact.object_path("deep/b.bin"))
    flipped, missing = artifact.verify()
    assert flipped.startswith("stage/0123abcd/a.bin: SHA-256 is")
    assert missing == "stage/0123abcd/deep/b.bin: missing"


def test_verify_names_a_file_that_grew_or_shrank(store, commit):
    artifact = commit(store)
    change(store, artifact.object_path("a.bin"), b"abcd")
    change(store, artifact.object_path("deep/b.bin"), b"def")
    assert len(artifact.verify()) == 2


def test_a_missing_file_is_damage(store, commit):
    artifact = commit(store)
    store.storage.delete(artifact.object_path("a.bin"))
    with pytest.raises(DamagedError, match=r"a\.bin: missing; delete this artifact"):
        artifact.read("a.bin")


def test_a_torn_manifest_is_damage(store, commit):
    commit(store)
    change(store, "artifacts/stage/0123abcd/manifest.json", b'{"format": 1, "sta')
    with pytest.raises(DamagedError, match="not a manifest"):
        store.find("stage/0123abcd")


def test_a_newer_format_is_refused(store, commit):
    commit(store)
    place = "artifacts/stage/0123abcd/manifest.json"
    change(store, place, json.dumps({**json.loads(store.storage.read(place)), "format": 99}).encode())
    with pytest.raises(InputError, match="has format 99, not 1; update Tutelage"):
        store.find("stage/0123abcd")


@pytest.mark.servers
def test_a_fetched_copy_is_checked(s3_store, commit):
    artifact = commit(s3_store)
    change(s3_store, artifact.object_path("a.bin"), b"abd")
    with pytest.raises(DamagedError, match=r"a\.bin: fetched bytes do not match the manifest"):
        artifact.path("a.bin")
    assert [path.name for path in s3_store.local.rglob("*") if path.is_file()] == []


@pytest.mark.servers
def test_a_file_is_fetched_once(s3_store, commit):
    artifact = commit(s3_store)
    path = artifact.path("a.bin")
    s3_store.storage.delete(artifact.object_path("a.bin"))
    assert artifact.path("a.bin") == path


def test_numpy_numbers_in_a_summary_are_plain_numbers(store, commit):
    summary = commit(store, accuracy=np.float32(0.5), count=np.int64(3)).summary
    assert summary == {"accuracy": 0.5, "count": 3}


def test_a_link_or_a_manifest_of_its_own_is_refused(local_store, commit, tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json cannot be part"):
        commit(local_store, files={"manifest.json": b"{}"})
    (local_store.local / "out" / "manifest.json").unlink()
    (local_store.local / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link cannot be part"):
        commit(local_store)


def test_the_remains_of_a_removed_artifact_do_not_block_a_new_one(local_store, commit):
    artifact = commit(local_store, n=1)
    local_store.storage.delete("artifacts/stage/0123abcd/manifest.json")
    assert artifact.path("a.bin").exists()
    assert commit(local_store, files={"c.bin": b"c"}, n=2).summary == {"n": 2}
    assert [info.path.rsplit("/", 1)[1] for info in local_store.storage.list("artifacts")] == ["c.bin", "manifest.json"]
    assert os.listdir(local_store.local / ".aside") in ([], ["lock"])


PUBLISH = """
import sys, time
from pathlib import Path
from pipeline.artifacts import ArtifactStore
url, me, begin = sys.argv[1:]
store = ArtifactStore.open(url)
folder = Path(me)
folder.mkdir()
(folder / "who").write_text(me)
time.sleep(max(0, float(begin) - time.time()))
artifact = store.commit("stage", "k", folder, config={}, inputs={}, summary={"who": me}, seconds=1, origin={})
assert artifact.read("who").decode() == artifact.summary["who"]
assert not folder.exists()
print(artifact.summary["who"])
"""


@pytest.mark.servers
def test_three_processes_that_commit_at_once_to_s3_end_with_one_artifact(s3_store, tmp_path):
    begin = str(time.time() + 3)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, s3_store.storage.url, f"{tmp_path}/writer-{number}", begin],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    winners = {writer.communicate(timeout=60)[0] for writer in writers}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(winners) == 1
    # The manifest, and the one file of the winner.
    assert len(list(s3_store.storage.list("artifacts"))) == 2
    assert s3_store.find("stage/k").verify() == []


def test_a_store_travels_by_its_url(store, commit):
    commit(store)
    again = ArtifactStore(open_storage(store.storage.url), store.local)
    assert again.find("stage/0123abcd").read("a.bin") == b"abc"


def flip(path, at=-1, *, keep_times=True):
    """Changes one bit, as a failing disk does; the times stay, as far as they can be set."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["model/model.safetensors", "index.arrow", "metrics.json", "ontology.npy"])
def test_a_flipped_bit_is_found_where_the_file_is_read(local_store, commit, name):
    artifact = commit(local_store, files={name: os.urandom(5000), "other": b"1"})
    read = artifact.path(name)
    assert artifact.read(name) == read.read_bytes()
    flip(read)
    for action in (lambda: artifact.read(name), lambda: artifact.path(name), artifact.folder):
        with pytest.raises(DamagedError, match=r"its bytes are not those that were committed; delete this artifact"):
            action()
    assert artifact.read("other") == b"1"


def test_a_file_that_is_longer_or_shorter_is_found(local_store, commit):
    artifact = commit(local_store, files={"a": b"12345", "b": b"12345"})
    artifact.path("a").write_bytes(b"123456")
    artifact.path("b").write_bytes(b"1234")
    for name in "ab":
        with pytest.raises(DamagedError, match="its bytes are not"):
            artifact.read(name)


def test_a_large_file_is_hashed_once_and_weights_in_every_process(local_store, commit, monkeypatch):
    from pipeline.storage import checked_files

    hashed = []
    real = checked_files.file_sha256
    monkeypatch.setattr(checked_files, "file_sha256", lambda path: hashed.append(path.name) or real(path))
    monkeypatch.setattr(checked_files, "_LARGE_FILE_BYTES", 1000)
    monkeypatch.setattr(checked_files, "_MIN_AGE_S", 0.0)
    files = {"columns.arrow": bytes(5000), "index.arrow": bytes(5000), "m.safetensors": bytes(5000), "small": b"1"}
    artifact = commit(local_store, files=files)

    def new_process():
        checked_files._verified.clear()
        hashed.clear()
        for _ in range(2):
            for name in files:
                artifact.path(name)
        return sorted(hashed)

    assert new_process() == sorted(files)
    assert new_process() == ["index.arrow", "m.safetensors", "small"]
    os.utime(artifact.path("columns.arrow"))
    assert "columns.arrow" in new_process()
    flip(artifact.path("columns.arrow"))
    with pytest.raises(DamagedError):
        new_process()


def test_a_store_that_cannot_be_written_is_read(local_store, commit, monkeypatch):
    from pipeline.storage import checked_files

    monkeypatch.setattr(checked_files, "_LARGE_FILE_BYTES", 0)
    monkeypatch.setattr(checked_files, "_MIN_AGE_S", 0.0)
    artifact = commit(local_store)
    (local_store.local / "checked").write_text("in the way")
    assert artifact.read("a.bin") == b"abc"


@pytest.mark.servers
def test_a_fetched_copy_that_a_disk_spoiled_is_fetched_again(s3_store, commit):
    artifact = commit(s3_store)
    kept = artifact.path("a.bin")
    flip(kept)
    assert artifact.read("a.bin") == b"abc"
    kept.write_bytes(b"")
    assert artifact.read("a.bin") == b"abc"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"format": "1"}',
        b'{"format": 1}',
        b'{"format": 1, "files": {"a": {}}, "summary": {}, "config": {}, "inputs": {}, "root": "", "seconds": 1}',
        b'{"format": 1, "files": [], "summary": {}, "config": {}, "inputs": {}, "root": "", "seconds": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_manifest_is_one_line(store, text):
    store.storage.write("artifacts/stage/k/manifest.json", text)
    with pytest.raises(DamagedError, match="not a manifest") as caught:
        store.find("stage/k")
    assert "\n" not in str(caught.value)
