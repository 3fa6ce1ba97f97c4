"""`tutelage data leaks`: a table, pictures, JSON; exit code 1 above a bound, 2 for what cannot be checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli.app import main
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage


def photo(number: int) -> Image.Image:
    rough = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((64, 64), Image.Resampling.BICUBIC)


def shards_of(folder: Path, numbers: range, copies: range = range(0), seed: int = 0) -> Artifact:
    """Sharded pictures in three splits, with copies of some as JPEG."""
    (folder / "cat").mkdir(parents=True)
    for number in numbers:
        photo(number).save(folder / "cat" / f"{number}.png")
    for number in copies:
        photo(number).save(folder / "cat" / f"{number}-again.jpg", quality=80)
    split = {"val_share": 0.2, "test_share": 0.2, "seed": seed}
    values = {"source": {"kind": "image_folder", "folder": str(folder)}, "split": split}
    config = parse_config(ShardingConfig, values, "test")
    return run_stage(ShardDataset(), config.resolved(), {}, store=ArtifactStore.open())


def test_clean_data_end_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = shards_of(tmp_path / "clean", range(40))
    assert main(["data", "leaks", shards.name[:24]]) == 0
    shown = capsys.readouterr().out
    assert "evaluation split" in shown
    assert "0 (0.00%)" in shown


def test_leaks_end_in_exit_code_1_with_pictures_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = shards_of(tmp_path / "twins", range(40), range(40))
    sheet = tmp_path / "leaks.png"
    assert main(["data", "leaks", shards.name, "--json", "--pictures", str(sheet)]) == 1
    answer = capsys.readouterr()
    told = json.loads(answer.out)
    assert not told["ok"]
    assert len(told["broken"]) == 2
    assert sum(split["near"]["images"] for split in told["splits"]) > 5
    assert told["sheet"] == str(sheet)
    assert Path(told["listing"]).is_file()
    assert len(answer.err.splitlines()) == 1
    with Image.open(sheet) as picture:
        assert picture.height > 300
    assert main(["data", "leaks", shards.name, "--max-near-share", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_a_second_data_set_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # With the same seed an image is in the same split of both.
    ours, theirs = shards_of(tmp_path / "ours", range(40)), shards_of(tmp_path / "theirs", range(20, 60), seed=1)
    assert main(["data", "leaks", ours.name, theirs.name]) == 1
    answer = capsys.readouterr()
    assert "other test" in answer.out
    assert "are also training images, more than max_exact_share=0" in answer.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shard-dataset/00"], "unknown artifact"),
        (["SHARDS", "--near-radius", "65"], "near_radius: input should be less than or equal to 10 (got 65)"),
        (["SHARDS", "--max-near-share", "3"], "max_near_share: "),
        (["SHARDS", "--pictures", "leaks.jpg"], "--pictures leaks.jpg: name a .png file in a folder that exists"),
        (["SHARDS", "--pictures", "nowhere/leaks.png"], "in a folder that exists"),
        (["SHARDS", "SHARDS"], "is both data sets"),
        ([], "Missing argument 'SHARDS'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = shards_of(tmp_path / "one", range(10)).name if "SHARDS" in arguments else ""
    assert main(["data", "leaks", *(shards if word == "SHARDS" else word for word in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_only_shards_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "leaks", shards_of(tmp_path / "one", range(10)).name])
    finding = next(ArtifactStore.open().list("check-leaks"))
    assert main(["data", "leaks", finding.name]) == 2
    assert "is an artifact of check-leaks; give shards" in capsys.readouterr().err
