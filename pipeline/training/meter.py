"""The loop's measurements: means of losses and metrics, images/s, the time of each part of the training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.loading.part_times import PartSeconds, PartTimes
from pipeline.training.fsdp.tensor_parts import is_divided
from pipeline.training.part_clock import COMPUTED, PartClock, exposed_reduction_s
from pipeline.training.step_flops import image_flops, peak_tflops
from pipeline.training.task import StepOutput

LOADED = PartSeconds._fields[1:]
"""The parts of loading."""

# A float on a CPU, where each operation on a tensor takes microseconds; elsewhere a tensor, which is read later.
_Scalar = Tensor | float


class Meter:
    """Accumulates sums on the device and reads them only in `drain`, to avoid synchronising at every step.

    Args:
        device: stores the sums.
        world: number of ranks; `drain` sums over all of them.
        loading: the loader's times.

    Attributes:
        clock: the time of each part.
        step_loss: the sum of the losses of the current step's micro-batches.
        times: seconds by part of the training and of loading, and "steps" and "images", up to the last `drain` and over
            all resumes: means over the ranks.
        seconds: time in steps, from requesting a batch to the end of the step; excludes evaluation and checkpoints.
    """

    def __init__(self, device: torch.device, world: int, loading: PartTimes) -> None:
        self.seconds = 0.0
        self.clock = PartClock(device)
        self.times: dict[str, float] = {}
        self._loading = loading
        self._model: nn.Module | None = None
        self._first_batch = True
        self._images_like = torch.empty(0)
        self._peak_tflops = peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._image_flops: float | None = None
        self._steps = 0
        self._device = device
        self._world = world
        self._sums: dict[str, _Scalar] = {}
        self._samples = 0
        self._gradient_norm: _Scalar | None = None
        self._step_outputs: list[tuple[dict[str, _Scalar], int]] = []
        self._step_started_at = time.monotonic()
        self._images = 0
        self._step_seconds = 0.0
        self._shown_images = 0
        self._shown_seconds = 0.0
        self._images_total = 0
        self._last_loss: _Scalar | None = None
        self.step_loss: _Scalar = 0.0

    def watch(self, model: nn.Module) -> None:
        """Measures the exchange of gradients between the ranks of this model, as the step calls it."""
        self._model = model

    def start_step(self, *, first_batch: bool = False) -> None:
        """Records that a batch is requested: the first of a loader, or another one."""
        self._step_outputs, self.step_loss = [], 0.0
        self._step_started_at = time.monotonic()
        self._first_batch = first_batch
        self.clock.start()

    def batch_received(self, images: Tensor) -> None:
        """Records that a batch with these images has arrived."""
        self._images_like = images
        self.clock.lap("first_batch" if self._first_batch else "data_wait")

    def add_output(self, output: StepOutput, samples: int) -> None:
        """Adds the output of the task for one micro-batch of `samples` samples."""
        self._last_loss = self._scalar(output.loss)
        self.step_loss = self.step_loss + self._last_loss
        values = {"loss": self._last_loss, **{name: self._scalar(value) for name, value in output.metrics.items()}}
        self._step_outputs.append((values, samples))

    def add_step(self, gradient_norm: Tensor) -> None:
        """Adds the outputs of the current step to the means."""
        self._gradient_norm = self._scalar(gradient_norm)
        for values, samples in self._step_outputs:
            self._samples += samples
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value * samples

    def restart(self) -> None:
        """Removes what was measured since the last log entry, which a resumed run does not have."""
        self._take_times()
        self.clock.take_steps()
        self._clear()

    def end_step(self, global_samples: int) -> None:
        """Records the end of a step that processed `global_samples` samples on all ranks."""
        self.clock.lap("optimizer")
        spent = time.monotonic() - self._step_started_at
        self._steps += 1
        self.seconds += spent
        self._step_seconds += spent
        self._images += global_samples
        self._images_total += global_samples

    def display_numbers(self) -> dict[str, float]:
        """Numbers for a display: this rank's latest loss, and images/s since the last call."""
        images = self._images_total - self._shown_images
        spent = self.seconds - self._shown_seconds
        self._shown_images, self._shown_seconds = self._images_total, self.seconds
        numbers = {"images_per_s": images / spent if spent > 0 else 0.0}
        if self._last_loss is not None:
            numbers["loss"] = float(self._last_loss)
        return numbers

    def drain(self) -> dict[str, float]:
        """Means since the last call: over all samples of all ranks as "train/NAME", of times as "time/NAME".

        Every rank must call it. Without a sample, as after skipped steps only, there are no means over samples.
        """
        times = self._take_times()
        names = sorted(self._sums)
        totals = [*times.values(), *(self._sums[name] for name in names), float(self._samples)]
        if self._device.type == "cpu":  # all are floats
            sums = torch.tensor(totals, dtype=torch.float64)
        else:
            sums = torch.stack([torch.as_tensor(total, dtype=torch.float64, device=self._device) for total in totals])
        if self._world > 1:
            dist.all_reduce(sums)
        summed: list[float] = sums.tolist()
        times = {name: seconds / self._world for name, seconds in zip(times, summed, strict=False)}
        *means, samples = summed[len(times) :]
        for name, value in times.items():
            self.times[name] = self.times.get(name, 0.0) + value
        result = {f"train/{name}": total / samples for name, total in zip(names, means, strict=True)}
        result["train/images_per_s"] = round(self._images / max(self._step_seconds, 1e-9), 1)
        # Near 1 the loader is the bottleneck, near 0 the model is.
        result["train/data_wait"] = round(times["data_wait"] / max(self._step_seconds, 1e-9), 4)
        result |= time_metrics(times) | step_percentiles(self.clock.take_steps())
        if (mfu := self._utilization(result["train/images_per_s"])) is not None:
            result["train/mfu"] = round(mfu, 4)
        if self._gradient_norm is not None:
            result["train/gradient_norm"] = float(self._gradient_norm)
        self._clear()
        return result

    def _clear(self) -> None:
        self._sums, self._samples, self._gradient_norm = {}, 0, None
        self._images, self._step_seconds, self._steps = 0, 0.0, 0

    def _utilization(self, images_per_s: float) -> float | None:
        """The model FLOPs utilisation of all ranks; None where the peak of the device is not known."""
        if self._peak_tflops is None or self._model is None or any(map(is_divided, self._model.parameters())):
            return None
        if self._image_flops is None:  # once: it takes a second
            model = self._model.module if isinstance(self._model, DistributedDataParallel) else self._model
            self._image_flops = image_flops(model, self._images_like) or 0.0
        rate = self._image_flops * images_per_s
        return rate / (self._peak_tflops * 1e12 * self._world) if rate else None

    def all_times(self) -> dict[str, float]:
        """`times` with what this rank spent since the last `drain`, such as a last evaluation."""
        rest = self._take_times()
        return {name: round(self.times.get(name, 0.0) + value, 3) for name, value in rest.items()}

    def _take_times(self) -> dict[str, float]:
        times = self.clock.take()
        if self._model is not None:
            exposed = min(exposed_reduction_s(self._model) * self._steps, times["forward_backward"])
            times["forward_backward"] -= exposed
            times["reduce"] += exposed
        return {**times, "steps": float(self._steps), **self._loading.take()._asdict()}

    def _scalar(self, value: _Scalar) -> _Scalar:
        if isinstance(value, float):
            return value
        return value.item() if self._device.type == "cpu" else value.detach().float()


def time_metrics(times: Mapping[str, float]) -> dict[str, float]:
    """The times as metrics: of a step's parts in ms per step, of the loader's parts in ms per image on one thread."""
    steps, images = max(times["steps"], 1.0), max(times["images"], 1.0)
    step = {f"time/{part}_ms": times[part] / steps * 1000 for part in ("data_wait", *COMPUTED) if times[part]}
    image = {f"time/{part}_ms_per_image": times[part] / images * 1000 for part in LOADED if times[part]}
    return {name: round(value, 4) for name, value in {**step, **image}.items()}


def step_percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile of the steps' times in ms; {} without a step."""
    if not seconds:
        return {}
    p50, p95 = np.percentile(seconds, (50, 95)) * 1000
    return {"time/step_ms_p50": round(float(p50), 3), "time/step_ms_p95": round(float(p95), 3)}
