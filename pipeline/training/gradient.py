"""The gradient of one step: seeded, over all micro-batches and ranks, and clipped."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from pipeline import counter_rng
from pipeline.loading.batch import Batch
from pipeline.training.batching import split
from pipeline.training.fsdp.tensor_parts import whole
from pipeline.training.meter import Meter
from pipeline.training.parallelism import without_exchange
from pipeline.training.precision import LossScale, autocast
from pipeline.training.task import Task
from pipeline.training.training_config import TrainingConfig


def seed_torch(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seeds torch's generators of the CPU and of `device`, so that a resumed run draws the same numbers in a step."""
    step_seed = counter_rng.integer(seed, "step", step, rank)
    # torch.manual_seed asks each kind of device for its generators, which takes 0.1 to 0.3 ms.
    torch.default_generator.manual_seed(step_seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(step_seed)


def backward(
    task: Task,
    model: nn.Module,
    batch: Batch,
    training: TrainingConfig,
    world: int,
    meter: Meter,
    loss_scale: LossScale,
) -> None:
    """Gradients of the mean loss over the GLOBAL batch, in the parameters of every rank."""
    micro_batches = list(split(batch, training.accumulation))
    for number, micro_batch in enumerate(micro_batches, start=1):
        samples = len(micro_batch.ids)
        # Ranks exchange gradients once per step, with the last micro-batch.
        with without_exchange(model) if number < len(micro_batches) else nullcontext():
            with autocast(training, batch.images.device):
                output = task.training_step(model, micro_batch)
            share = samples * world / batch.global_size
            loss = output.loss if share == 1 else output.loss * share
            loss_scale.scaled(loss).backward()
        meter.add_output(output, samples)


def clip_gradient(model: nn.Module, clip_norm: float | None) -> torch.Tensor:
    """Clips the gradient; returns its norm before clipping."""
    parameters = list(model.parameters())  # once: this walks through all modules
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = whole(nn.utils.get_total_norm(gradients))
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm
