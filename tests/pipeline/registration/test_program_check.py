"""A served model loads what was registered and runs nothing that a file brings along."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow.exceptions import MlflowException

from model_defs import create_model
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.registration.package import write_served_files
from pipeline.registration.program_check import DamagedProgramError, check_program, digests_of, load_program
from pipeline.registration.served_model import ServedModel

Entries = dict[str, bytes]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The served files of a small classifier."""
    folder = tmp_path_factory.mktemp("served")
    kwargs = {"num_classes": 3, "in_chans": 3, "img_size": 16, "widths": [8], "depths": [1]}
    exported = ExportedModel.write(
        folder / "model",
        create_model("resnet_small", **kwargs),
        kind="classifier",
        architecture="resnet_small",
        kwargs=kwargs,
        preprocessing=Preprocessing(16, 3, (0.5,) * 3, (0.25,) * 3),
        labels=["a", "b", "c"],
    )
    (folder / "files").mkdir()
    write_served_files(exported, folder / "files")
    return folder / "files"


def copied(served: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(served, tmp_path / "copy"))


def load(folder: Path) -> ServedModel:
    model = ServedModel()
    model.load_context(SimpleNamespace(artifacts={"served": str(folder)}))
    return model


def rewritten(path: Path, change: Callable[[Entries], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"program/{name}", data)


def signed_again(folder: Path) -> None:
    """As one who can write to the registry would: the digests are those of the changed files."""
    place = folder / "service.json"
    service = json.loads(place.read_text())
    place.unlink()
    service["digests"] = digests_of(folder)
    place.write_text(json.dumps(service))


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": Bomb(mark)}, buffer)
    return buffer.getvalue()


def in_config(name: str, payload: dict[str, Any], data: bytes) -> Callable[[Entries, Path], None]:
    def change(entries: Entries, mark: Path) -> None:
        kind = "weights" if payload["path_name"].startswith("weight") else "constants"
        place = f"data/{kind}/model_{kind}_config.json"
        config = json.loads(entries[place])
        config["config"][name] = payload
        entries[place] = json.dumps(config).encode()
        entries[f"data/{kind}/{payload['path_name']}"] = data or pickled(mark)

    return change


def in_graph(old: str, new: str) -> Callable[[Entries, Path], None]:
    def change(entries: Entries, mark: Path) -> None:
        text = entries["models/model.json"].decode()
        changed, count = re.subn(old, new.replace("MARK", str(mark)), text, count=1)
        assert count == 1
        entries["models/model.json"] = changed.encode()

    return change


def sample_inputs(entries: Entries, mark: Path) -> None:
    entries["data/sample_inputs/model.pt"] = pickled(mark)


def old_format(entries: Entries, mark: Path) -> None:
    entries["serialized_example_inputs.pt"] = pickled(mark)


def legacy_weights(entries: Entries, mark: Path) -> None:
    entries["data/weights/model.pt"] = pickled(mark)


def compiled(entries: Entries, mark: Path) -> None:
    entries["data/aotinductor/model/lib.so"] = b"\x7fELF"


def opaque(entries: Entries, mark: Path) -> None:
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    in_config("x", payload, pickle.dumps(Bomb(mark)))(entries, mark)


EVIL: dict[str, Callable[[Entries, Path], None]] = {
    "sample inputs": sample_inputs,
    "old format": old_format,
    "legacy weights": legacy_weights,
    "compiled code": compiled,
    "opaque object": opaque,
    "pickled weight": in_config(
        "x", {"path_name": "weight_99", "is_param": False, "use_pickle": True, "tensor_meta": None}, b""
    ),
    "evaluated size": in_graph(
        r"Symbol\('s\d+', positive=True, integer=True\)", "__import__('pathlib').Path('MARK').touch() or Symbol('s7')"
    ),
    "other operator": in_graph(r"torch\.ops\.aten\.conv2d\.default", "torch.serialization.os.system"),
    "code of guards": in_graph(r'"guards_code": \[\]', "\"guards_code\": [\"open('MARK', 'w')\"]"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_a_program_that_brings_code_is_refused_and_does_not_run(served: Path, tmp_path: Path, kind: str) -> None:
    folder, mark = copied(served, tmp_path), tmp_path / "ran"
    rewritten(folder / "program.pt2", lambda entries: EVIL[kind](entries, mark))
    with pytest.raises(MlflowException, match=r"program\.pt2: its bytes are not those that were registered"):
        load(folder)
    signed_again(folder)
    with pytest.raises(MlflowException, match=r"program\.pt2: .*not loaded"):
        load(folder)
    assert not mark.exists()


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "program.pt2"
    for data in (b"", b"PK", pickle.dumps({}), b"x" * 1000):
        place.write_bytes(data)
        with pytest.raises(DamagedProgramError, match="not a program"):
            load_program(place)


@pytest.mark.parametrize("name", ["program.pt2", "model/model.safetensors", "model/labels.json"])
def test_a_flipped_bit_in_a_registered_model_is_found_when_it_is_loaded(
    served: Path, tmp_path: Path, name: str
) -> None:
    folder = copied(served, tmp_path)
    assert len(load(folder).predict([]).columns) == 3
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(MlflowException, match="its bytes are not those that were registered; register the model again"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(MlflowException, match="cannot be read"):
        load(folder)


def test_a_program_of_ours_holds_no_pickle(served: Path) -> None:
    check_program(served / "program.pt2")
    with zipfile.ZipFile(served / "program.pt2") as archive:
        assert archive.getinfo("program/data/sample_inputs/model.pt").file_size == 0
        assert not any(archive.read(name)[:2] in (b"PK", b"\x80\x02", b"\x80\x04") for name in archive.namelist())
