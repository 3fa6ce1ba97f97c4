"""The parameters of a run are read, and refused, in a process that imports neither torch nor MLflow."""

from __future__ import annotations

import subprocess
import sys

READ = """
import sys
from flows.cli.app import main
print("codes", [main(arguments) for arguments in (
    ["presets"],
    ["sources"],
    ["config", "lifecycle", "--preset", "fashion-mnist"],
    ["run", "lifecycle", "--preset", "emojy"],
    ["run", "lifecycle", "--set", "teacher.trainning.epochs=1"],
)])
heavy = {"torch", "torchvision", "mlflow", "ray", "prefect", "pandas", "matplotlib", "pyarrow.compute"}
print("heavy", sorted(heavy & set(sys.modules)))
"""


def test_parameters_are_read_and_refused_without_torch_and_mlflow() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["codes [0, 0, 0, 2, 2]", "heavy []"]
    assert "teacher.trainning" in done.stderr
