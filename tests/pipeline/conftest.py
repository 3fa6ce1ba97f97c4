"""A real S3 server for every test that asks for one, started once a session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from infra.local.servers import Keys, weed_mini

BUCKET = "tutelage-tests"


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and how to get in."""

    url: str
    bucket: str
    keys: Keys

    @property
    def env(self) -> dict[str, str]:
        """What boto3 in this or another process needs to find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.keys.access,
            "AWS_SECRET_ACCESS_KEY": self.keys.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS with one empty bucket."""
    keys = Keys("tester", uuid.uuid4().hex)
    with weed_mini(tmp_path_factory.mktemp("weed"), keys, buckets=[BUCKET]) as server:
        yield S3Server(server.url, BUCKET, keys)


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty s3:// store; this process's environment leads there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
