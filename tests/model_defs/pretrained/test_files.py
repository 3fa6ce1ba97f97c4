from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model_defs import ModelError
from model_defs.pretrained.files import read_state
from model_defs.pretrained.weights_source import FileSource


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 7, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {"model": {"w": torch.zeros(1)}, "model_ema": state},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    ],
)
def test_a_state_dict_is_found_in_what_training_scripts_wrap_it_into(tmp_path: Path, wrap: object) -> None:
    state = {"stem.weight": torch.arange(3.0), "head.bias": torch.ones(2)}
    torch.save(wrap(state), tmp_path / "weights.pth")
    found = read_state(tmp_path / "weights.pth")
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert set(read_state(tmp_path / "w.pt")) == {"module.a", "b"}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["weights.pth", "weights.bin"])
def test_pickled_objects_are_refused_and_do_not_run(tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": {"w": torch.ones(1)}, "args": Bomb(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name}: holds pickled Python objects.*safetensors"):
        read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"w": Bomb(tmp_path / "ran")}))
    with pytest.raises(ModelError, match="holds pickled Python objects"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_archive_is_refused_as_code(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "clip.pt")
    with pytest.raises(ModelError, match="TorchScript archive, which is code"):
        read_state(tmp_path / "clip.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_file_that_was_cut_is_an_error_in_one_line(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole-{name}"
    (save_file if name.endswith("safetensors") else torch.save)({"w": torch.ones(5000)}, whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ModelError, match=rf"{name}: cannot be read") as caught:
        read_state(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="holds no tensors by name"):
        read_state(tmp_path / "w.pth")


def test_tied_tensors_of_an_exported_model_come_back_under_both_names(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"same_as": '{"b": "a"}'})
    assert set(read_state(tmp_path / "model.safetensors")) == {"a", "b"}


def test_a_folder_gives_its_usual_file_also_as_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds none of model\.safetensors, "):
        FileSource(tmp_path).locate()
    (tmp_path / "model").mkdir()
    inside = tmp_path / "model" / "model.safetensors"
    inside.touch()
    assert FileSource(tmp_path).locate() == inside
    (tmp_path / "pytorch_model.bin").touch()
    assert FileSource(tmp_path).locate() == tmp_path / "pytorch_model.bin"
    assert FileSource(inside).locate() == inside
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelError, match=r"notes\.txt: no file of weights by its name"):
        FileSource(tmp_path / "notes.txt").locate()
    with pytest.raises(ModelError, match="there is no such file or folder"):
        FileSource(tmp_path / "gone.safetensors").locate()
