"""Registration against a real MLflow on SQLite; one store and registry for all of these."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.registration.against_teacher import against_teacher
from pipeline.registration.config import RegistrationConfig
from pipeline.registration.cost import image_cost
from pipeline.registration.mlflow_registry import Registry
from pipeline.registration.outcomes import read_outcomes
from pipeline.registration.program_check import check_program
from pipeline.registration.stage import RegisterModel
from pipeline.service_url import shown_url
from pipeline.stage import run_stage
from pipeline.training.tracking import ensure_tracking_uri

pytestmark = pytest.mark.servers

# A process in which nothing of ours, and none of our tools, can be imported.
STRANGER = """
import sys
REFUSED = {"flows", "pipeline", "model_defs", "infra", "prefect", "ray", "webdataset", "instant_clip_tokenizer",
           "simplejpeg", "boto3", "safetensors"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{name} is refused here", name=name)
sys.meta_path.insert(0, Refuse())
"""


def python(code: str, **env: str) -> subprocess.Popen[str]:
    full = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    full.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code], env=full, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def test_only_a_better_model_moves_the_alias_and_says_why(colours: Any) -> None:
    registry = Registry.open(colours.store)

    def champion() -> int:
        found = registry.champion("colours")
        assert found is not None
        return found.version

    name = {"classifier_name": "colours"}
    first = colours.register(colours.classifier("red"), **name)
    assert (first.summary["version"], first.summary["promoted"]) == (1, True)
    assert first.summary["reason"].startswith("no champion yet; accuracy 0.")
    assert champion() == 1
    assert first.summary["lookup"] == 'mlflow.pyfunc.load_model("models:/colours@champion")'
    weights = colours.classifier("red").files["model/model.safetensors"].size
    assert first.summary["parameters"] * 4 / 1e6 == pytest.approx(first.summary["megabytes"], abs=0.01)
    assert first.summary["parameters"] * 4 < weights
    assert 0 < first.summary["latency_ms"] < 10_000

    better = colours.register(colours.classifier(), **name)
    assert (better.summary["version"], better.summary["promoted"]) == (2, True)
    assert "better than the champion: accuracy 1.0000 against 0." in better.summary["reason"]
    assert champion() == 2
    assert registry.version_of("models:/colours@challenger").version == 1, "the replaced champion"

    worse = colours.register(colours.classifier("blue"), **name)
    assert (worse.summary["version"], worse.summary["promoted"]) == (3, False)
    assert worse.summary["champion"] == 2
    assert worse.summary["reason"].startswith("not better than the champion: accuracy 0.")
    assert champion() == 2
    assert registry.version_of("models:/colours@challenger").version == 3
    assert worse.summary["lookup"] == 'mlflow.pyfunc.load_model("models:/colours/3")'

    cards = {one.key: one.path("model_card.md").read_text() for one in (better, worse)}
    assert 'load_model("models:/colours/2")' in cards[better.key]
    assert "## Gate\n\nPromoted to champion: better than the champion: accuracy 1.0000 against 0." in cards[better.key]
    assert 'load_model("models:/colours/3")' in cards[worse.key]
    assert "## Gate\n\nNot promoted: not better than the champion: accuracy 0." in cards[worse.key]
    client = MlflowClient(registry.tracking_uri)
    assert client.get_model_version("colours", "3").description == cards[worse.key]

    # Asked anew, e.g. because the artifact was lost: the same version, the same answer.
    again = colours.register(colours.classifier("blue"), **name, gate={"max_p_value": 0.01})
    assert (again.summary["version"], again.summary["promoted"]) == (3, False)

    version = registry.find("colours", colours.classifier("blue").name)
    assert version is not None
    assert version.tags["tutelage.promoted"] == "no"
    assert version.tags["tutelage.compared_with"] == "2"
    assert version.tags["tutelage.shards"] == colours.shards.name
    assert version.tags["tutelage.evaluation"].startswith("evaluate/")
    assert version.tags["tutelage.data_licences"] == "CC0-1.0"
    assert len(version.tags["tutelage.config"]) == 20


def test_a_champion_whose_artifact_is_gone_is_measured_from_the_registry(
    colours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = colours.classifier("green")
    colours.register(champion, classifier_name="elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _uri_without_env(colours, monkeypatch))
    other = ArtifactStore.open(str(tmp_path / "other"))
    shards, better = (_copied(artifact, other) for artifact in (colours.shards, colours.classifier()))
    evaluation = run_stage(EvaluateModel(), EvaluationConfig(), {"shards": shards, "model": better}, store=other)
    config = RegistrationConfig(classifier_name="elsewhere").resolved(other)
    inputs = {"model": better, "evaluation": evaluation, "shards": shards}
    summary = run_stage(RegisterModel(), config, inputs, store=other).summary
    assert summary["promoted"], summary["reason"]
    assert "better than the champion" in summary["reason"]


def _uri_without_env(colours: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return ensure_tracking_uri(colours.store)


def _copied(artifact: Artifact, store: ArtifactStore) -> Artifact:
    folder = store.local / "copies" / artifact.key
    for name in artifact.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(artifact.read(name))
    manifest = artifact.manifest
    return store.commit(
        artifact.stage,
        artifact.key,
        folder,
        config=manifest["config"],
        inputs=manifest["inputs"],
        summary={},
        seconds=0,
        origin=manifest["origin"],
    )


def test_a_service_answers_alike_for_every_form_of_a_picture_and_outlives_damaged_ones(
    colours: Any, tmp_path: Path
) -> None:
    """The forms hold the same pixels. Of the damaged ones each used to end the process."""
    colours.register(colours.classifier(), classifier_name="forms")
    plain = colours.picture("red", 5000)
    image = Image.open(io.BytesIO(plain)).convert("RGB")
    forms: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "palette.png": (image.quantize(256), "PNG", {}),
        "alpha.png": (image.convert("RGBA"), "PNG", {}),
        "key.png": (image, "PNG", {"transparency": (1, 2, 3)}),
        "plain.webp": (image, "WEBP", {"lossless": True}),
        "plain.gif": (image.quantize(256), "GIF", {}),
        "plain.bmp": (image, "BMP", {}),
        "plain.tiff": (image, "TIFF", {"compression": "tiff_lzw"}),
        "plain.avif": (image, "AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        "plain.jp2": (image, "JPEG2000", {}),
        "plain.ppm": (image, "PPM", {}),
    }
    (tmp_path / "plain.png").write_bytes(plain)
    for name, (form, kind, options) in forms.items():
        form.save(tmp_path / name, kind, **options)
    end, body = plain.index(b"IEND") - 4, plain.index(b"IDAT")
    length = int.from_bytes(plain[body - 4 : body], "big")
    cut = plain[body : body + 4 + length - 4]
    without_checksum = struct.pack(">I", length - 4) + cut + struct.pack(">I", zlib.crc32(cut))
    damaged = {
        "no-end.png": plain[:end],
        "no-checksum.png": plain[: body - 4] + without_checksum + plain[end:],
        "half.png": plain[: len(plain) // 2],
        "noise.png": plain[: body + 20] + bytes(60) + plain[body + 80 :],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
    code = (
        STRANGER
        + f"""
import json, mlflow
mlflow.set_tracking_uri({ensure_tracking_uri(colours.store)!r})
classifier = mlflow.pyfunc.load_model("models:/forms@champion")
def ask(name):
    try:
        answer = classifier.predict([open(f"{tmp_path}/{{name}}", "rb").read()])
        return [answer["label"][0], answer["score"][0]]
    except Exception as error:
        return str(error)
print(json.dumps({{name: ask(name) for name in {["plain.png", *forms, *damaged]!r}}}))
"""
    )
    answers = json.loads(finished(python(code, HOME=str(tmp_path))).splitlines()[-1])
    label, score = answers["plain.png"]
    assert label == "red"
    for name in [*forms, "no-end.png", "no-checksum.png"]:
        assert answers[name][0] == label, answers
        assert answers[name][1] == pytest.approx(score, abs=0.02), answers
    for name in ("half.png", "noise.png"):
        assert "cannot be decoded" in answers[name]


@pytest.mark.heavy
def test_a_stranger_loads_both_models_by_alias_and_predicts_from_bytes(colours: Any, tmp_path: Path) -> None:
    colours.register(colours.classifier(), classifier_name="strange")
    clip = colours.register(colours.clip(), clip_name="strange-clip", gate={"beat_floor": False})
    assert clip.summary["lookup"] == 'mlflow.pyfunc.load_model("models:/strange-clip@champion")'
    for label in ("red", "blue"):
        (tmp_path / f"{label}.png").write_bytes(colours.picture(label, 5000))
    code = (
        STRANGER
        + f"""
import json, logging, mlflow
mlflow.set_tracking_uri({ensure_tracking_uri(colours.store)!r})
images = [open(f"{tmp_path}/{{label}}.png", "rb").read() for label in ("red", "blue")]
classifier = mlflow.pyfunc.load_model("models:/strange@champion")
answer = classifier.predict(images)
clip = mlflow.pyfunc.load_model("models:/strange-clip@champion")
ranked = clip.predict(images, params={{"prompts": ["a red square", "a blue sky", "nothing"]}})
plain = clip.predict(images[:1])
try:
    classifier.predict([images[0], b"no image"])
except Exception as error:
    refusal = str(error)
loaded = sorted(REFUSED & {{name.partition(".")[0] for name in sys.modules}})
print(json.dumps([answer.to_dict("list"), ranked.to_dict("list"), plain.to_dict("list"), refusal, loaded]))
"""
    )
    out = finished(python(code, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false", HOME=str(tmp_path)))
    answer, ranked, plain, refusal, ours = json.loads(out.splitlines()[-1])
    assert answer["label"] == ["red", "blue"]
    assert min(answer["score"]) > 0.5
    assert sorted(entry["label"] for entry in answer["top_k"][0]) == ["blue", "green", "red"]
    assert all(
        sorted(entry["label"] for entry in row) == ["a blue sky", "a red square", "nothing"]
        for row in ranked["ranking"]
    )
    cosines = [entry["cosine"] for entry in ranked["ranking"][0]]
    assert cosines == sorted(cosines, reverse=True)
    assert {entry["label"] for entry in plain["ranking"][0]} == {"blue", "green", "red"}
    assert "image 2 of 2 (8 bytes) cannot be decoded" in refusal
    assert ours == []


def test_a_version_is_found_by_its_alias_and_by_its_number(colours: Any, tmp_path: Path) -> None:
    colours.register(colours.classifier(), classifier_name="named")
    registry = Registry.open(colours.store)
    by_alias, by_number = registry.version_of("models:/named@champion"), registry.version_of("models:/named/1")
    assert by_alias == by_number == registry.champion("named")
    assert registry.fetch(by_alias, tmp_path).labels == ("blue", "green", "red")
    for uri in ("models:/named@challenger", "models:/named/7", "models:/nobody/1"):
        with pytest.raises(InputError, match="cannot be looked up"):
            registry.version_of(uri)
    with pytest.raises(InputError, match="write models:/NAME@ALIAS"):
        registry.version_of("models:/named")


def test_a_version_holds_no_path_of_this_machine_and_no_pickled_code(colours: Any, tmp_path: Path) -> None:
    colours.register(colours.clip(), clip_name="strange-clip", gate={"beat_floor": False})
    registry = Registry.open(colours.store)
    version = registry.champion("strange-clip")
    assert version is not None
    folder = registry.fetch(version, tmp_path).folder.parents[2]
    here = str(Path(__file__).parents[3]).encode()
    for file in (path for path in folder.rglob("*") if path.is_file()):
        assert file.suffix not in (".pkl", ".pickle"), file
        assert here not in file.read_bytes(), file
        if file.suffix == ".pt2":
            check_program(file)
    text = (folder / "MLmodel").read_text()
    assert "model_code_path: served_model.py" in text
    assert "uri: artifacts/served" in text
    required = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in required} == {"mlflow", "numpy", "pandas", "pillow", "torch"}
    card = registry._client.get_model_version("strange-clip", str(version.version)).description
    assert "# strange-clip" in card
    assert "image finds its text, recall@1 |" in card
    assert "It normalises pixels by mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 itself." in card
    assert "chance" in card
    assert "CC0-1.0" in card


def test_two_processes_that_promote_at_once_decide_one_after_the_other(colours: Any) -> None:
    config = RegistrationConfig(classifier_name="race").resolved(colours.store)
    registry = Registry.open(colours.store)
    contestants = [colours.classifier(), colours.classifier("green")]
    evaluations = [colours.evaluate(model) for model in contestants]
    for model in contestants:
        # Registered before, so that the two are as near to each other as can be when they decide.
        registry.register(
            "race", ExportedModel.open(model), tags={"tutelage.model": model.name}, metrics={}, description=""
        )
    processes = [
        python(f"""
from pipeline.artifacts import ArtifactStore
from pipeline.registration.against_teacher import against_teacher
from pipeline.registration.config import RegistrationConfig
from pipeline.registration.cost import image_cost
from pipeline.registration.stage import RegisterModel
from pipeline.stage import run_stage
store = ArtifactStore.open({colours.store.storage.url!r})
inputs = {{"model": store.resolve({model.name!r}), "evaluation": store.resolve({evaluation.name!r}),
          "shards": store.resolve({colours.shards.name!r})}}
config = RegistrationConfig.model_validate_json({config.model_dump_json()!r})
print(run_stage(RegisterModel(), config, inputs, store=store).name)
""")
        for model, evaluation in zip(contestants, evaluations, strict=True)
    ]
    good, poor = (colours.store.resolve(finished(process).split()[-1]).summary for process in processes)
    assert {good["version"], poor["version"]} == {1, 2}
    assert good["promoted"]
    champion = registry.champion("race")
    assert champion is not None
    assert champion.version == good["version"]
    # Only one of them can have met an empty throne; the other was compared with it.
    reasons = [good["reason"], poor["reason"]]
    assert sum(reason.startswith("no champion yet") for reason in reasons) == 1
    assert sum("the champion: accuracy" in reason for reason in reasons) == 1


def test_what_does_not_belong_together_is_refused(colours: Any) -> None:
    inputs = {**colours.inputs(colours.classifier()), "model": colours.classifier("red")}
    config = RegistrationConfig().resolved(colours.store)
    with pytest.raises(InputError, match=r"evaluated model train-teacher/\w+, .*give the evaluation of this model"):
        run_stage(RegisterModel(), config, inputs, store=colours.store)
    with pytest.raises(InputError, match="not of this registry"):
        run_stage(RegisterModel(), RegistrationConfig(), colours.inputs(colours.classifier()), store=colours.store)


def test_a_fresh_registry_has_another_identity_and_no_identity_shows_a_password(colours: Any, tmp_path: Path) -> None:
    here = Registry.open(colours.store).identity()
    assert here == Registry.open(colours.store).identity()
    assert here != Registry.open(ArtifactStore.open(str(tmp_path))).identity()
    assert shown_url("postgresql://me:secret@db:5432/mlflow?sslpassword=x") == "postgresql://db:5432/mlflow"
    assert shown_url("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


def test_a_model_that_three_register_at_once_is_one_version(colours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each has looked for the model's version before any of them has made one.
    model = colours.classifier("green")
    colours.evaluate(model)
    all_looked = threading.Barrier(3)
    looked: set[int] = set()
    find = Registry.find

    def find_together(self: Registry, name: str, uri: str) -> Any:
        found = find(self, name, uri)
        if threading.get_ident() not in looked:
            looked.add(threading.get_ident())
            all_looked.wait(60)
        return found

    monkeypatch.setattr(Registry, "find", find_together)
    # Three configs, so three artifacts: the lock of one key does not make them wait for each other.
    changes = [{"classifier_name": "together", "gate": {"seed": seed}} for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda change: colours.register(model, **change), changes))
    assert [artifact.summary["version"] for artifact in made] == [1, 1, 1]
    client = MlflowClient(ensure_tracking_uri(colours.store))
    assert len(client.search_model_versions("name = 'together'")) == 1
    experiment = client.get_experiment_by_name("tutelage")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'register-together'")
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_a_student_that_is_hardly_smaller_is_compared_with_its_teacher_in_one_sentence(colours: Any) -> None:
    student, teacher = colours.classifier(forgets="green"), colours.classifier()
    colours.evaluate(teacher)
    inputs = {**colours.inputs(student), "teacher": teacher}
    cost = image_cost(ExportedModel.open(student))
    outcomes = read_outcomes(inputs["evaluation"])
    said = against_teacher(cost, outcomes, inputs, colours.store)
    size = f"{cost['parameters'] / 1e6:.2f}M parameters ({cost['megabytes']:.1f} MB)"
    assert said is not None
    assert said.startswith(f"The student has {size}, its teacher {size}; the student is ")
    assert "points less accurate than its teacher (difference \u2212" in said
    small = {"parameters": cost["parameters"] / 10, "megabytes": 0.1}
    assert against_teacher(small, read_outcomes(colours.evaluate(teacher)), inputs, colours.store) is None
    assert against_teacher(cost, outcomes, colours.inputs(student), colours.store) is None
