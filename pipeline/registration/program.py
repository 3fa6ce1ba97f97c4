"""Exported programs: a model as a graph that torch runs without its Python source.

A program of images takes uint8 pixels, since it includes the normalisation; a program of texts takes tokens. The batch
size may be 1 to 4,096.
Each program is compared with its model after it is written.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import WorkError
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing, normalise_pixels
from pipeline.registration.program_check import DamagedProgramError, load_program

_LARGEST_BATCH = 4096
# torch.export has its state in globals: two threads that export at once fail, or get each other's graph.
_one_at_a_time = threading.Lock()


class _FromPixels(nn.Module):
    """uint8 [B, C, S, S] through the normalisation and the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        mean, std = preprocessing.pixel_mean_and_std()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        return self._from_normalised(normalise_pixels(images, self.mean, self.std))

    def _from_normalised(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


class _ImageEncoder(_FromPixels):
    def _from_normalised(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.encode_image(images)  # type: ignore[operator]
        return features


class _TextEncoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
        return features


def write_programs(exported: ExportedModel, folder: Path) -> list[str]:
    """Writes NAME.pt2 for each program of the model and returns the names.

    A classifier has "program" (pixels to logits [B, K]); a dual encoder "encode_image" (pixels to unit
    vectors [B, E]) and "encode_text" (tokens int64 [B, L] to unit vectors).

    Raises:
        WorkError: the outputs of a program differ from those of its model.
    """
    model = exported.build()
    preprocessing = exported.preprocessing
    side = preprocessing.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, preprocessing.channels, side, side), dtype=torch.uint8, generator=generator)
    if exported.kind == "classifier":
        programs: dict[str, tuple[nn.Module, Tensor]] = {"program": (_FromPixels(model, preprocessing), pixels)}
    else:
        tokens = torch.zeros(3, exported.context_length, dtype=torch.int64)
        # These tokens need no end of text: without it the model pools the first token.
        tokens[:, 1] = torch.arange(1, 4)
        programs = {
            "encode_image": (_ImageEncoder(model, preprocessing), pixels),
            "encode_text": (_TextEncoder(model), tokens),
        }
    for name, (module, example) in programs.items():
        try:
            with _one_at_a_time:
                _write(module.eval(), example, folder / f"{name}.pt2")
        except DamagedProgramError as error:
            raise WorkError(f"{exported.architecture} cannot be exported for a served model: {error}") from None
    return list(programs)


def _write(module: nn.Module, example: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    # Two samples: torch.export would specialise a batch size of one.
    program = torch.export.export(module, (example[:2],), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        # Stack traces contain paths of this machine.
        node.meta.pop("stack_trace", None)
    # torch.export.save would pickle the example inputs.
    program.example_inputs = None
    torch.export.save(program, path)
    # Loaded at once, so that a program that a served model would refuse fails here.
    loaded: Any = load_program(path)
    with torch.inference_mode():
        for count in (1, len(example)):
            expected, actual = module(example[:count]), loaded(example[:count])
            if not torch.allclose(expected, actual, rtol=1e-3, atol=1e-4):
                worst = float((expected - actual).abs().max())
                raise WorkError(f"{path.name}: the exported program differs from its model by {worst:.2g}")
