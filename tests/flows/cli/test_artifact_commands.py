"""`tutelage artifacts`: what is in the store, its files, and what may be removed from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.cli.app import main
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta_base import find_base
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage

Commit = Callable[..., Artifact]
Said = Callable[..., str]
NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore.open()


@pytest.fixture
def commit(store: ArtifactStore) -> Commit:
    def commit(
        uri: str,
        files: dict[str, str] | None = None,
        inputs: Sequence[str] = (),
        committed: float = NOON,
        **summary: Any,
    ) -> Artifact:
        folder = store.work / "new"
        for name, text in {"a.txt": "abc", **(files or {})}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return store.commit(
            *uri.split("/"),
            folder,
            config={"n": 1},
            inputs={f"input-{number}": named for number, named in enumerate(inputs)},
            summary=summary,
            seconds=75.0,
            origin={"tutelage": "0.1.0", "committed": committed},
        )

    return commit


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """What a command prints to stdout, or with an exit code above 0 its one line on stderr."""

    monkeypatch.delenv("COLUMNS", raising=False)

    def said(*arguments: str, code: int = 0) -> str:
        assert main(["artifacts", *arguments]) == code
        captured = capsys.readouterr()
        if not code:
            assert captured.err == ""
            return captured.out
        assert captured.err.count("\n") == 1
        return captured.err

    return said


def test_a_narrow_terminal_shortens_results_and_no_name(
    commit: Commit, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = commit("build-ontology/0a1b2c3d", headline="many words " * 20).name
    monkeypatch.setenv("COLUMNS", "70")
    _, row = said("list").splitlines()
    assert row.startswith(f"{name}  2026-01-01 12:00  ")
    assert row.endswith("…")


def test_the_list_ends_with_the_newest_and_has_date_size_and_time(commit: Commit, said: Said) -> None:
    commit("train-teacher/aaaa1111bbbb", {"big": "x" * 2000}, committed=NOON + 60, headline="val accuracy 90.0%")
    commit("evaluate/cccc2222dddd", headline="x" * 200)
    head, first, second = said("list").splitlines()
    assert head.split() == ["artifact", "date", "(UTC)", "size", "time", "result"]
    assert first.split() == ["evaluate/cccc2222", "2026-01-01", "12:00", "3", "bytes", "0:01:15", "x" * 200]
    assert second.rstrip().endswith("2026-01-01 12:01   2.0 kB  0:01:15  val accuracy 90.0%")
    (row,) = json.loads(said("list", "evaluate", "--json"))
    assert row["committed"] == "2026-01-01T12:00:00Z"
    assert row["bytes"] == 3


def test_a_stage_without_artifacts_is_answered_with_the_stages_that_have_some(commit: Commit, said: Said) -> None:
    assert said("list", "evaluate").startswith("no artifacts in ")
    commit("train-teacher/aaaa")
    assert "unknown stage 'train-techer'; did you mean train-teacher?" in said("list", "train-techer", code=2)


def test_show_is_a_summary_and_with_json_the_manifest(commit: Commit, said: Said) -> None:
    commit("train-teacher/aaaa", inputs=["shard-dataset/0123"], headline="val accuracy 90.0%", steps=16)
    shown = said("show", "train-teacher/a")
    assert [line for line in shown.splitlines() if len(line) > 150] == []
    for text in ("val accuracy 90.0%", "steps: 16", "input-0: shard-dataset/0123", "2026-01-01 12:00:00 UTC", "a.txt"):
        assert text in shown
    assert json.loads(said("show", "train-teacher/a", "--json"))["config"] == {"n": 1}


def test_open_gives_the_page_of_an_artifact_and_else_of_the_latest_report(commit: Commit, said: Said) -> None:
    assert "has no report" in said("open", code=2)
    older = commit("run-report/bbbb", {"report.html": "<p>old"})
    latest = commit("run-report/aaaa", {"report.html": "<p>new"}, committed=NOON + 1)
    commit("evaluate/cccc", committed=NOON + 2)
    assert said("open") == f"{latest.path('report.html')}\n"
    assert said("open", "run-report/b") == f"{older.path('report.html')}\n"
    assert "evaluate/cccc: has no page" in said("open", "evaluate/c", code=2)


def test_get_copies_files_and_replaces_none(commit: Commit, said: Said, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    commit("train-teacher/aaaa1111bbbb", {"model/labels.json": "[]"})
    assert (
        said("get", "train-teacher/aaaa") == "train-teacher-aaaa1111/a.txt\ntrain-teacher-aaaa1111/model/labels.json\n"
    )
    assert Path("train-teacher-aaaa1111/model/labels.json").read_text() == "[]"
    assert "train-teacher-aaaa1111/a.txt: exists already" in said("get", "train-teacher/aaaa", "a.txt", code=2)
    assert said("get", "train-teacher/aaaa", "a.txt", "--out", "mine") == "mine/a.txt\n"
    assert "unknown file in artifact" in said("get", "train-teacher/aaaa", "b.txt", code=2)


def test_get_writes_nothing_of_an_artifact_with_a_changed_file(commit: Commit, said: Said, tmp_path: Path) -> None:
    artifact = commit("train-teacher/aaaa", {"b.txt": "b"})
    (Path(artifact.url) / "b.txt").write_text("x")
    out = tmp_path / "out"
    assert "its bytes are not those that were committed" in said("get", artifact.name, "--out", str(out), code=1)
    assert not out.exists()


def test_get_leaves_no_folder_even_if_the_manifest_says_so(
    commit: Commit, said: Said, store: ArtifactStore, tmp_path: Path
) -> None:
    artifact = commit("train-teacher/aaaa")
    manifest = Path(artifact.url) / "manifest.json"
    changed = json.loads(manifest.read_text())
    changed["files"]["../../../secret"] = changed["files"].pop("a.txt")
    manifest.write_text(json.dumps(changed))
    (store.local / "secret").write_text("abc")
    assert "leaves its folder" in said("get", artifact.name, "--out", str(tmp_path / "x" / "y"), code=2)
    assert not (tmp_path / "x").exists()


def test_rm_removes_all_or_none_and_what_others_were_built_from_only_by_force(commit: Commit, said: Said) -> None:
    shards = commit("shard-dataset/aaaa")
    teacher = commit("train-teacher/bbbb", inputs=[shards.name])
    lone = commit("evaluate/cccc")
    refused = said("rm", lone.name, shards.name, code=2)
    assert "shard-dataset/aaaa: train-teacher/bbbb was built from it; remove that too, or add --force" in refused
    assert said("list").count("\n") == 4
    assert said("rm", "evaluate/c").startswith("evaluate/cccc: removed, ")
    assert not Path(lone.url).exists()
    assert said("rm", shards.name, "--force").startswith("shard-dataset/aaaa: removed")
    assert said("rm", teacher.name).startswith("train-teacher/bbbb: removed")
    assert said("list").startswith("no artifacts in ")


def test_rm_takes_a_damaged_artifact(commit: Commit, said: Said) -> None:
    artifact = commit("evaluate/aaaa")
    (Path(artifact.url) / "manifest.json").write_text("{")
    assert said("rm", "evaluate/aaaa").startswith("evaluate/aaaa: removed")
    assert said("list").startswith("no artifacts in ")


def test_rm_takes_nothing_while_it_is_not_known_what_another_artifact_needs(commit: Commit, said: Said) -> None:
    shards, other = commit("shard-dataset/aaaa"), commit("mix-datasets/bbbb", inputs=["shard-dataset/aaaa"])
    manifest = Path(other.url) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    refused = said("rm", shards.name, "--force", code=1)
    assert "nothing was removed: it is not known whether this artifact needs them" in refused
    assert "mix-datasets/bbbb/manifest.json: has format 2" in refused
    assert Path(shards.url).exists()
    assert said("rm", other.name, shards.name).count("removed") == 2


def test_rm_removes_the_newest_first(commit: Commit, said: Said) -> None:
    base = commit("shard-dataset/aaaa")
    middle = commit("train-teacher/bbbb", inputs=[base.name], committed=NOON + 1)
    last = commit("evaluate/cccc", inputs=[middle.name], committed=NOON + 2)
    lines = said("rm", base.name, last.name, middle.name).splitlines()
    assert [line.partition(":")[0] for line in lines] == [last.name, middle.name, base.name]


def test_rm_never_takes_the_base_whose_shards_a_delta_refers_to(
    pictures: Path, store: ArtifactStore, said: Said, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    config = ShardingConfig(source=ImageFolderConfig(folder=str(folder)))
    base = run_stage(ShardDataset(), config.resolved(), {}, store=store)
    (folder / "red" / "0.png").unlink()
    newer = config.model_copy(update={"base": "newest"}).resolved()
    found = find_base(newer, store)
    assert found is not None
    delta = run_stage(ShardDataset(), newer, {"base": found.artifact}, store=store)
    for force in ([], ["--force"]):
        assert f"{base.name}: stores shards of {delta.name}; remove that too" in said("rm", base.name, *force, code=2)
    assert said("rm", base.name, delta.name).count("removed") == 2
