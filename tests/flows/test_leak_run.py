"""A run whose data leak stops before it trains, leaves the pictures, and stops again at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.catalog import find_flow
from flows.cli.parameters_file import apply_settings, validated_model
from flows.leak_check import can_remove_near
from flows.presets import PRESETS
from flows.run_board import RunBoard, use_board
from infra.local.servers import Server
from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError, WorkError
from pipeline.leaks import signature_cache
from tests.small_photos import small_photos

pytestmark = pytest.mark.servers


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Two classes of 30 pictures, each also as a JPEG: most of those held out are in the training data too."""
    for number in range(60):
        folder = tmp_path / "twins" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        rough = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
        picture.save(folder / f"{number}-again.jpg", quality=80)
    return tmp_path / "twins"


@pytest.fixture
def on_server(prefect: Server) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def run(flow: str, board: RunBoard, *settings: str) -> dict[str, str]:
    """Runs a flow with the preset photos, made small and changed by settings; gives stage -> how it ended."""
    parameters = small_photos(flow, *settings)
    with use_board(board):
        find_flow(flow).load()(parameters)
    return {row.label: row.state for row in board.rows()}


def test_leaks_stop_a_run_before_it_trains_and_the_pictures_stay(
    on_server: None, twins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = f"data.source.folder={twins}"
    for again in (False, True):
        board = RunBoard()
        with pytest.raises(WorkError, match="look like a training image, more than max_near_share=0") as stop:
            run("train-teacher", board, data)
        assert {row.label: row.state for row in board.rows()} == {
            "shard-dataset": "cached" if again else "done",
            "check-leaks": "failed",
            "train-teacher": "not run",
            "evaluate": "not run",
        }
        sheet = str(stop.value).partition("look at ")[2].partition(" (")[0]
        assert Image.open(io.BytesIO(Path(sheet).read_bytes())).height > 300
        # Again, no image is looked at.
        monkeypatch.setattr(signature_cache, "gather_signatures", None)
    assert run("shard-dataset", RunBoard(), data, "leaks.max_near_share=1") == {
        "shard-dataset": "cached",
        "check-leaks": "cached",
    }
    assert run("shard-dataset", RunBoard(), data, "leaks=null") == {"shard-dataset": "cached"}
    shards = next(ArtifactStore.open(str(tmp_path / "store")).list("shard-dataset"))
    with pytest.raises(InputError, match="is both data sets"):
        run("shard-dataset", RunBoard(), data, f"leaks_against={shards.name}")


def test_a_second_data_set_without_a_check_is_refused() -> None:
    values = PRESETS["emoji"].parameters("lifecycle").model_dump(mode="json")
    model = find_flow("lifecycle").parameter_model()
    with pytest.raises(InputError, match="leaks_against: the leak check is off; set leaks"):
        validated_model(model, apply_settings(values, ["leaks_against=shard-dataset/0a1b2c"]), "here")


@pytest.mark.parametrize(
    ("settings", "advised"),
    [
        ((), True),
        (("data.base=newest",), False),
        (("data.duplicates.near=remove",), False),
        (("leaks_against=shard-dataset/0a1b2c",), False),
        (("shards=shard-dataset/0a1b2c",), False),
        (("mixture={a: shard-dataset/0a1b2c, b: shard-dataset/3d4e5f}",), False),
    ],
)
def test_removal_of_near_duplicates_is_advised_only_where_it_would_help(
    settings: tuple[str, ...], advised: bool
) -> None:
    assert can_remove_near(small_photos("train-teacher", "data.source.folder=photos", *settings)) is advised
