"""The precision of a training: autocast, the scaling of the loss for float16, and TF32.

float16 has gradients down to 6e-8 only. So the loss is multiplied by a scale before the backward pass, and the
gradients are divided by it in float32. A step whose scaled gradients overflow is skipped, and the scale is halved;
after 2,000 steps without overflow it is doubled.

Sources: Micikevicius 2018, "Mixed Precision Training"; the schedule of the scale is that of torch.amp.GradScaler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError, WorkError
from pipeline.training.training_config import TrainingConfig

_SMALLEST_SCALE = 1.0  # below, gradients overflow without any scaling


def check_precision(training: TrainingConfig, device: torch.device) -> None:
    """Checks that the device has the configured precision.

    Raises:
        InputError: it has not; the message says what to set.
    """
    if training.tf32 == "yes" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise InputError(
            f"training.tf32=yes: {_name(device)} has no TF32, which NVIDIA GPUs have since Ampere; set tf32=auto"
        )


def autocast(training: TrainingConfig, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a model computes in the configured precision."""
    if training.precision == "float16":
        return torch.autocast(device.type, torch.float16)
    if training.precision == "bfloat16" or (training.precision == "auto" and computes_in_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; without that, autocast only costs time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def tf32_as_configured(training: TrainingConfig) -> Iterator[None]:
    """Within the block, float32 products and convolutions of GPUs round their inputs to TF32, or do not."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    previous = products.allow_tf32, convolutions.allow_tf32
    if training.tf32 != "auto":
        products.allow_tf32 = convolutions.allow_tf32 = training.tf32 == "yes"
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = previous


class LossScale:
    """The scale of the loss in float16; in other precisions all methods pass on what they are given.

    Args:
        device: of the model.
    """

    def __init__(self, training: TrainingConfig, device: torch.device) -> None:
        self.is_on = training.precision == "float16"
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.is_on)
        self._skipped: Tensor | int = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss of whose backward pass the gradients do not underflow."""
        return self._scaler.scale(loss) if self.is_on else loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients by the scale, so that they can be clipped."""
        self._scaler.unscale_(optimizer)

    def checked(self, norm: Tensor) -> Tensor:
        """The gradient norm to record: 0 if the gradient overflowed, so that its step is skipped."""
        if not self.is_on:
            return norm
        overflowed = ~torch.isfinite(norm)
        self._skipped = self._skipped + overflowed
        return torch.where(overflowed, 0.0, norm)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Does an optimiser step, or skips it if a gradient overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def skip(self) -> None:
        """Ends a step that is not done, with what `unscale` found."""
        self._scaler.update()

    def numbers(self) -> dict[str, float]:
        """The scale and the number of steps skipped so far, for metrics.jsonl; empty if it is off.

        Raises:
            WorkError: gradients overflow at every scale.
        """
        if not self.is_on:
            return {}
        scale = self._scaler.get_scale()
        if scale < _SMALLEST_SCALE:
            raise WorkError(
                f"float16: gradients overflow at any scale of the loss, {int(self._skipped)} steps are skipped; "
                "lower the learning rate, or use precision=bfloat16 or float32"
            )
        return {"train/loss_scale": scale, "train/overflowed_steps": int(self._skipped)}

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint; JSON values, empty if it is off."""
        return {**self._scaler.state_dict(), "skipped": int(self._skipped)} if self.is_on else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        if self.is_on and state:
            self._scaler.load_state_dict({name: value for name, value in state.items() if name != "skipped"})
            self._skipped = state["skipped"]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
