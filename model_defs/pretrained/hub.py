"""Weights from the Hugging Face hub, by huggingface_hub (extra `hub`) with its cache, HF_HOME and HF_HUB_OFFLINE."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_defs.errors import ModelError, first_line
from model_defs.normalisation import Normalisation
from model_defs.pretrained import stated_normalisation
from model_defs.pretrained.files import FILES, file_sha256
from model_defs.pretrained.timm_cards import timm_normalisation

_SPEC = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w./-]+))?")


@dataclass(frozen=True)
class HubSource:
    """A file of a repository.

    Attributes:
        repo: ORG/NAME.
        revision: a commit, tag or branch; None is the main branch.
        file: its name in the repository; None is the first usual name that exists.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubSource:
        """Parses ORG/NAME or ORG/NAME@REVISION, each with an optional :FILE.

        Raises:
            ModelError: it is none of these.
        """
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ModelError(
                f"pretrained={text!r}: names no weights; give a torchvision name (ResNet50_Weights.IMAGENET1K_V2), an"
                " existing file or folder, hf:ORG/NAME, models:/NAME@alias, or STAGE/KEY of the store"
            )
        return cls(match["repo"], match["revision"], match["file"])

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        download = _Download(self)
        wanted = names if self.file is None else (self.file,)
        weights = next((path for name in wanted if (path := download(name)) is not None), None)
        if weights is not None:
            for name in extra_files:
                download(name)
            return weights
        if download.offline is not None:
            raise ModelError(
                f"hf:{self.repo}: the hub cannot be reached ({download.offline}), and {download.cache} has no copy of"
                f" {' or '.join(wanted)}; fetch it where there is a network (hf download {self.repo}) and give the"
                " folder, or set HF_HOME"
            )
        raise ModelError(f"hf:{self.repo}: has none of {', '.join(wanted)}; name its file, hf:{self.repo}:FILE")

    def identity(self, names: Sequence[str] = FILES) -> str:
        hub = _library()
        for name in names if self.file is None else (self.file,):
            try:
                etag = hub.get_hf_file_metadata(hub.hf_hub_url(self.repo, name, revision=self.revision)).etag
            except hub.errors.EntryNotFoundError:
                continue
            except Exception:  # no network, no such repository, no access: `locate` distinguishes these
                break
            if etag:
                return f"hub {etag}"
        path = self.locate(names)
        # In the cache a file is a link to a blob, which is named by the hub's digest.
        return f"hub {path.resolve().name if path.is_symlink() else file_sha256(path)}"

    def normalisation(self) -> Normalisation | None:
        download = _Download(self)
        for name in stated_normalisation.FILES:
            path = download(name)
            if path is not None and name == stated_normalisation.EXPORTED:
                download(stated_normalisation.ARCHITECTURE)
            if path is not None and (stated := stated_normalisation.read_stated_normalisation(path)):
                return stated
        owner, _, name = self.repo.partition("/")
        if owner == "timm" and (card := timm_normalisation(name)) is not None:
            return card
        if download.offline is not None:
            self.locate()  # raises an error of its own if the cache has no weights either
            if not all(map(download.is_known_to_be_absent, stated_normalisation.FILES)):
                raise ModelError(
                    f"hf:{self.repo}: the hub cannot be reached ({download.offline}), and the copy in {download.cache}"
                    " does not state how images were normalised; set mean and std, or fetch"
                    f" {' and '.join(stated_normalisation.FILES[1:])} where there is a network"
                )
        return None


class _Download:
    """Fetches files of a repository into the cache; does not retry the hub once it was unreachable."""

    def __init__(self, source: HubSource) -> None:
        self._source = source
        self._hub = _library()
        self.cache: str = self._hub.constants.HF_HUB_CACHE
        self.offline: str | None = None

    def __call__(self, name: str) -> Path | None:
        """The file in the cache, or None if the repository (offline: the cache) has no file of this name."""
        errors, source = self._hub.errors, self._source
        try:
            path = self._hub.hf_hub_download(
                source.repo, name, revision=source.revision, local_files_only=self.offline is not None
            )
        except errors.LocalEntryNotFoundError as error:
            offline = self._hub.constants.HF_HUB_OFFLINE
            self.offline = self.offline or ("HF_HUB_OFFLINE is set" if offline else _reason(error))
            return None
        except errors.EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:  # all errors of the library are subclasses of these
            raise ModelError(
                f"hf:{source.repo}: {_reason(error)}; look at its name, and at HF_TOKEN if it is not public"
            ) from None
        return Path(path)

    def is_known_to_be_absent(self, name: str) -> bool:
        """Whether the hub has already reported that the repository has no file of this name."""
        known = self._hub.try_to_load_from_cache(
            self._source.repo, name, cache_dir=self.cache, revision=self._source.revision
        )
        return known is not None and not isinstance(known, str)


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ModelError("weights of the Hugging Face hub need huggingface_hub: pip install 'tutelage[hub]'") from error
    return huggingface_hub


def _reason(error: BaseException) -> str:
    """The first line of an error's root cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
