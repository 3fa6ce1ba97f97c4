"""The registry: MLflow's model versions and their aliases, without MLflow's global state.

Every call goes through a client to one tracking URI, so concurrent stages in one process do not change each
other's URI. Versions of a registered model have their lineage as tags.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipeline.artifacts import ArtifactStore
from pipeline.errors import DamagedError, InputError, WorkError, first_line
from pipeline.exported_model import ExportedModel
from pipeline.owners import temporary_folder
from pipeline.printable import printable
from pipeline.registration.package import write_package
from pipeline.registration.program_check import check_files
from pipeline.registration.promotion_lease import Lease
from pipeline.service_url import shown_url, without_credentials
from pipeline.training.tracking import EXPERIMENT, ensure_tracking_uri, tracking_uri_in_a_run
from pipeline.training.tracking_uri import allow_long_transfers

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL_TAG = "tutelage.model"

_FOLDER = "model"  # of the MLflow model inside its run
_LONGEST_DESCRIPTION = 5000  # of a version, in MLflow's own schema
_LONGEST_TAG = 5000  # MLflow's limit is 8,000 for a run and 100,000 for a version; some databases' limit is 5,000
_METRICS_PER_CALL = 1000  # MLflow's limit


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        tags: lineage, and the gate's decision; all names begin with "tutelage.".
        source: URI of its files in MLflow.
    """

    name: str
    version: int
    tags: dict[str, str]
    source: str

    @property
    def uri(self) -> str:
        """The URI for `mlflow.pyfunc.load_model`."""
        return f"models:/{self.name}/{self.version}"


class Registry:
    """The registry at a tracking URI, initialised.

    Attributes:
        tracking_uri: may have a user and a password in it.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._client = MlflowClient(tracking_uri, registry_uri=tracking_uri)

    @classmethod
    def open(cls, store: ArtifactStore, *, in_a_run: bool = False) -> Registry:
        """The registry that MLFLOW_TRACKING_URI names, else the one inside the store.

        Args:
            in_a_run: a failure is a WorkError, since work has been done before.
        Raises:
            InputError: the registry cannot be used.
            WorkError: likewise, in a run.
        """
        return cls(tracking_uri_in_a_run(store) if in_a_run else ensure_tracking_uri(store))

    @property
    def shown_uri(self) -> str:
        """The tracking URI without user and password."""
        return shown_url(self.tracking_uri)

    def identity(self) -> str:
        """An identifier of this registry; deleting and creating a registry again changes it."""
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        created = (experiment.experiment_id, experiment.creation_time) if experiment is not None else ()
        return hashlib.sha256(f"{shown_url(self.tracking_uri)} {created}".encode()).hexdigest()[:16]

    def find(self, name: str, model: str) -> RegisteredVersion | None:
        """The newest version of the model artifact `model` (STAGE/KEY), or None."""
        versions = self._search(f"name = '{name}' and tags.`{MODEL_TAG}` = '{model}'")
        return max(versions, key=lambda version: version.version, default=None)

    def champion(self, name: str) -> RegisteredVersion | None:
        """The version with the alias "champion", or None."""
        try:
            return _registered_version(self._client.get_model_version_by_alias(name, CHAMPION))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
                return None
            raise

    def version_of(self, model_uri: str) -> RegisteredVersion:
        """The version that "models:/NAME@ALIAS" or "models:/NAME/VERSION" names.

        Raises:
            InputError: the URI has neither form, or there is no such version.
        """
        name, alias, version = model_uri_parts(model_uri)
        try:
            if alias is not None:
                return _registered_version(self._client.get_model_version_by_alias(name, alias))
            return _registered_version(self._client.get_model_version(name, str(version)))
        except MlflowException as error:
            raise InputError(f"{model_uri}: cannot be looked up ({without_credentials(first_line(error))})") from None

    def register(
        self,
        name: str,
        exported: ExportedModel,
        *,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        description: str,
        lock: AbstractContextManager[Lease] | None = None,
    ) -> RegisteredVersion:
        """Creates a version of `name`, or returns the one that another process has created for this model meanwhile.

        Its files and metrics belong to an MLflow run of its own and not to a logged model, which MLflow's SQL registry
        would look up at the process's global tracking URI.

        Args:
            metrics: of the evaluation, shown with the run.
            tags: include the model's STAGE/KEY as `MODEL_TAG`.
            description: Markdown, shown with the version.
            lock: a lock under which the model's version is searched and created; held for a moment.
        Raises:
            WorkError: the experiment was deleted.
        """
        client = self._client
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise WorkError(f"experiment {EXPERIMENT!r} was deleted in MLflow; restore it there")
        self._ensure_name(name)
        run = client.create_run(experiment.experiment_id, run_name=f"register-{name}", tags=_tags(tags))
        run_id, status = run.info.run_id, "FAILED"
        try:
            now = int(time.time() * 1000)
            rows = [Metric(_metric_name(key), float(value), now, 0) for key, value in metrics.items()]
            for start in range(0, len(rows), _METRICS_PER_CALL):
                client.log_batch(run_id, metrics=rows[start : start + _METRICS_PER_CALL])
            with temporary_folder() as folder:
                package = Path(folder) / _FOLDER
                write_package(exported, package, Model(artifact_path=_FOLDER, run_id=run_id))
                with allow_long_transfers():
                    client.log_artifacts(run_id, str(package), _FOLDER)
            with lock or nullcontext() as lease:
                registered = self.find(name, tags[MODEL_TAG]) if MODEL_TAG in tags else None
                if registered is None:
                    if lease is not None:
                        lease.check()
                    version = client.create_model_version(
                        name,
                        source=f"{run.info.artifact_uri}/{_FOLDER}",
                        run_id=run_id,
                        tags=_tags(tags),
                        description=_description(description),
                    )
                    registered = _registered_version(version)
                    status = "FINISHED"
                else:
                    status = "KILLED"
        finally:
            client.set_terminated(run_id, status)
        if status == "KILLED":
            # Another process has registered this model meanwhile, so this run is not needed.
            client.delete_run(run_id)
        return registered

    def set_tags(self, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
        """Adds tags to a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(version.name, str(version.version), key, _tag(value))

    def describe(self, version: RegisteredVersion, description: str) -> None:
        """Replaces the description of a version, in Markdown."""
        self._client.update_model_version(version.name, str(version.version), _description(description))

    def promote(self, version: RegisteredVersion) -> None:
        """Points the alias "champion" at a version. MLflow has no compare-and-set: hold the promotion lease."""
        self._client.set_registered_model_alias(version.name, CHAMPION, str(version.version))

    def name_challenger(self, version: RegisteredVersion) -> None:
        """Points the alias "challenger" at a version: the latest that was compared with the champion and is not it."""
        self._client.set_registered_model_alias(version.name, CHALLENGER, str(version.version))

    def fetch(self, version: RegisteredVersion, folder: Path) -> ExportedModel:
        """The ExportedModel inside a registered version, downloaded to `folder`.

        Raises:
            WorkError: its files are missing or damaged.
            DamagedError: it was not registered by Tutelage; its files are in `folder` nevertheless.
        """
        from mlflow.artifacts import download_artifacts

        folder.mkdir(parents=True, exist_ok=True)
        try:
            location = self._client.get_model_version_download_uri(version.name, str(version.version))
            with allow_long_transfers():
                fetched = download_artifacts(location, dst_path=str(folder), tracking_uri=self.tracking_uri)
        except (MlflowException, OSError) as error:
            raise WorkError(
                f"{version.uri}: its files cannot be fetched ({without_credentials(first_line(error))});"
                f" restore them, or delete the alias {CHAMPION!r} of {version.name!r}"
            ) from None
        served = Path(fetched) / "artifacts" / "served"
        if not served.is_dir():
            raise DamagedError(f"{version.uri}: was not registered by Tutelage; its files hold no exported model")
        try:
            # Versions registered by older releases have no digests.
            digests = json.loads((served / "service.json").read_text(encoding="utf-8")).get("digests", {})
            check_files(served, digests)
        except (OSError, ValueError, AttributeError) as error:
            raise WorkError(f"{version.uri}: its files are damaged ({first_line(error)}); register it again") from None
        return ExportedModel.read(served / "model")

    def fetch_file(self, version: RegisteredVersion, name: str, folder: Path) -> Path | None:
        """A file of a registered version, downloaded to `folder`; None if it is missing or cannot be fetched."""
        from mlflow.artifacts import download_artifacts

        try:
            location = self._client.get_model_version_download_uri(version.name, str(version.version))
            with allow_long_transfers():
                fetched = download_artifacts(
                    f"{location.rstrip('/')}/{name}", dst_path=str(folder), tracking_uri=self.tracking_uri
                )
        except (MlflowException, OSError):
            return None
        return Path(fetched)

    def _ensure_name(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise

    def _search(self, query: str) -> list[RegisteredVersion]:
        versions: list[RegisteredVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(query, page_token=token)
            versions.extend(_registered_version(version) for version in page)
            token = page.token
            if not token:
                return versions


def registry_identity(store: ArtifactStore) -> str:
    """The identity of the registry to which `register-model` writes; part of its config, and so of its key.

    A new registry has another identity, so that an artifact of a registration in the old one is not found for it.
    """
    return Registry.open(store).identity()


def model_uri_parts(model_uri: str) -> tuple[str, str | None, str | None]:
    """Name, alias and version of "models:/NAME@ALIAS" (no version) or "models:/NAME/VERSION" (no alias).

    Raises:
        InputError: it has neither form.
    """
    parts = re.fullmatch(r"models:/([^@/]+)(?:@([^@/]+)|/(\d+))", model_uri)
    if parts is None:
        raise InputError(f"{model_uri}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = parts.groups()
    return name, alias, version


def _registered_version(version: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(version.name, int(version.version), dict(version.tags), version.source or "")


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: _tag(value) for key, value in tags.items()}


def _tag(value: str) -> str:
    """The value without control characters and passwords, cut to the length that databases accept."""
    return printable(without_credentials(value), _LONGEST_TAG)


def _description(text: str) -> str:
    """The text, cut to the length that MLflow's database accepts."""
    cut = "\n\n(cut here; model_card.md of the registration has the rest)"
    return text if len(text) <= _LONGEST_DESCRIPTION else text[: _LONGEST_DESCRIPTION - len(cut)] + cut


def _metric_name(name: str) -> str:
    """A valid metric name for MLflow, which refuses e.g. the @ of recall@5."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"))
