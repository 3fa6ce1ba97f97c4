"""torch.compile for the blocks of a model (regional compilation), or for a whole model without blocks.

Equal blocks share one compilation, which takes seconds instead of the minutes of a deep network as a whole. Modules are
compiled in place, so the state dict does not change. Each shape is compiled on its own: which kernels compute a step
then depends on its shapes only and not on those before, and a resumed run ends with the same bits.

Evaluation of the average (EMA), a copy, is not compiled.

Source: torchtitan compiles each transformer block likewise.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.training.model_blocks import model_blocks

_SHAPES = 256  # of one block: image sizes, rows of micro-batches, widths


def check_compiler(device: torch.device) -> None:
    """Checks that torch.compile has what it needs for the device.

    Raises:
        InputError: it has not.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise InputError("training.compile: the package triton is not installed; install it or set compile=false")
    elif not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise InputError("training.compile: no C++ compiler (g++) on this machine; install one or set compile=false")


def compile_model(model: nn.Module) -> None:
    """Compiles the blocks of `model` in place, at their first call for each shape."""
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.config.recompile_limit = _SHAPES
    torch._dynamo.config.accumulated_recompile_limit = 4 * _SHAPES
    # Dropout draws the numbers that it draws without compilation.
    torch._inductor.config.fallback_random = True
    for module in model_blocks(model) or [model]:
        module.compile(dynamic=False)
