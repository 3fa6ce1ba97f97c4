"""What every storage promises, whether it is a folder or a bucket."""

import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import InputError
from pipeline.storage import open_storage


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.servers)])
def storage(request, tmp_path):
    if request.param == "local":
        return open_storage(str(tmp_path / "store"))
    return open_storage(request.getfixturevalue("s3_url"))


def files_of(folder, **contents):
    for name, content in contents.items():
        place = folder / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


def race(count, action):
    """What `action(i)` gives in `count` threads that begin together."""
    start = threading.Barrier(count)

    def run(number):
        start.wait()
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_what_was_written_is_read(storage):
    storage.check_writable()
    storage.write("a/b.bin", b"first")
    storage.write("a/b.bin", b"second")
    assert storage.read("a/b.bin") == b"second"
    info = storage.stat("a/b.bin")
    assert (info.path, info.size) == ("a/b.bin", 6)


def test_check_writable_leaves_nothing_behind(storage):
    storage.check_writable()
    assert list(storage.list()) == []


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (0, 1, b"0"), (8, 10, b"89"), (4, 0, b"")],
)
def test_a_range_is_read_as_from_a_file(storage, start, length, expected):
    storage.write("digits", b"0123456789")
    assert storage.read("digits", start, length) == expected


def test_beyond_the_end_there_are_no_bytes(storage):
    storage.write("digits", b"0123456789")
    storage.write("empty", b"")
    assert storage.read("digits", 10, 5) == b""
    assert storage.read("digits", 99) == b""
    assert storage.read("empty") == b""
    assert storage.read("empty", 0, 5) == b""


def test_what_is_not_there_is_not_found(storage, tmp_path):
    storage.write("folder/file", b"x")
    for path in ("nothing", "folder/nothing", "folder", "folder/file/below"):
        with pytest.raises(FileNotFoundError):
            storage.read(path)
        with pytest.raises(FileNotFoundError):
            storage.read(path, 0, 0)
        with pytest.raises(FileNotFoundError):
            storage.download(path, tmp_path / "target")
        assert storage.stat(path) is None
    assert not (tmp_path / "target").exists()
    storage.delete("nothing")


def test_a_deleted_object_is_gone(storage):
    storage.write("a", b"x")
    storage.delete("a")
    assert storage.stat("a") is None
    assert storage.create("a", b"y")


def test_the_list_has_what_is_below_the_folder_sorted_by_path(storage):
    names = ["a/2", "a/10", "a/b/c", "a-b/1", "ab/1", "z", "a/é", "a/B"]
    for name in names:
        storage.write(name, name.encode())
    assert [info.path for info in storage.list()] == sorted(names)
    assert [info.path for info in storage.list("a")] == sorted(name for name in names if name.startswith("a/"))
    assert [info.path for info in storage.list("a/")] == [info.path for info in storage.list("a")]
    assert [info.size for info in storage.list("a/b")] == [5]
    assert list(storage.list("nothing")) == []


def test_a_listed_object_is_the_one_that_stat_gives(storage):
    storage.write("a/b", b"x")
    assert list(storage.list("a")) == [storage.stat("a/b")]


def test_create_makes_an_object_only_once(storage):
    assert storage.create("claim", b"mine")
    assert not storage.create("claim", b"yours")
    assert not storage.create("claim", b"mine")
    assert storage.read("claim") == b"mine"


def test_of_racing_creates_one_wins(storage):
    for turn in range(3):
        won = race(3, lambda number, turn=turn: storage.create(f"claim-{turn}", str(number).encode()))
        assert won.count(True) == 1
        assert storage.read(f"claim-{turn}") == str(won.index(True)).encode()


def test_replace_needs_the_current_etag(storage):
    storage.write("state", b"1")
    before = storage.stat("state").etag
    assert storage.replace("state", b"2", before)
    assert not storage.replace("state", b"3", before)
    assert storage.read("state") == b"2"
    assert not storage.replace("nothing", b"1", before)
    assert storage.stat("nothing") is None


def test_no_increment_is_lost_between_racing_replaces(storage):
    storage.write("count", b"0")

    def increment(_):
        while True:
            seen = storage.stat("count")
            value = int(storage.read("count"))
            # Read after stat: the etag may be older than the value, then the replace is refused.
            if storage.replace("count", str(value + 1).encode(), seen.etag):
                return

    race(3, lambda number: [increment(number) for _ in range(2)])
    assert storage.read("count") == b"6"


def test_a_large_file_goes_up_and_comes_down_unchanged(storage, tmp_path):
    # 40 MiB: above the size from which S3 uploads go in parts.
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    block = os.urandom(1 << 20)
    with source.open("wb") as file:
        for number in range(40):
            file.write(block[number:] + block[:number])
    storage.upload(source, "large")
    assert storage.stat("large").size == 40 << 20
    assert storage.read("large", (17 << 20) - 3, 6) == (block[16:] + block[:16])[-3:] + (block[17:] + block[:17])[:3]
    storage.download("large", target)
    assert target.read_bytes() == source.read_bytes()
    assert os.listdir(target.parent) == ["target"]
    assert source.exists()


def test_a_published_folder_is_there_with_its_manifest(storage, tmp_path):
    folder = files_of(tmp_path / "out", a=b"1", deep__b=b"22")
    if storage.local_path("") is not None:
        folder = shutil.move(folder, storage.local_path("") / "out")
    assert storage.publish(folder, "artifacts/s/k", {"stage": "s"})
    assert not folder.exists()
    import json

    manifest = json.loads(storage.read("artifacts/s/k/manifest.json"))
    assert manifest["stage"] == "s"
    assert storage.read(f"artifacts/s/k/{manifest['root']}a") == b"1"
    assert storage.read(f"artifacts/s/k/{manifest['root']}deep/b") == b"22"


def test_of_racing_publishes_one_wins_and_no_file_of_the_others_stays(storage, tmp_path):
    base = storage.local_path("") or tmp_path
    folders = [files_of(base / f"out-{number}", value=str(number).encode() * 4) for number in range(3)]
    won = race(3, lambda number: storage.publish(folders[number], "artifacts/s/k", {"number": number}))
    assert won.count(True) == 1
    import json

    manifest = json.loads(storage.read("artifacts/s/k/manifest.json"))
    assert manifest["number"] == won.index(True)
    assert storage.read(f"artifacts/s/k/{manifest['root']}value") == str(won.index(True)).encode() * 4
    assert len(list(storage.list("artifacts"))) == 2
    assert not any(folder.exists() for folder in folders)


def test_a_published_place_is_never_changed(storage, tmp_path):
    base = storage.local_path("") or tmp_path
    assert storage.publish(files_of(base / "one", a=b"1"), "artifacts/s/k", {"n": 1})
    before = [(info.path, info.etag) for info in storage.list()]
    assert not storage.publish(files_of(base / "two", a=b"2"), "artifacts/s/k", {"n": 2})
    assert [(info.path, info.etag) for info in storage.list()] == before


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc/passwd"])
def test_a_path_cannot_leave_the_storage(storage, path):
    with pytest.raises(InputError, match="leaves the storage"):
        storage.write(path, b"x")


def test_a_storage_travels_to_another_process(storage):
    storage.write("a", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"x"


def test_its_url_opens_it_again(storage):
    storage.write("a", b"x")
    assert open_storage(storage.url).read("a") == b"x"
