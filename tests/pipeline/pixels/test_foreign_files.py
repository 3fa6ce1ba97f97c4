"""Files that nobody here wrote: the test images in the sources of Pillow, good, odd and malicious ones."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

MAX_BYTES = 1 << 20

# pip has no command that fetches sources without building them.
FETCH = """
import sys
from pip._internal.commands import create_command
name, wanted = sys.argv[1:]
command = create_command("download")
options, _ = command.parse_args(["--no-deps", "--no-binary", ":all:", f"{name}=={wanted}"])
with command.main_context():
    session = command.get_default_session(options)
    found = command._build_package_finder(options, session).find_all_candidates(name)
    link = next(one.link for one in found if str(one.version) == wanted and one.link.filename.endswith(".tar.gz"))
    sys.stdout.buffer.write(session.get(link.url_without_fragment, timeout=60).content)
"""

CODE = """
import json, sys
from pathlib import Path

import numpy as np

from pipeline.loading.decode import Crop, decode
from pipeline.loading.resize import resize, resize_to_square
from pipeline.pixels.decode import MAX_DECODED_BYTES
from pipeline.pixels.decode import decode as decode_whole
from pipeline.pixels.formats import format_of
from pipeline.sharding.writing.images import UnreadableError, prepare_image

read = refused = 0
odd = []
for file in sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file()):
    data = file.read_bytes()
    try:
        whole = decode_whole(data, max_bytes=MAX_DECODED_BYTES)
    except ValueError:
        whole = None
    try:
        stored = prepare_image(data, with_difference_hash=True)
    except UnreadableError:
        stored = None
    if (whole is None) != (stored is None):
        odd.append(f"{file.name}: decoded {whole is not None}, stored {stored is not None}")
    if whole is None or stored is None:
        refused += 1
        continue
    read += 1
    if format_of(data[:64]) is None:
        odd.append(f"{file.name}: not recognised by its first bytes")
    again = decode_whole(stored.data)
    if again.shape != whole.shape or np.abs(again.astype(int) - whole).mean() > 2:
        odd.append(f"{file.name}: stored as something else ({stored.changes})")
    size = max(4, min(whole.shape[:2]) // 2 + 1)
    crop = Crop(0.5, 1.2, 0.3, 0.6)
    top, left, height, width = crop.box(*whole.shape[:2])
    side = max(4, min(height, width) // 2 + 1)
    for seen, wanted in (
        (decode(data, size=size), resize_to_square(whole, size)),
        (decode(data, size=side, crop=crop), resize(whole[top : top + height, left : left + width], side, side)),
    ):
        if np.abs(seen.astype(int) - wanted).max() > 3:
            odd.append(f"{file.name}: the loader shows something else")
print(json.dumps({"read": read, "refused": refused, "odd": odd}))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [sys.executable, "-c", FETCH, "pillow", version("pillow")]
    fetched = subprocess.run(command, capture_output=True, check=False, timeout=300)
    if fetched.returncode:
        pytest.skip(f"the sources of Pillow cannot be fetched here: {fetched.stderr.decode()[-200:]}")
    folder = tmp_path_factory.mktemp("foreign")
    with tarfile.open(fileobj=io.BytesIO(fetched.stdout)) as sources:
        for member in sources:
            if member.isfile() and "/Tests/images/" in member.name and member.size <= MAX_BYTES:
                sources.extract(member, folder, filter="data")
    return folder


def test_foreign_files_are_read_alike_by_all_or_refused_by_all(images: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-600:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["odd"] == []
    assert seen["read"] > 600
    assert seen["refused"] > 100
