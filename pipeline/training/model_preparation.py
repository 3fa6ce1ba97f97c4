"""What the configuration does to a model before its training: memory format, gradient checkpointing, compilation.

Parameters, buffers and their names stay as they are, so checkpoints and exported models do not depend on it.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.training.compilation import check_compiler, compile_model
from pipeline.training.gradient_checkpointing import checkpoint_blocks
from pipeline.training.memory_format import set_memory_format
from pipeline.training.precision import check_precision
from pipeline.training.training_config import TrainingConfig


def check_device(training: TrainingConfig, device: torch.device) -> None:
    """Checks, before any work, that the device can train as configured.

    Raises:
        InputError: it cannot.
    """
    check_precision(training, device)
    if training.compile:
        check_compiler(device)


def prepare_model(model: nn.Module, training: TrainingConfig) -> None:
    """Changes `model` in place.

    Raises:
        InputError: gradient checkpointing finds no blocks.
    """
    set_memory_format(model, training.channels_last)
    if training.gradient_checkpointing:
        checkpoint_blocks(model)
    if training.compile:
        compile_model(model)
