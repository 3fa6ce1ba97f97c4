"""Pictures to shard."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two classes of tiny pictures."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for label, colour in {"red": (200, 0, 0), "blue": (0, 0, 200)}.items():
        (folder / label).mkdir()
        for number in range(24):
            picture = Image.new("RGB", (16, 16), (colour[0] + number, number, colour[2] + number))
            picture.save(folder / label / f"{number}.png")
    return folder
