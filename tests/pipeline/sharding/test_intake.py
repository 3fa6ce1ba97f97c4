"""What is an image is stored, as it is if the loader can read it; what is not is told with its reason."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import WorkError
from pipeline.progress import silent
from pipeline.sharding.intake import Encoded, Intaken, Spool, Unreadable, UnreadableError, storable, take_in
from pipeline.sharding.sources.base import Collection, Item

Picture = Callable[..., bytes]


def pixels(stored: Encoded) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored.data)))


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_the_loader_reads_is_stored_byte_for_byte(picture: Picture, kind: str, extension: str, mode: str) -> None:
    data = picture(1, kind, mode)
    stored = storable(data)
    if not (kind == "WEBP" and mode == "L"):
        assert stored.data == data
    assert (stored.extension, stored.width, stored.height) == (extension, 12, 10)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "CMYK")],
)
def test_other_forms_become_plain_png(picture: Picture, kind: str, mode: str) -> None:
    stored = storable(picture(1, kind, mode))
    image = Image.open(io.BytesIO(stored.data))
    assert (image.format, stored.extension) == ("PNG", "png")
    assert image.mode in ("RGB", "L")
    assert image.size == (12, 10)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert pixels(storable(buffer.getvalue())).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_sixteen_bits_become_eight() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)).save(buffer, "PNG")
    assert pixels(storable(buffer.getvalue())).tolist() == [[0, 128, 255]]


def test_a_photo_turned_by_its_exif_is_stored_upright(picture: Picture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(1))).save(buffer, "JPEG", exif=exif, quality=95)
    stored = storable(buffer.getvalue())
    assert (stored.extension, stored.width, stored.height) == ("jpg", 10, 12)
    assert Image.open(io.BytesIO(stored.data)).getexif().get(0x0112, 1) == 1


def test_a_cmyk_photo_becomes_rgb(picture: Picture) -> None:
    stored = storable(picture(1, "JPEG", "CMYK"))
    assert Image.open(io.BytesIO(stored.data)).mode == "RGB"


def test_of_an_animation_the_first_frame_is_kept(picture: Picture) -> None:
    frames = [Image.open(io.BytesIO(picture(seed))) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    stored = storable(buffer.getvalue())
    assert stored.extension == "png"
    assert (pixels(stored) == np.asarray(frames[0])).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_unreadable(picture: Picture, kind: str) -> None:
    data = picture(1, kind, size=(80, 60))
    for share in (0.2, 0.6, 0.95):
        with pytest.raises(UnreadableError) as caught:
            storable(data[: int(len(data) * share)])
        assert "\n" not in str(caught.value)
        assert str(caught.value)


def test_reasons_are_told() -> None:
    with pytest.raises(UnreadableError, match=r"empty \(0 bytes\)"):
        storable(b"")
    with pytest.raises(UnreadableError, match="not an image"):
        storable(b"<html>404</html>")


def test_random_damage_never_raises_anything_else(picture: Picture) -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"):
        whole = picture(3, kind, size=(40, 30))
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(0, 256)
            with contextlib.suppress(UnreadableError):
                storable(bytes(data))


def take(tmp_path: Path, reads: list[Callable[[], bytes]], share: float = 1.0, threads: int = 2):  # type: ignore[no-untyped-def]
    items = [Item(name=f"item-{number}", read=read, label="cat") for number, read in enumerate(reads)]
    collection = Collection("test", lambda: iter(items), len(items), ("cat",))
    spool = Spool(tmp_path / "spool")
    taken, unreadable = take_in(collection, spool, threads=threads, max_unreadable_share=share, progress=silent)
    return spool, taken, unreadable


def test_order_and_bytes_do_not_depend_on_threads(tmp_path: Path, picture: Picture) -> None:
    def slow(seed: int) -> Callable[[], bytes]:
        def read() -> bytes:
            time.sleep(0.002 * (seed % 3))
            return picture(seed)

        return read

    for threads in (1, 4):
        spool, taken, unreadable = take(tmp_path, [slow(seed) for seed in range(40)], threads=threads)
        assert [one.item.name for one in taken] == [f"item-{number}" for number in range(40)]
        assert [spool.read(one.start, one.length) for one in taken] == [picture(seed) for seed in range(40)]
        assert unreadable == []
        spool.close()
        assert not (tmp_path / "spool").exists()


def test_unreadable_items_are_quarantined_with_name_size_and_reason(tmp_path: Path, picture: Picture) -> None:
    def missing() -> bytes:
        return (tmp_path / "gone.png").read_bytes()

    _, taken, unreadable = take(
        tmp_path, [lambda: picture(1), lambda: b"", missing, lambda: b"no image", lambda: picture(2)]
    )
    assert [one.item.name for one in taken] == ["item-0", "item-4"]
    assert [(one.name, one.bytes) for one in unreadable] == [("item-1", 0), ("item-2", 0), ("item-3", 8)]
    assert "No such file" in unreadable[1].reason
    assert isinstance(taken[0], Intaken)
    assert isinstance(unreadable[0], Unreadable)


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
        take(tmp_path, [counted(read) for read in reads], share=2 / 503)
    assert "max_unreadable_share" in str(caught.value)
    assert calls[0] < 100


@pytest.mark.parametrize("count", [1, 29])
def test_few_unreadable_do_not_stop_the_work(tmp_path: Path, picture: Picture, count: int) -> None:
    reads: list[Callable[[], bytes]] = [lambda: b""] * count + [lambda: picture(1)] * (100 - count)
    _, taken, unreadable = take(tmp_path, reads, share=count / 100)
    assert (len(taken), len(unreadable)) == (100 - count, count)
