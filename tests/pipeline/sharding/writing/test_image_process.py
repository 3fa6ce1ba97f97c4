"""An image that ends its decoder costs itself and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest

from pipeline.errors import WorkError
from pipeline.sharding.writing import image_process
from pipeline.sharding.writing.image_process import prepare_image_in_subprocess
from pipeline.sharding.writing.images import ImagesConfig, UnreadableError, prepare_image

Picture = Callable[..., bytes]
CONFIG = ImagesConfig()

# Python imports this module at the start of every process that finds it: the decoder gets a fault.
FAULTY_DECODER = """
import os, signal, time
from pathlib import Path
from PIL import ImageFile

load = ImageFile.ImageFile.load

def faulty(self):
    data = self.fp.getvalue() if hasattr(self.fp, "getvalue") else b""
    for name in ("SIGSEGV", "SIGABRT", "SIGKILL"):
        if b"ends with " + name.encode() in data:
            os.kill(os.getpid(), getattr(signal, name))
    if b"ends once" in data and not (marker := Path(os.environ["FAULT_MARKER"])).exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if b"never ends" in data:
        time.sleep(600)
    return load(self)

ImageFile.ImageFile.load = faulty
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULTY_DECODER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FAULT_MARKER", str(tmp_path / "marker"))
    monkeypatch.setattr(image_process, "_pool", image_process._Pool())


def test_the_answer_is_that_of_this_process(picture: Picture) -> None:
    for data in (picture(1), picture(2, "JPEG"), picture(3, "PNG", "RGBA"), picture(4, "GIF", "P")):
        for look in (False, True):
            assert prepare_image_in_subprocess(data, CONFIG, with_difference_hash=look) == prepare_image(
                data, with_difference_hash=look
            )
    for data in (b"", b"no image", picture(1, "PNG")[:60]):
        with pytest.raises(UnreadableError) as here:
            prepare_image(data)
        with pytest.raises(UnreadableError) as there:
            prepare_image_in_subprocess(data, CONFIG, with_difference_hash=False)
        assert (str(there.value), there.value.size, there.value.fault) == (
            str(here.value),
            here.value.size,
            here.value.fault,
        )


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("fault", ["SIGSEGV", "SIGABRT"])
def test_an_image_that_ends_its_decoder_is_unreadable(picture: Picture, fault: str) -> None:
    with pytest.raises(UnreadableError, match=rf"^crashes its decoder \({fault}\)$"):
        prepare_image_in_subprocess(
            picture(1, "PNG", "RGBA") + b"ends with " + fault.encode(), CONFIG, with_difference_hash=False
        )
    assert prepare_image_in_subprocess(picture(1), CONFIG, with_difference_hash=False).width == 12


@pytest.mark.usefixtures("faulty")
def test_a_process_that_somebody_ended_is_started_again_once(picture: Picture) -> None:
    assert (
        prepare_image_in_subprocess(picture(1, "PNG", "RGBA") + b"ends once", CONFIG, with_difference_hash=False).width
        == 12
    )
    with pytest.raises(WorkError, match=r"killed twice \(exit code -9\); if memory is short"):
        prepare_image_in_subprocess(
            picture(1, "PNG", "RGBA") + b"ends with SIGKILL", CONFIG, with_difference_hash=False
        )


def test_a_process_that_is_ended_in_the_middle_of_an_answer_has_ended() -> None:
    process = image_process._Process()
    process._process.kill()
    ours, theirs = Pipe()
    with socket.socket(fileno=os.dup(theirs.fileno())) as half:
        half.send(struct.pack("!i", 100) + b"the first bytes")
        half.shutdown(socket.SHUT_WR)
        process._connection = ours
        with pytest.raises(image_process._ProcessEndedError):
            process.prepare(b"", CONFIG, False)
    theirs.close()


@pytest.mark.usefixtures("faulty")
def test_an_image_that_occupies_its_decoder_is_unreadable(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_image_in_subprocess(picture(1), CONFIG, with_difference_hash=False)
    monkeypatch.setattr(image_process, "_DECODE_TIMEOUT_S", 0.5)
    with pytest.raises(UnreadableError, match=r"is not decoded within 0\.5 s"):
        prepare_image_in_subprocess(picture(1, "PNG", "RGBA") + b"never ends", CONFIG, with_difference_hash=False)


def test_no_process_outlives_the_one_that_started_it(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(picture(1))
    code = (
        "import os, sys; from pathlib import Path; from pipeline.sharding.writing import image_process as it;"
        "from pipeline.sharding.writing.images import ImagesConfig;"
        "it.prepare_image_in_subprocess(Path(sys.argv[1]).read_bytes(), ImagesConfig(), with_difference_hash=False);"
        "print(it._pool._idle[0]._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "image.png")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    child, deadline = int(ended.stdout), time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists(), f"{os.getpid()} has left process {child}"
