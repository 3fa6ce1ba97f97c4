"""The first hour with one's own photos: the preset `photos` against fine-tuning by hand, on the same images.

    python benchmarks/photos/first_hour.py FOLDER

FOLDER has train/, val/ and test/, each with one sub-folder per class. `tutelage run lifecycle --preset photos` runs
with an empty store. Then torchvision_finetuning.py starts from the same weights and trains for as long as our teacher
did. The script prints the seconds from the command to the accuracy of the linear probe, the seconds of each stage, and
the test accuracy of every model, each of ours with McNemar's exact test against the peer.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.evaluation.paired_test import mcnemar
from pipeline.sharding.format.item_names import item_names

_PEER = Path(__file__).with_name("torchvision_finetuning.py")
_MODELS = {"linear-probe": "linear probe", "train-teacher": "teacher", "distill-student": "student"}


def main() -> None:
    """Runs both, and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        store_folder, peer_file = Path(scratch, "store"), Path(scratch, "peer.csv")
        command = [str(Path(sys.executable).with_name("tutelage")), "run", "lifecycle", "--preset", "photos"]
        start = time.time()
        subprocess.run(
            [*command, "--set", f"data.source.folder={folder}"],
            check=True,
            env=os.environ
            | {"TUTELAGE_STORE": str(store_folder), "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db"},
        )
        print(f"whole run: {time.time() - start:.0f} s")
        store = ArtifactStore.open(str(store_folder))
        artifacts = sorted(store.list(), key=lambda artifact: _commit_time(store, artifact))
        for artifact in artifacts:
            print(f"{_commit_time(store, artifact) - start:7.0f} s  {artifact.stage:16} took {artifact.seconds:6.1f} s")
        minutes = next(artifact.seconds for artifact in artifacts if artifact.stage == "train-teacher") / 60
        subprocess.run([sys.executable, _PEER, folder, "--minutes", str(minutes), "--out", peer_file], check=True)
        with peer_file.open(newline="") as file:
            peer = {path: label == predicted for path, label, predicted in csv.reader(file)}
        for evaluation in store.list("evaluate"):
            _compare(store, evaluation, peer)


def _commit_time(store: ArtifactStore, artifact: Artifact) -> float:
    """The time at which an artifact of a local store was committed, in seconds since the epoch."""
    return (store.local / "artifacts" / artifact.name / "manifest.json").stat().st_mtime


def _compare(store: ArtifactStore, evaluation: Artifact, peer: dict[str, bool]) -> None:
    """Prints the accuracy of one of our models and of the peer on the same test images."""
    inputs = evaluation.manifest["inputs"]
    rows = pq.read_table(evaluation.path("predictions.parquet")).to_pylist()
    names = item_names(store.get(inputs["shards"]), [row["id"] for row in rows])
    # A source names an image by its path within the folder.
    ours = {names[row["id"]]: bool(row["correct"]) for row in rows}
    theirs = {name: right for path, right in peer.items() for name in ours if path.endswith(f"/{name}")}
    common = sorted(theirs)
    result = mcnemar([ours[name] for name in common], [theirs[name] for name in common])
    accuracies = [sum(right[name] for name in common) / len(common) for right in (ours, theirs)]
    print(
        f"{_MODELS[inputs['model'].partition('/')[0]]}: {accuracies[0]:.1%}, peer {accuracies[1]:.1%} on "
        f"{len(common)} of {len(peer)} images (difference {100 * result.low:.1f} to {100 * result.high:.1f} points, "
        f"p = {result.p_value:.3f})"
    )


if __name__ == "__main__":
    main()
