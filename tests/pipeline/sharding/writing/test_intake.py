"""Every item becomes a row or a line in the quarantine, in the order of the source, whoever reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import WorkError
from pipeline.progress import silent
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.writing.captions import CaptionsConfig
from pipeline.sharding.writing.chunks import ChunkResult, Unreadable, read_table
from pipeline.sharding.writing.images import ImagesConfig
from pipeline.sharding.writing.intake import Intake, allowed_unreadable, run_intake, safe_key
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.tar_writer import _header

Picture = Callable[..., bytes]


def take(
    folder: Path,
    items: list[Item],
    *,
    share: float = 1.0,
    writers: int = 2,
    chunk_items: int | None = None,
    captions: CaptionsConfig | None = None,
) -> tuple[Scratch, list[ChunkResult]]:
    scratch = Scratch(folder)
    scratch.prepare()
    collection = Collection("test", lambda: iter(items), len(items), ("cat",))
    intake = Intake(
        scratch=scratch,
        labels={"cat": 0},
        images=ImagesConfig(),
        captions=captions or CaptionsConfig(),
        difference_hashes=False,
        split_by_image=False,
        seed=0,
        max_unreadable=allowed_unreadable(share, len(items)),
    )
    results = run_intake(
        collection, intake, runner="threads", writers=writers, progress=silent, chunk_items=chunk_items
    )
    return scratch, results


def items_of(reads: list[Callable[[], bytes]], **more: Any) -> list[Item]:
    return [Item(name=f"item-{number}", read=read, label="cat", **more) for number, read in enumerate(reads)]


def rows(scratch: Scratch, results: list[ChunkResult]) -> list[dict[str, Any]]:
    return [row for chunk in range(len(results)) for row in read_table(scratch, chunk).to_pylist()]


def images(scratch: Scratch, results: list[ChunkResult]) -> list[bytes]:
    found = []
    for chunk in range(len(results)):
        spool = scratch.spool(chunk).read_bytes()
        assert len(spool) == results[chunk].spool_bytes
        found += [spool[row["start"] :][: row["length"]] for row in read_table(scratch, chunk).to_pylist()]
    return found


@pytest.mark.parametrize(("writers", "chunk_items"), [(1, 7), (4, 7), (3, 40)])
def test_order_and_bytes_do_not_depend_on_writers_and_chunks(
    tmp_path: Path, picture: Picture, writers: int, chunk_items: int
) -> None:
    def slow(seed: int) -> Callable[[], bytes]:
        def read() -> bytes:
            time.sleep(0.002 * (seed % 3))
            return picture(seed)

        return read

    items = items_of([slow(seed) for seed in range(40)])
    scratch, results = take(tmp_path, items, writers=writers, chunk_items=chunk_items)
    assert len(results) == -(-40 // chunk_items)
    assert images(scratch, results) == [picture(seed) for seed in range(40)]
    assert not [one for chunk in results for one in chunk.unreadable]


def test_unreadable_items_are_quarantined_with_name_size_and_reason(tmp_path: Path, picture: Picture) -> None:
    def missing() -> bytes:
        return (tmp_path / "gone.png").read_bytes()

    reads = [lambda: picture(1), lambda: b"", missing, lambda: b"no image", lambda: picture(2)]
    scratch, results = take(tmp_path / "scratch", items_of(reads))
    assert images(scratch, results) == [picture(1), picture(2)]
    unreadable = results[0].unreadable
    assert [(one.name, one.bytes) for one in unreadable] == [("item-1", 0), ("item-2", 0), ("item-3", 8)]
    assert "No such file" in unreadable[1].reason
    assert isinstance(unreadable[0], Unreadable)


def test_a_caption_that_is_no_text_and_an_image_without_any_are_quarantined(tmp_path: Path, picture: Picture) -> None:
    latin = b"caf\xe9".decode("utf-8", "surrogateescape")
    items = [
        Item("good", lambda: picture(1), captions=("a  cat",)),
        Item("latin", lambda: picture(2), captions=(latin,)),
        Item("address", lambda: picture(3), captions=("https://a.b",)),
    ]
    scratch, results = take(tmp_path, items, captions=CaptionsConfig(mandatory=True))
    assert [row["captions"] for row in rows(scratch, results)] == [["a cat"]]
    reasons = {one.name: one.reason for one in results[0].unreadable}
    assert reasons == {
        "latin": "caption 1 is not UTF-8 (character 4 of 4)",
        "address": "no caption remains of 1",
    }
    assert results[0].counts["captions"] == {"cleaned": 1, "only addresses": 1}


def test_too_many_unreadable_stop_the_work_at_once(tmp_path: Path, picture: Picture) -> None:
    reads: list[Callable[[], bytes]] = [lambda: b""] * 3 + [lambda: picture(1)] * 500
    lock, calls = threading.Lock(), [0]

    def counted(read: Callable[[], bytes]) -> Callable[[], bytes]:
        def call() -> bytes:
            with lock:
                calls[0] += 1
            return read()

        return call

    with pytest.raises(WorkError, match=r"3 of the first 3 images are unreadable.*item-0: empty") as caught:
        take(tmp_path, items_of([counted(read) for read in reads]), share=2 / 503)
    assert "max_unreadable_share" in str(caught.value)
    assert calls[0] < 200


@pytest.mark.parametrize("count", [1, 29])
def test_few_unreadable_do_not_stop_the_work(tmp_path: Path, picture: Picture, count: int) -> None:
    reads: list[Callable[[], bytes]] = [lambda: b""] * count + [lambda: picture(1)] * (100 - count)
    _, results = take(tmp_path, items_of(reads), share=count / 100)
    assert sum(one.row_count for one in results) == 100 - count
    assert sum(len(one.unreadable) for one in results) == count


def test_a_chunk_that_is_there_is_not_read_again(tmp_path: Path, picture: Picture) -> None:
    calls: list[int] = []

    def reading(seed: int) -> Callable[[], bytes]:
        def read() -> bytes:
            calls.append(seed)
            return picture(seed)

        return read

    items = items_of([reading(seed) for seed in range(20)])
    scratch, results = take(tmp_path, items, chunk_items=5)
    scratch.table(1).unlink()
    scratch.spool(3).write_bytes(b"torn")
    (scratch.chunks / ".000002.spool.aside").write_bytes(b"left by a killed task")
    calls.clear()
    assert take(tmp_path, items, chunk_items=5)[1] == results
    assert sorted(calls) == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
    assert images(scratch, results) == [picture(seed) for seed in range(20)]
    assert not list(scratch.chunks.glob(".*"))
    calls.clear()
    take(tmp_path, [*items[1:], items[0]], chunk_items=5)
    assert len(calls) == 20, "other items are other chunks"


def test_a_defect_of_a_source_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        take(tmp_path, items_of([lambda: bytes(1 // 0)]))
    assert not list((tmp_path / "chunks").iterdir())


@pytest.mark.parametrize(
    "key",
    ["a.b", "dir/a", "grün", "x" * 300, "a b", "../../etc/passwd", "", ".", b"\xff".decode("utf-8", "surrogateescape")],
)
def test_any_key_becomes_one_that_tars_and_readers_take(key: str) -> None:
    safe = safe_key(key)
    assert "." not in safe
    assert "/" not in safe
    _header(f"{safe}-123456.webp", 1)
    assert safe_key(key + "?") != safe


def test_a_good_key_stays() -> None:
    assert safe_key("1F600-noto") == "1F600-noto"
