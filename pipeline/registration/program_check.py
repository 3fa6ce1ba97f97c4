"""The check of a program before a served model loads it: it is the registered file, and it is data only.

torch.export.load may run code from its file: it unpickles sample inputs, and values marked as pickled, without
`weights_only` if that fails; it evaluates the expressions of sizes; and a node may name any function below `torch`. The
programs that Tutelage writes have none of these, so all of them are refused, and nothing is unpickled.

This file is copied into registered models, so it imports only the standard library and torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_ENTRY = re.compile(
    r"[^/]+/(archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)|\.format_version"
    r"|\.storage_alignment|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json))"
)
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision)\.\w+(\.\w+)?|torch\.sym_\w+|torch\._sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|index)"
)
_TOKEN = re.compile(r"[A-Za-z_]\w*|'[^']*'|\d+|\S")
# The words in sizes as sympy writes them: Mul(Integer(4), Symbol('s77', positive=True, integer=True))
_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        Symbol Integer Rational Float Add Mul Pow Mod Max Min FloorDiv CeilDiv CleanDiv PythonMod ModularIndexing
        TruncToInt FloorToInt CeilToInt RoundToInt IntTrueDiv FloatTrueDiv ToFloat PowByNatural Identity Piecewise Where
        Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not
        positive negative nonnegative nonpositive integer real nonzero finite zero even odd precision True False
        oo int_oo
        """,
    )
)
_environment_lock = threading.Lock()


class DamagedProgramError(ValueError):
    """A file of a registered model has changed since registration, or a program contains more than data."""


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 in hex of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Checks that the files are those that were registered.

    Raises:
        DamagedProgramError: a file is missing or has other bytes.
    """
    for name, wanted in digests.items():
        path = folder / name
        try:
            digest = _sha256(path)
        except OSError as error:
            raise DamagedProgramError(f"{path}: cannot be read ({error.strerror}); register the model again") from None
        if digest != wanted:
            raise DamagedProgramError(f"{path}: its bytes are not those that were registered; register the model again")


def check_program(path: Path) -> None:
    """Checks that a program consists of weights and a graph of known operators.

    Raises:
        DamagedProgramError: it contains something that could run code, or is not a program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                if _ENTRY.fullmatch(name) is None:
                    raise DamagedProgramError(f"{path}: holds {name!r}, which no program of Tutelage does; not loaded")
            if len(set(names)) != len(names) or len({name.partition("/")[0] for name in names}) != 1:
                raise DamagedProgramError(f"{path}: holds two entries of one name; not loaded")
            for name in names:
                content = name.partition("/")[2]
                if content == "data/sample_inputs/model.pt" and archive.getinfo(name).file_size:
                    raise DamagedProgramError(f"{path}: holds pickled sample inputs, which may run code; not loaded")
                if content.endswith("_config.json"):
                    _check_payloads(path, json.loads(archive.read(name)))
                elif content == "models/model.json":
                    _check_graph(path, json.loads(archive.read(name)))
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, DamagedProgramError):
            raise
        raise DamagedProgramError(f"{path}: not a program ({type(error).__name__}: {error})") from None


def load_program(path: Path) -> Any:
    """The module of a program after `check_program`, loaded with pickle refused.

    Raises:
        DamagedProgramError: from `check_program`.
    """
    import torch

    check_program(path)
    # torch falls back to `weights_only=False` on its own; this variable forbids that.
    with _environment_lock:
        before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        try:
            return torch.export.load(str(path)).module()
        finally:
            if before is None:
                del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
            else:
                os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def _check_payloads(path: Path, content: Any) -> None:
    for name, payload in content["config"].items():
        plain = re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]) is not None
        if payload["use_pickle"] is not False or not plain:
            raise DamagedProgramError(f"{path}: its {name!r} is pickled, which may run code; not loaded")


def _check_graph(path: Path, content: Any) -> None:
    if content.get("guards_code"):
        raise DamagedProgramError(f"{path}: holds code of guards; not loaded")
    for entry in _dicts(content):
        target = entry.get("target")
        if "inputs" in entry and isinstance(target, str) and _OPERATOR.fullmatch(target) is None:
            raise DamagedProgramError(f"{path}: calls {target!r}, which is no operator; not loaded")
        expression = entry.get("expr_str", "")
        if not isinstance(expression, str) or not all(_is_plain(token) for token in _TOKEN.findall(expression)):
            raise DamagedProgramError(f"{path}: a size is {str(expression)[:80]!r}, which may run code; not loaded")


def _is_plain(token: str) -> bool:
    if token.startswith("'"):
        return re.fullmatch(r"'\w+'", token) is not None
    return token in _WORDS or token.isdigit() or token in "(),=+-*/" or re.fullmatch(r"[suz]\d+", token) is not None


def _dicts(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        yield content
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _dicts(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
