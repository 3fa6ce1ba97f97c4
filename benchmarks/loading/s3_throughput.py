"""Images per second from shards on S3 to 224-pixel crops: our loader against webdataset, on a real server on loopback.

    python benchmarks/loading/s3_throughput.py

SeaweedFS serves the shards. Ours reads them in ranges of 8 MiB (`parts`) through an empty cache, then again through the
warm cache, and in ranges of samples (`ranges`) without a cache; webdataset reads whole shards over `pipe:curl` with
presigned URLs and over boto3. The peers have no cache. A round is one pass from new workers; its first batch is
included, since the cost of a cold start over a network is the question. Rounds alternate; medians are printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import webdataset
from botocore.config import Config
from jpeg_throughput import AREA, BATCH, SIZE, Batches, data_loader, our_loader
from photos import write_image_folder, write_shards
from torchvision.transforms import v2

from infra.local.servers import Keys, weed_mini
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.loading.remote_shards import RemoteMode


def tutelage(artifact: Artifact, workers: int, images: int, remote: RemoteMode) -> Batches:
    for batch in our_loader(artifact, workers, remote=remote).batches(0, images // BATCH):
        yield batch.images


def over_boto3(url: str, mode: str = "rb", bufsize: int = 8192, **options: object) -> Any:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"]


def web_dataset(urls: list[str], workers: int) -> Batches:
    webdataset.gopen_schemes.update(s3=over_boto3)
    crop = v2.Compose([v2.RandomResizedCrop(SIZE, scale=AREA), v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])
    data = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        .shuffle(500)
        .decode("pil")
        .to_tuple("jpg", "json")
        .map_tuple(crop, lambda notes: int(notes["label"]))
    )
    for images, _ in data_loader(data, workers):
        yield images


def rate(batches: Batches) -> float:
    started = time.perf_counter()
    count = sum(len(images) for images in batches)
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keys = Keys("bench", uuid.uuid4().hex)
    with tempfile.TemporaryDirectory() as name, weed_mini(Path(name) / "weed", keys, buckets=["bench"]) as server:
        os.environ.update(
            AWS_ENDPOINT_URL=server.url,
            AWS_ACCESS_KEY_ID=keys.access,
            AWS_SECRET_ACCESS_KEY=keys.secret,
            AWS_DEFAULT_REGION="us-east-1",
            XDG_CACHE_HOME=f"{name}/cache",
        )
        images = write_image_folder(Path(name) / "folder", options.images)
        artifact = write_shards(ArtifactStore.open("s3://bench/store"), images, samples_per_shard=500)
        shards = [artifact.object_path(file) for file in artifact.files if file.endswith(".tar")]
        client = boto3.client("s3", config=Config(signature_version="s3v4"))
        signed = [
            client.generate_presigned_url("get_object", Params={"Bucket": "bench", "Key": f"store/{path}"})
            for path in shards
        ]
        loaders: dict[str, Callable[[], Batches]] = {
            "parts, cold cache": partial(tutelage, artifact, options.workers, options.images, "parts"),
            "parts, warm cache": partial(tutelage, artifact, options.workers, options.images, "parts"),
            "ranges, no cache": partial(tutelage, artifact, options.workers, options.images, "ranges"),
            "webdataset, pipe:curl": partial(web_dataset, [f"pipe:curl -s '{url}'" for url in signed], options.workers),
            "webdataset, boto3": partial(web_dataset, [f"s3://bench/store/{path}" for path in shards], options.workers),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(options.rounds):
            for label, load in loaders.items():
                if "cold" in label:
                    shutil.rmtree(artifact.cache / "parts", ignore_errors=True)
                rates[label].append(rate(load()))
    own = rates["parts, cold cache"]
    for label, found in rates.items():
        ratios = [a / b for a, b in zip(own, found, strict=True)]
        print(
            f"{label:22} {statistics.median(found):6.0f} images/s   parts, cold is {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
