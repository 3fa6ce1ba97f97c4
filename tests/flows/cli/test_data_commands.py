"""`tutelage data`: what it prints, how it ends, and that foreign names cannot reach the terminal."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cli.app import main
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage


@pytest.fixture
def artifact(pictures: Path) -> Artifact:
    """Two classes of 24 pictures in the store that the commands use."""
    store = ArtifactStore.open()
    source = {"kind": "image_folder", "folder": str(pictures)}
    config = parse_config(ShardingConfig, {"source": source}, "test")
    return run_stage(ShardDataset(), config.resolved(), {}, store=store)


def jpeg(seed: int, size: tuple[int, int] = (20, 10)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, *members: tuple[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            tar.addfile(made, io.BytesIO(data))


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Six images in two tars, three labels, one image twice, five captions."""
    folder = tmp_path / "laion"
    folder.mkdir()
    write(
        folder / "train-0.tar",
        *[("a.jpg", jpeg(1)), ("a.txt", b"four"), ("a.cls", b"0")],
        *[("b.jpg", jpeg(2, (30, 40))), ("b.txt", b"sixsix"), ("b.cls", b"10")],
        *[("c.jpg", jpeg(1)), ("c.txt", "dré".encode()), ("c.cls", b"2")],
        *[("d.txt", b"no image")],
    )
    write(
        folder / "val-0.tar",
        *[("e.jpg", jpeg(1)), ("e.txt", b"1"), ("e.cls", b"2")],
        *[("f.jpg", jpeg(4)), ("f.txt", b"22")],
        *[("g.jpg", b"not an image"), ("g.txt", b"  ")],
    )
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main(["data", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_lint_ends_with_0_clean_1_with_errors_and_2_for_nothing(
    tars: Path, artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "lint", artifact.name[:-12]]) == 0
    assert "48 samples" in (shown := capsys.readouterr().out)
    assert "nothing found" in shown
    assert main(["data", "lint", str(tars)]) == 1
    shown = capsys.readouterr().out
    assert "error  image-broken  1" in shown
    assert "val-0.tar @6656  g.jpg: not an image of a format that is read (12 bytes)" in shown
    for wrong in ([], ["nowhere"], ["shard-dataset/00"], [str(tars / "*.zip")]):
        assert main(["data", "lint", *wrong]) == 2
        line = capsys.readouterr().err
        assert line.startswith("tutelage: ")
        assert line.count("\n") == 1


def test_lint_as_json_has_place_and_counts(tars: Path, artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "lint", str(tars / "{train,val}-0.tar"), artifact.name, "--limit", "1", code=1)
    assert found["counts"] == {"image-broken": 1, "sample-no-image": 1, "caption-empty": 1, "label-missing": 2}
    assert (found["errors"], found["warnings"]) == (2, 3)
    assert (found["shards"], found["samples"]) == (2 + len(SampleIndex.open(artifact).shard_names), 7 + 48)
    codes = [one["code"] for one in found["findings"]]
    assert codes == ["image-broken", "sample-no-image", "caption-empty", "label-missing"]
    assert {"severity", "code", "shard", "key", "member", "byte", "says"} == set(found["findings"][0])
    assert told(capsys, "lint", str(tars), "--shallow", code=1)["counts"] == {"sample-no-image": 1, "label-missing": 2}


def test_a_hostile_name_cannot_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.tar", ("\x1b[2Jevil.jpg", b"x"), ("b.jpg", jpeg(1)), ("b.txt", b"\x1b]0;title\x07"))
    assert main(["data", "lint", str(tmp_path)]) == 1
    assert "\x1b" not in capsys.readouterr().out
    write(tmp_path / "a.tar", ("b.jpg", jpeg(1)), ("b.txt", b"\x1b]0;title\x07"), ("b.cls", b"\x1b[31m"))
    for command in ("preview", "stats"):
        assert main(["data", command, str(tmp_path)]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_lint_lists_its_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "lint", "--codes"]) == 0
    assert "tar-truncated" in capsys.readouterr().out
    listed = told(capsys, "lint", "--codes")
    assert {"code": "tar-truncated", "severity": "error"}.items() <= next(
        one for one in listed if one["code"] == "tar-truncated"
    ).items()


def test_stats_of_tars_are_what_was_put_in(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "stats", str(tars))
    assert found["images"] == 6
    assert found["splits"] == {"train": 3, "val": 3, "test": 0}
    assert found["labels"] == {
        "number": 3,
        "without": 2,
        "per_label": [
            {"label": "0", "images": 1, "train": 1, "val": 0, "test": 0},
            {"label": "2", "images": 2, "train": 1, "val": 1, "test": 0},
            {"label": "10", "images": 1, "train": 1, "val": 0, "test": 0},
        ],
    }
    assert found["formats"] == {"JPEG": 5, "no image": 1}
    assert (found["width"]["min"], found["width"]["max"], found["height"]["max"]) == (20, 30, 40)
    assert found["image_bytes"] == 3 * len(jpeg(1)) + len(jpeg(2, (30, 40))) + len(jpeg(4)) + 12
    assert found["captions"]["number"] == 5
    assert found["captions"]["images_without"] == 1
    assert found["captions"]["characters"] == {"min": 1, "p5": 1, "median": 3, "p95": 6, "max": 6}
    assert found["duplicates"] == {"sets": 1, "copies": 2, "sets_in_two_splits": 1, "sets_with_two_labels": 1}
    assert found["problems"] == {"no image among its members": 1}
    assert found["shards"]["number"] == 2
    assert found["shards"]["total_bytes"] == sum(path.stat().st_size for path in tars.iterdir())
    assert main(["data", "stats", str(tars)]) == 0
    assert "2 images equal to another one (1 set, 1 in two splits" in " ".join(capsys.readouterr().out.split())


def test_stats_of_an_artifact_and_of_its_tars_agree(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    by_index = told(capsys, "stats", artifact.name)
    by_headers = told(capsys, "stats", str(artifact.path("shards/train-00000.tar").parent))
    assert by_index.pop("what") != by_headers.pop("what")
    assert by_index == by_headers
    assert by_index["images"] == 48
    assert by_index["formats"] == {"PNG": 48}
    assert {one["label"]: one["images"] for one in by_index["labels"]["per_label"]} == {"blue": 24, "red": 24}


def test_preview_shows_the_requested_samples(
    artifact: Artifact, tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = SampleIndex.open(artifact)
    some = told(capsys, "preview", artifact.name, "--rows", "5")["samples"]
    assert len(some) == 5
    assert all(one["name"].startswith(f"{one['label']}/") and one["name"].endswith(".png") for one in some)
    assert some == told(capsys, "preview", artifact.name, "--rows", "5")["samples"]
    red = told(capsys, "preview", artifact.name, "--label", "red", "--split", "train")["samples"]
    assert {(one["label"], one["split"]) for one in red} == {("red", "train")}
    keys = [index.key(7), index.key(2)]
    named = told(capsys, "preview", artifact.name, "--key", keys[0], "--key", keys[1])["samples"]
    assert [one["key"] for one in named] == keys
    assert named[0]["byte"] == index.row(7).offset
    foreign = told(capsys, "preview", str(tars), "--label", "2")["samples"]
    assert [one["name"] for one in foreign] == [None, None]
    assert [(one["key"], one["captions"], one["split"]) for one in foreign] == [
        ("c", ["dré"], "train"),
        ("e", ["1"], "val"),
    ]
    assert [one["key"] for one in told(capsys, "preview", str(tars), "--key", "f")["samples"]] == ["f"]
    assert len(told(capsys, "preview", str(tars), "--split", "val", "--rows", "2")["samples"]) == 2


def test_the_sheet_has_a_picture_for_each_sample_and_says_what_is_none(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert main(["data", "preview", str(tars), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: 7 pictures" in " ".join(shown.split())
    assert "not an image" in shown
    with Image.open(out) as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or ()}
        assert sheet.width > 1000
    assert (0xB3, 0x36, 0x1C) in colours  # of the crosses
    first = out.read_bytes()
    assert main(["data", "preview", str(tars), "--out", str(out)]) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--label", "gren"], "unknown label 'gren'"),
        (["--split", "dev"], "unknown split 'dev'"),
        (["--key", "nix"], "no sample has key 'nix'"),
        (["--out", "sheet.jpg"], "give the name of a .png"),
        (["--out", "/nowhere/sheet.png"], "give the name of a .png"),
    ],
)
def test_a_wrong_request_is_one_line(
    artifact: Artifact, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "preview", artifact.name, *arguments]) == 2
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1


def test_help_imports_neither_torch_nor_arrow() -> None:
    code = "import sys; from flows.cli.app import main; main(['data', 'lint', '--help']); print(sorted(sys.modules))"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'flows.cli.data_app'" in listed
    assert not {"'torch'", "'pyarrow'", "'PIL'", "'numpy'"} & set(listed.replace("[", "").split(", "))


@pytest.mark.parametrize("command", ["lint", "stats", "preview"])
def test_a_folder_of_images_is_recognised_and_the_command_that_shards_it_is_named(
    command: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", command, str(pictures)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a folder of 48 images without tars; shard it by `tutelage run shard-dataset" in line
    # The named command is one that the shell takes.
    named = shlex.split(line.partition("`")[2].partition("`")[0])[1:]
    assert main(["config", *named[1:]]) == 0
    assert f"folder: {pictures}" in capsys.readouterr().out
    flat = tmp_path / "flat folder"
    flat.mkdir()
    (flat / "a.jpg").write_bytes(jpeg(1))
    assert main(["data", command, str(flat)]) == 2
    said = capsys.readouterr().err
    assert "a folder of 1 image without tars; put the images of each class into a sub-folder, then shard it" in said
    assert f"data.source.folder='{flat}'`" in said
    (flat / "a.jpg").unlink()
    assert main(["data", command, str(flat)]) == 2
    assert "holds no file that ends with .tar" in capsys.readouterr().err
