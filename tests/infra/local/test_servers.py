"""The rows: each real server comes up, answers its own users, and goes."""

import json
import stat
import urllib.request

import pytest

from infra.local import servers

pytestmark = pytest.mark.servers


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_prefect_server_answers_and_keeps_its_data_at_home(tmp_path):
    with servers.prefect_server(tmp_path / "prefect", servers.free_port()) as server:
        assert json.loads(get(f"{server.url}/health")) is True
        assert (tmp_path / "prefect" / "prefect.db").is_file()
        assert b"<html" in get(server.url.removesuffix("/api") + "/").lower()


def test_mlflow_server_answers_without_its_job_runner(tmp_path):
    with servers.mlflow_server(tmp_path / "mlflow", servers.free_port()) as server:
        assert get(f"{server.url}/health") == b"OK"
        assert (tmp_path / "mlflow" / "mlflow.db").is_file()


def test_weed_hides_its_keys_from_other_users(tmp_path):
    keys = servers.Keys("name", "secret-of-the-test")
    server = servers.weed_mini(tmp_path / "weed", keys)
    assert stat.S_IMODE((tmp_path / "weed" / "s3.json").stat().st_mode) == 0o600
    assert not any(keys.secret in word for word in server.command)
    with server:
        assert len(server.ports) == 10
