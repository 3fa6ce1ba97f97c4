"""The package: an ExportedModel as an MLflow model folder that loads without Tutelage.

    MLmodel, requirements.txt, ...     MLflow's own
    served_model.py                    the code that MLflow runs (models-from-code: no pickle), in one file
    artifacts/served/service.json      settings of the code, and the SHA-256 of every other file in served/
                     *.pt2             exported programs, without pickled content
                     program_check.py  checks digests and programs before a program is loaded
                     model/            a copy of the ExportedModel, weights in safetensors
                     bpe.py, vocabulary.json.gz    for a dual encoder: the tokenizer; or
                     wordpiece.py, model/wordpieces.json.gz

MLmodel has no paths of the machine that created it.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.version
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from pipeline.evaluation.prompt_templates import PLACEHOLDER, prompts_for
from pipeline.exported_model import ExportedModel
from pipeline.loading import bpe, wordpiece
from pipeline.loading.vocabulary import write_vocabulary
from pipeline.loading.wordpiece_vocabulary import VOCABULARY as WORD_PIECES
from pipeline.owners import temporary_folder
from pipeline.registration import program_check
from pipeline.registration.program import write_programs

# The imports that the source of pixels/decode.py replaces in the stored copy of served_model.py.
_DECODE_IMPORTS = (
    "from pipeline.pixels.decode import MAX_DECODED_BYTES\nfrom pipeline.pixels.decode import decode as decode_pixels\n"
)

# MLflow stores the model that a script sets in a global, so packages are written one at a time.
_one_at_a_time = threading.Lock()


def write_package(exported: ExportedModel, folder: Path, mlflow_model: Model | None = None) -> Model:
    """Writes the MLflow model to `folder`, which must not exist; returns its metadata (MLmodel).

    Args:
        mlflow_model: metadata with the ID of the run to which the model belongs; None: it belongs to no run.
    """
    with temporary_folder() as name:
        served = Path(name) / "served"
        served.mkdir()
        write_served_files(exported, served)
        return _save(exported, served, folder, mlflow_model or Model())


def write_served_files(exported: ExportedModel, folder: Path) -> None:
    """Writes the files that served_model.py reads to an empty folder."""
    service: dict[str, Any] = {
        "kind": exported.kind,
        "programs": write_programs(exported, folder),
        "image_size": exported.preprocessing.image_size,
        "channels": exported.preprocessing.channels,
        "labels": list(exported.labels),
    }
    if exported.kind == "dual-encoder":
        templates = exported.templates or (PLACEHOLDER,)
        service["label_prompts"] = [prompts_for(label, templates) for label in exported.labels]
        service["context_length"] = exported.context_length
        service["logit_scale"] = float(exported.weights()["logit_scale"].exp())
        service["tokenizer"] = _write_tokenizer(exported, folder)
    shutil.copytree(exported.folder, folder / "model")
    shutil.copyfile(program_check.__file__, folder / "program_check.py")
    service["digests"] = program_check.digests_of(folder)
    text = json.dumps(service, indent=1, ensure_ascii=False) + "\n"
    (folder / "service.json").write_text(text, encoding="utf-8")


def _write_tokenizer(exported: ExportedModel, folder: Path) -> dict[str, str]:
    """Copies the source of the tokenizer and its vocabulary; returns their file names and the name of its class."""
    if exported.reads_word_pieces:
        shutil.copyfile(wordpiece.__file__, folder / "wordpiece.py")
        return {"code": "wordpiece.py", "class": "WordPieceEncoder", "vocabulary": f"model/{WORD_PIECES}"}
    shutil.copyfile(bpe.__file__, folder / "bpe.py")
    write_vocabulary(folder / "vocabulary.json.gz")
    return {"code": "bpe.py", "class": "BytePairEncoder", "vocabulary": "vocabulary.json.gz"}


def requirements() -> list[str]:
    """The packages that a process needs to load a registered model, pinned to the installed versions."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "pandas", "numpy", "pillow")]


def served_code() -> str:
    """The source of served_model.py, with the source of pixels/decode.py in place of its import."""
    packages = Path(__file__).resolve().parents[1]
    code = (packages / "registration" / "served_model.py").read_text(encoding="utf-8")
    contract = (packages / "pixels" / "decode.py").read_text(encoding="utf-8")
    contract = contract.replace("from __future__ import annotations\n", "") + "\n\ndecode_pixels = decode\n"
    before, imports, after = code.partition(_DECODE_IMPORTS)
    if not imports:
        raise AssertionError("served_model.py imports the decoding contract otherwise than package.py expects")
    return f"{before}{contract}{after}"


def signature(kind: str) -> ModelSignature:
    """The MLflow signature: images as bytes in; label, score, runners-up out; prompts as a parameter (dual encoder)."""
    entry = [Property("label", DataType.string), Property("score", DataType.double)]
    params: Any = None
    if kind == "dual-encoder":
        entry.append(Property("cosine", DataType.double))
        params = ParamSchema([ParamSpec("prompts", DataType.string, [], shape=(-1,))])
    rest = "ranking" if kind == "dual-encoder" else "top_k"
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary)]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "score"),
                ColSpec(Array(Object(entry)), rest),
            ]
        ),
        params=params,
    )


def _save(exported: ExportedModel, served: Path, folder: Path, model: Model) -> Model:
    with _one_at_a_time, _quiet(), temporary_folder() as name:
        code = Path(name) / "served_model.py"
        code.write_text(served_code(), encoding="utf-8")
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(code),
            artifacts={"served": str(served)},
            pip_requirements=requirements(),
            mlflow_model=model,
        )
    # MLflow infers the inputs from the type hint of `predict`; hints cannot express the parameter and the outputs.
    hinted = model.signature
    model.signature = signature(exported.kind)
    model.signature._is_signature_from_type_hint = hinted._is_signature_from_type_hint
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for entry in flavor["artifacts"].values():
        entry["uri"] = entry["path"]
    model.save(folder / MLMODEL_FILE_NAME)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences MLflow's warning that the code may change: the copy in the package does not."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
