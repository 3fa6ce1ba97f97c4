"""A decoding process that is lost costs a training nothing but time, and its facts say so."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher

BuildConfig = Callable[..., ClassificationConfig]


def kill_the_first() -> None:
    """Kills this process's first decoding process as soon as there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for children in Path("/proc/self/task").glob("*/children"):
            for child in children.read_text().split():
                if b"decode_processes" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    return
        time.sleep(0.02)


def test_a_lost_decoding_process_is_counted(store: ArtifactStore, digits: Artifact, small_config: BuildConfig) -> None:
    killer = threading.Thread(target=kill_the_first)
    killer.start()
    config = small_config(steps=4, loader={"processes": 1, "threads": 1})
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    killer.join()
    assert json.loads(artifact.read("training.json"))["lost_decoding_processes"] == 1
    assert artifact.summary["headline"].endswith("1 decoding process lost and replaced")

    whole = run_stage(TrainTeacher(), small_config(steps=5), {"shards": digits}, store=store)
    assert "lost_decoding_processes" not in whole.summary
