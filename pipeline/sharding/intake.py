"""Intake: reads every item of a source, keeps what is an image, puts the rest in quarantine with its reason.

Images are read and checked in threads, a bounded number at a time, and come out in the order of the
source. What the loader can read stays as it is, byte for byte; what it cannot (alpha, palettes,
CMYK, 16 bit, turned by EXIF, animated, BMP, TIFF, GIF) becomes an upright RGB or grey PNG or JPEG.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import WorkError
from pipeline.progress import Progress
from pipeline.sharding.index import content_hash
from pipeline.sharding.sources.base import Collection, Item

_EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_EXIF_ORIENTATION = 0x0112
_IN_FLIGHT_PER_THREAD = 8


@dataclass(frozen=True, slots=True)
class Intaken:
    """An item that is an image, and where its bytes wait: [start, start + length) of the spool.

    Attributes:
        extension: "png", "jpg" or "webp".
        content_hash: of the bytes as they will be stored.
    """

    item: Item
    extension: str
    start: int
    length: int
    width: int
    height: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that is not an image, and why."""

    name: str
    label: str | None
    source: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image's bytes as they are stored."""

    data: bytes
    extension: str
    width: int
    height: int


class UnreadableError(Exception):
    """Bytes that are not an image that we can store; its text is the reason."""

    def __init__(self, reason: str, size: int) -> None:
        super().__init__(reason)
        self.size = size


class Spool:
    """A file that keeps encoded images between the intake and the shards.

    The split is known only when every image has been read, and drawing an image twice would cost more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("w+b")
        self._size = 0

    def append(self, data: bytes) -> int:
        """Adds bytes at the end; where they start."""
        start = self._size
        self._file.write(data)
        self._size += len(data)
        return start

    def read(self, start: int, length: int) -> bytes:
        """Bytes added before."""
        self._file.seek(start)
        return self._file.read(length)

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def take_in(
    collection: Collection,
    spool: Spool,
    *,
    threads: int,
    max_unreadable_share: float,
    progress: Progress,
) -> tuple[list[Intaken], list[Unreadable]]:
    """Reads all items into the spool.

    Raises:
        WorkError: more than `max_unreadable_share` of the items are unreadable; the line names the first ones.
    """
    taken: list[Intaken] = []
    unreadable: list[Unreadable] = []
    with closing(_in_threads(_read, collection.items(), threads)) as results:
        for done, (item, result) in enumerate(results, start=1):
            if isinstance(result, UnreadableError):
                unreadable.append(Unreadable(item.name, item.label, item.source, result.size, str(result)))
                # The small term: 29 of 100 are not more than 0.29, though 0.29 * 100 is 28.999999999999996.
                if len(unreadable) > max_unreadable_share * collection.total + 1e-6:
                    raise _too_many(unreadable, done, collection.total, max_unreadable_share)
            else:
                start = spool.append(result.data)
                taken.append(
                    Intaken(
                        item,
                        result.extension,
                        start,
                        len(result.data),
                        result.width,
                        result.height,
                        content_hash(result.data),
                    )
                )
            if done % 64 == 0 or done == collection.total:
                progress(step=done, total=collection.total, note="reading images")
    return taken, unreadable


def storable(data: bytes) -> Encoded:
    """The bytes as they are stored: unchanged if the loader can read them, else encoded anew.

    Raises:
        UnreadableError: they are not a whole image.
    """
    if not data:
        raise UnreadableError("empty (0 bytes)", 0)
    try:
        with warnings.catch_warnings():
            # A picture of more pixels than Pillow likes is an error, not a line on the terminal.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return _encoded(image, data)
    except UnidentifiedImageError:
        raise UnreadableError(f"not an image ({len(data)} bytes, starts with {data[:8]!r})", len(data)) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        raise UnreadableError(_first_line(error), len(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(_first_line(error), len(data)) from None


def _encoded(image: Image.Image, data: bytes) -> Encoded:
    kind = image.format or ""
    upright = image.getexif().get(_EXIF_ORIENTATION, 1) == 1
    still = getattr(image, "n_frames", 1) == 1
    if kind in _EXTENSIONS and image.mode in ("RGB", "L") and upright and still:
        return Encoded(data, _EXTENSIONS[kind], image.width, image.height)
    pixels = _plain(ImageOps.exif_transpose(image))
    buffer = io.BytesIO()
    lossy = kind in ("JPEG", "MPO")
    if lossy:
        pixels.save(buffer, "JPEG", quality=95)
    else:
        pixels.save(buffer, "PNG", compress_level=1)
    return Encoded(buffer.getvalue(), "jpg" if lossy else "png", pixels.width, pixels.height)


def _plain(image: Image.Image) -> Image.Image:
    """RGB or 8-bit grey, flattened on white."""
    if image.mode.startswith("I") or image.mode == "F":
        low, high = (float(bound) for bound in image.getextrema())  # type: ignore[arg-type]
        high = 65535.0 if image.mode.startswith("I") and low >= 0 and high > 255 else max(high, 255.0)
        return image.convert("F").point(lambda value: value * (255.0 / high)).convert("L")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        flat = Image.new("RGB", pixels.size, "white")
        flat.paste(pixels, mask=pixels.getchannel("A"))
        return flat
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _read(item: Item) -> Encoded | UnreadableError:
    try:
        data = item.read()
    except OSError as error:
        return UnreadableError(f"cannot be read ({error.strerror or error})", 0)
    except ValueError as error:
        return UnreadableError(f"cannot be drawn ({_first_line(error)})", 0)
    try:
        return storable(data)
    except UnreadableError as error:
        return error


def _in_threads(
    work: Callable[[Item], Encoded | UnreadableError], items: Iterator[Item], threads: int
) -> Generator[tuple[Item, Encoded | UnreadableError]]:
    """Results in the order of the items, with a bounded number of them in memory."""
    waiting: deque[tuple[Item, Future[Encoded | UnreadableError]]] = deque()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="intake")
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= threads * _IN_FLIGHT_PER_THREAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _too_many(unreadable: list[Unreadable], done: int, total: int, allowed: float) -> WorkError:
    first = "; ".join(f"{one.name}: {one.reason}" for one in unreadable[:3])
    more = "; ..." if len(unreadable) > 3 else ""
    return WorkError(
        f"{len(unreadable)} of the first {done} images are unreadable, more than max_unreadable_share={allowed:g} "
        f"of {total} allows ({first}{more}); mend or remove them, or raise max_unreadable_share"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "the file", line)
