"""Loads weights into a model: finds, reads, renames, fits, loads and reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from model_defs.errors import ModelError
from model_defs.pretrained.files import DUAL_FILES, FILES, read_state
from model_defs.pretrained.fitting import fit
from model_defs.pretrained.formats import translate
from model_defs.pretrained.report import KeyNote, LoadingReport
from model_defs.pretrained.sources import find_source

_log = logging.getLogger("tutelage.models")
_SHOWN = 8


def load_from_source(model: nn.Module, source: str | Path) -> LoadingReport:
    """See `model_defs.load_pretrained`."""
    is_dual = hasattr(model, "encode_text")
    path = find_source(source).locate(DUAL_FILES if is_dual else FILES)
    return load_state(model, read_state(path), str(source))


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str, *, normalisation: str = "") -> LoadingReport:
    """Loads the tensors of `state`, which may have the names and shapes of any known library, into `model`.

    Args:
        source: their origin, for the report and for errors.
        normalisation: normalisation of the images, as text for the report.
    Raises:
        ModelError: a tensor of either side is unmatched without a reason; the first ones are listed.
    """
    wanted = model.state_dict()
    translated = translate(state, wanted)
    fitted = fit(wanted, translated.state, _classifiers(model), _first_convolution(model))
    if fitted.unexplained:
        listed = "; ".join(fitted.unexplained[:_SHOWN])
        more = len(fitted.unexplained) - _SHOWN
        raise ModelError(
            f"{source}: these are not weights of this model ({translated.format}): {listed}"
            + (f"; and {more} more" if more > 0 else "")
        )
    on_meta = any(tensor.is_meta for tensor in wanted.values())
    if not on_meta:
        with torch.no_grad():
            model.load_state_dict(fitted.state, strict=False)
    report = LoadingReport(
        source=source,
        format=translated.format,
        loaded=len(fitted.state) - sum(name in fitted.state for name in fitted.adapted),
        adapted=_notes(fitted.adapted),
        replaced=_notes(fitted.replaced),
        missing=_notes(fitted.missing),
        dropped=_notes({**translated.dropped, **fitted.dropped}),
        normalisation=normalisation,
    )
    if not on_meta:
        _log.info("%s", report)
    return report


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    return tuple(getattr(model, "classifier_names", ()))


def _first_convolution(model: nn.Module) -> str:
    return str(getattr(model, "first_conv_name", ""))


def _notes(reasons: Mapping[str, str]) -> tuple[KeyNote, ...]:
    return tuple(KeyNote(name, reason) for name, reason in reasons.items())
