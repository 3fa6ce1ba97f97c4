"""The stage import-weights: trained weights from any source -> an artifact with initial weights for trainings.

Names are mutable (an alias, a branch, an overwritten file), so a config must be `resolved`: it then contains a
fingerprint of the source's current content, and new weights get a new key. Workers on other machines read the artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field
from safetensors.torch import save_file

from model_defs import ModelError, model_info
from model_defs.pretrained.files import read_state
from model_defs.pretrained.packages import PackageSource
from model_defs.pretrained.sources import DEFAULT, default_source
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config, digest, unkeyed
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.import_weights import licence
from pipeline.import_weights.sources import absolute_source, find_weights, locate_weights, weights_identity
from pipeline.loading.wordpiece_vocabulary import FILES as TOKENIZER_FILES
from pipeline.loading.wordpiece_vocabulary import VOCABULARY, read_vocabulary, write_vocabulary
from pipeline.stage import Workspace
from pipeline.training.starting_weights import LICENCE, SOURCE, STAGE, WEIGHTS

_EXTRA_FILES = (*TOKENIZER_FILES, *licence.FILES)


class ImportConfig(Config):
    """The source of the weights to import."""

    source: str = unkeyed(
        ...,
        min_length=1,
        max_length=1000,
        description="Source of the weights: a torchvision name, a file or folder, hf:ORG/NAME, "
        "models:/NAME@alias, or STAGE/KEY of the store.",
    )
    reads_texts: bool = Field(False, description="Also import the WordPiece vocabulary of a text model, if it has one.")
    tokenizer: Path | None = unkeyed(
        None,
        description="Folder with the tokenizer of the weights: tokenizer.json or vocab.txt. null: the folder of "
        "the weights.",
    )
    fingerprint: str | None = Field(None, description="Digest of the current weights; set by the program.")

    @classmethod
    def for_model(cls, model: str, pretrained: str, **values: Any) -> Self:
        """The config that imports a model's initial weights; "DEFAULT" is the source that the catalogue names.

        Raises:
            InputError: the catalogue names no weights.
        """
        try:
            source = default_source(model_info(model)) if pretrained == DEFAULT else pretrained
        except ModelError as error:
            raise InputError(str(error)) from None
        return cls(source=source, **values)

    def resolved(self, store: ArtifactStore) -> Self:
        """The config with the fingerprint, as `run_stage` requires it.

        Raises:
            InputError: there are no such weights, or they are not available here.
        """
        weights = find_weights(self.source, store)
        contents: dict[str, Any] = {"weights": weights_identity(weights)}
        if self.reads_texts:
            # The vocabulary is small, so it is read here: its content identifies it, and errors are found early.
            folder = self.tokenizer or locate_weights(weights, _EXTRA_FILES).parent
            contents["vocabulary"] = digest(read_vocabulary(folder.expanduser()))
        return self.model_copy(update={"source": absolute_source(self.source), "fingerprint": digest(contents)})


class ImportWeights:
    """A source of weights -> weights.safetensors, source.json, LICENSE and vocabulary where there is one. No inputs."""

    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 1

    def run(self, config: ImportConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Fills `work.output`; the config must be `resolved`."""
        if config.fingerprint is None:
            raise InputError(f"{STAGE}: the config has no fingerprint; pass config.resolved(store)")
        work.progress(note=f"fetching {config.source}")
        if config.resolved(work.store).fingerprint != config.fingerprint:
            raise InputError(f"{config.source}: the weights changed since the run began; run it again")
        source = find_weights(config.source, work.store)
        path = locate_weights(source, _EXTRA_FILES)
        try:
            state = read_state(path)
        except ModelError as error:
            raise InputError(str(error)) from None
        work.progress(note=f"importing {counted(len(state), 'tensor')}")
        # Copies: safetensors refuses tensors that share memory.
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, work.output / WEIGHTS)
        if config.reads_texts:
            vocabulary = read_vocabulary((config.tokenizer or path.parent).expanduser())
            if vocabulary is not None:
                write_vocabulary(vocabulary, work.output / VOCABULARY)
        if isinstance(source, PackageSource):
            terms = licence.Licence.of_package(source.name)
        else:
            terms = licence.Licence.find(path)
        if terms.text:
            (work.output / LICENCE).write_text(terms.text, encoding="utf-8")
        values = sum(tensor.numel() for tensor in state.values())
        # The published name, e.g. in the card of a registered model, omits the folders of this machine.
        name = "/".join(Path(config.source).parts[-2:]) if Path(config.source).is_absolute() else config.source
        source_info = {
            "name": name,
            "source": config.source,
            "identity": weights_identity(source),
            "licence": str(terms),
            "tensors": len(state),
            "values": values,
        }
        (work.output / SOURCE).write_text(json.dumps(source_info, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        headline = f"{values / 1e6:.2f}M values from {name}, licence: {terms}"
        return {**source_info, "headline": headline}
