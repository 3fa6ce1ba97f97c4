"""run_stage: made once, found after that; a run that dies leaves nothing and the next one goes on."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from pydantic import Field

from pipeline import stage as stage_module
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config, unkeyed
from pipeline.errors import InputError
from pipeline.stage import code_origin, run_stage, stage_key


class Settings(Config):
    n: int = Field(1, description="A number.")
    threads: int = unkeyed(1, description="Not part of the key.")


class Write:
    """A stage that writes its number and counts its runs."""

    name = "write"
    version = 1

    def __init__(self):
        self.runs = 0

    def run(self, config, inputs, work):
        self.runs += 1
        work.progress(step=1, total=1)
        (work.output / "value.txt").write_text(str(config.n + sum(int(i.read("value.txt")) for i in inputs.values())))
        return {"n": config.n}


@pytest.fixture
def store(tmp_path):
    return ArtifactStore.open(str(tmp_path / "store"))


def test_an_artifact_is_made_once_and_found_after_that(store):
    write = Write()
    made = run_stage(write, Settings(n=3), {}, store=store)
    found = run_stage(write, Settings(n=3, threads=8), {}, store=store)
    assert write.runs == 1
    assert (made.cached, found.cached) == (False, True)
    assert found == made
    assert found.read("value.txt") == b"3"
    assert found.config == {"n": 3}
    assert list((store.local / "work" / "write").iterdir()) == []


def test_what_a_run_killed_after_its_commit_left_is_swept_up(store):
    made = run_stage(Write(), Settings(), {}, store=store)
    left = store.local / "work" / "write" / made.key / "scratch"
    left.mkdir(parents=True)
    (left / "spool").write_bytes(b"gigabytes")
    assert run_stage(Write(), Settings(), {}, store=store).cached
    assert list((store.local / "work" / "write").iterdir()) == []


def test_work_of_a_run_that_lives_stays_though_its_artifact_is_committed(store):
    made = run_stage(Write(), Settings(), {}, store=store)
    place = store.work / "write" / made.key
    (place / "output").mkdir(parents=True)
    with (place / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_stage(Write(), Settings(), {}, store=store).cached
    assert (place / "output").exists()


def test_config_version_and_inputs_each_make_another_artifact(store):
    one = run_stage(Write(), Settings(n=1), {}, store=store)
    two = run_stage(Write(), Settings(n=2), {}, store=store)
    later = Write()
    later.version = 2
    keys = {
        stage_key(Write(), Settings(n=1), {}),
        stage_key(Write(), Settings(n=2), {}),
        stage_key(later, Settings(n=1), {}),
        stage_key(Write(), Settings(n=1), {"x": one}),
        stage_key(Write(), Settings(n=1), {"x": two}),
        stage_key(Write(), Settings(n=1), {"y": one}),
    }
    assert len(keys) == 6
    both = run_stage(Write(), Settings(n=4), {"a": one, "b": two}, store=store)
    assert both.read("value.txt") == b"7"
    assert both.manifest["inputs"] == {"a": one.name, "b": two.name}


def test_the_manifest_says_what_made_it(store):
    origin = run_stage(Write(), Settings(), {}, store=store).manifest["origin"]
    assert origin["stage_version"] == 1
    assert origin["tutelage"]


def test_a_machine_without_git_still_commits(store, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code_origin.cache_clear()
    try:
        assert "commit" not in run_stage(Write(), Settings(), {}, store=store).manifest["origin"]
    finally:
        code_origin.cache_clear()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, FileNotFoundError])
def test_a_failed_run_commits_nothing_and_the_next_goes_on_from_its_scratch(store, error):
    class Frail(Write):
        def run(self, config, inputs, work):
            mark = work.scratch / "half"
            if not mark.exists():
                mark.write_text("done so far")
                (work.output / "torn").write_text("to")
                raise error
            assert list(work.output.iterdir()) == []
            return super().run(config, inputs, work)

    frail = Frail()
    with pytest.raises(error):
        run_stage(frail, Settings(), {}, store=store)
    assert list(store.list()) == []
    assert list(run_stage(frail, Settings(), {}, store=store).files) == ["value.txt"]


SLOW = """
import sys, time
from pathlib import Path
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.stage import run_stage

class Slow:
    name, version = "slow", 1
    def run(self, config, inputs, work):
        (work.scratch / "runs").open("a").write("x")
        runs = len((work.scratch / "runs").read_text())
        (work.output / "part").write_text("part")
        print("working", flush=True)
        time.sleep(float(sys.argv[2]) if runs == 1 else 0)
        (work.output / "runs").write_text(str(runs))
        return {"runs": runs}

artifact = run_stage(Slow(), Config(), {}, store=ArtifactStore.open(sys.argv[1]))
print("cached" if artifact.cached else "made", artifact.summary["runs"], flush=True)
"""


@pytest.fixture
def slow(store):
    started = []

    def start(seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(store.storage.url), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_two_processes_that_want_the_same_artifact_end_with_one_and_no_error(store, slow):
    answers = sorted(process.communicate(timeout=60)[0] for process in (slow(0.5), slow(0.5)))
    assert answers == ["cached 1\n", "working\nmade 1\n"]
    assert [artifact.name for artifact in store.list()] == [next(store.list()).name]
    assert next(store.list()).verify() == []


def test_a_process_killed_in_mid_stage_leaves_nothing_and_the_next_goes_on(store, slow):
    victim = slow(600)
    assert victim.stdout.readline() == "working\n"
    waiting = slow(0)
    time.sleep(0.5)
    assert waiting.poll() is None
    victim.send_signal(signal.SIGKILL)
    assert list(store.list()) == []
    assert waiting.communicate(timeout=60)[0] == "working\nmade 2\n"
    assert next(store.list()).read("runs") == b"2"
    assert list((store.local / "work" / "slow").iterdir()) == []


def test_many_threads_that_want_the_same_artifact_run_it_once(store):
    write = Write()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(run_stage(write, Settings(), {}, store=store))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert write.runs == 1
    assert [result.cached for result in results].count(False) == 1
    assert len(results) == 8


def test_whoever_waits_is_told_so(store, tmp_path):
    notes = []
    inside, go = threading.Event(), threading.Event()

    class Patient(Write):
        def run(self, config, inputs, work):
            inside.set()
            go.wait(30)
            return super().run(config, inputs, work)

    def note(*, note="", **_):
        if note:
            notes.append(note)
            go.set()

    first = threading.Thread(target=run_stage, args=(Patient(), Settings(), {}), kwargs={"store": store})
    first.start()
    inside.wait(30)
    assert run_stage(Patient(), Settings(), {}, store=store, progress=note).cached
    first.join()
    assert notes == ["waiting for another process that builds the same artifact"]


def test_a_lock_file_that_its_holder_removed_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    place = tmp_path / "place"
    real = fcntl.flock
    calls = []

    def flock(file, how):
        real(file, how)
        calls.append(how)
        if len(calls) == 1:
            shutil.rmtree(place)

    monkeypatch.setattr(fcntl, "flock", flock)
    with stage_module._locked(place / "lock", stage_module.silent):
        assert (place / "lock").exists()
    assert len(calls) == 2


@pytest.fixture
def powerless():
    """Root may write anywhere; for these tests it gives that up."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(store, tmp_path):
    made = run_stage(Write(), Settings(n=1), {}, store=store)
    # pytest's own folders are for the owner alone; how many there are depends on xdist.
    above = [folder for folder in tmp_path.parents if folder.is_relative_to(tempfile.gettempdir())]
    for folder in (*above[:-1], tmp_path, store.local):
        folder.chmod(folder.stat().st_mode | 0o055)
    for path in [store.local, *store.local.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield made
    for path in [store.local, *store.local.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_read_only_store_is_read_and_refuses_work_in_one_line(store, read_only, powerless):
    write = Write()
    assert run_stage(write, Settings(n=1), {}, store=store).cached
    assert read_only.verify() == []
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\); set TUTELAGE_STORE") as caught:
        run_stage(write, Settings(n=2), {}, store=store)
    assert "\n" not in str(caught.value)
    assert write.runs == 0


def test_a_stage_that_has_nothing_to_add_gives_its_input_and_commits_nothing(store):
    class Add(Write):
        name = "add"

        def run(self, config, inputs, work):
            raise stage_module.NothingNew(inputs["base"])

    made = run_stage(Write(), Settings(), {}, store=store)
    again = run_stage(Add(), Settings(), {"base": made}, store=store)
    assert (again.name, again.cached) == (made.name, True)
    assert [artifact.name for artifact in store.list()] == [made.name]
    assert list((store.local / "work" / "add").iterdir()) == []


def test_work_in_progress_that_cannot_be_anywhere_is_one_line_that_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    store = ArtifactStore(ArtifactStore.open(str(tmp_path / "store")).storage, tmp_path, tmp_path / "file" / "work")
    with pytest.raises(
        InputError, match=r"file/work/write: cannot be created \(Not a directory\).*set TUTELAGE_STORE, or"
    ):
        run_stage(Write(), Settings(), {}, store=store)
