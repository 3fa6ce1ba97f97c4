"""Which part of a training its device waits for, as measured, and the setting that would change it."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from pipeline.counted import counted
from pipeline.loading.loader_facts import LoaderFacts
from pipeline.training.part_clock import COMPUTED

_LEAST_STEPS, _LEAST_SECONDS = 20, 2.0
_LEAST_WAIT = 0.1  # of the time
_LEAST_EVALUATION, _LEAST_CHECKPOINT, _LEAST_REDUCE = 0.25, 0.1, 0.3
_THREADS_OF_A_PROCESS = 8  # more gain little, see DecodePool
_MOST_READERS = 64
_LOADED = {"read": "reading", "decode": "decoding", "augment": "augmentation", "copy": "copying"}


def slowest_part(times: Mapping[str, float]) -> str:
    """The part that limits the training: of loading if the device waits for data, else of the step or beside it."""
    if times["data_wait"] >= _LEAST_WAIT * _total(times) > 0:
        return max(_LOADED, key=lambda part: times[part])
    return max((*COMPUTED, "evaluation", "checkpoint"), key=lambda part: times[part])


def bottleneck_note(times: Mapping[str, float], loader: LoaderFacts, cores: int) -> str | None:
    """A sentence on what the training waited for and the setting that helps; None if it computed nearly all the time.

    Args:
        times: seconds by part, "steps" and "images", from Meter.
        cores: CPU cores of this worker.
    """
    total = _total(times)
    if times["steps"] < _LEAST_STEPS or total < _LEAST_SECONDS:
        return None
    if times["data_wait"] >= _LEAST_WAIT * total:
        return _loading_note(times, total, loader, cores)
    if times["evaluation"] >= _LEAST_EVALUATION * total:
        return (
            f"spends {times['evaluation'] / total:.0%} of its time in evaluations; raise training.evaluate_every_epochs"
        )
    if times["checkpoint"] >= _LEAST_CHECKPOINT * total:
        return f"spends {times['checkpoint'] / total:.0%} of its time on checkpoints; raise training.checkpoint_every_s"
    if times["reduce"] >= _LEAST_REDUCE * total:
        return (
            f"waits {times['reduce'] / total:.0%} of its time for the exchange of gradients between workers; raise "
            "training.global_batch, or lower runner.workers"
        )
    return None


def _total(times: Mapping[str, float]) -> float:
    return sum(times[part] for part in ("data_wait", *COMPUTED, "evaluation", "checkpoint"))


def _loading_note(times: Mapping[str, float], total: float, loader: LoaderFacts, cores: int) -> str:
    part, images = slowest_part(times), max(times["images"], 1.0)
    threads = counted(loader.loading_threads, "thread")
    cost = f"{_LOADED[part]} takes {1000 * times[part] / images:.2g} ms an image on {threads}"
    seconds = sum(times[name] for name in _LOADED)
    # Threads that would load as fast as the device computes.
    needed = ceil(seconds / max(sum(times[part] for part in COMPUTED), 1e-9))
    advice = {"read": _read_advice, "decode": _decode_advice, "augment": _augment_advice, "copy": _copy_advice}[part]
    return f"waits {times['data_wait'] / total:.0%} of its time for data: {cost}; {advice(needed, loader, cores)}"


def _read_advice(needed: int, loader: LoaderFacts, cores: int) -> str:
    # A thread that waits for a disk or a network needs no core.
    wanted = min(max(needed, 2 * loader.loading_threads), _MOST_READERS)
    where = "the store" if loader.remote else "the disk"
    nearer = "keep the shards on this machine's disk" if loader.remote else "use a faster disk"
    return f"{_threads(wanted, loader, cores)}; if that changes nothing, {where} is the limit: {nearer}"


def _decode_advice(needed: int, loader: LoaderFacts, cores: int) -> str:
    advice = []
    if loader.stored_side > 1.5 * loader.side:
        smaller = 8 * ceil(loader.side * 1.25 / 8)
        advice.append(f"store smaller images (data.images.max_side={smaller}; now about {loader.stored_side} pixels)")
    if (wanted := min(needed, cores)) > loader.loading_threads:
        advice.insert(0, _threads(wanted, loader, cores))
    elif not advice:
        advice.append(f"all {counted(cores, 'core')} decode already, so use a machine with more")
    return ", or ".join(advice)


def _augment_advice(needed: int, loader: LoaderFacts, cores: int) -> str:
    lighter = "use a lighter loader.augment"
    if (wanted := min(needed, cores)) > loader.loading_threads:
        return f"{_threads(wanted, loader, cores)}, or {lighter}"
    return lighter


def _copy_advice(needed: int, loader: LoaderFacts, cores: int) -> str:
    return "lower loader.processes and raise loader.threads"


def _threads(wanted: int, loader: LoaderFacts, cores: int) -> str:
    if wanted > _THREADS_OF_A_PROCESS and cores > _THREADS_OF_A_PROCESS:
        return f"set loader.processes={ceil(wanted / loader.threads)}"
    return f"set loader.threads={ceil(wanted / max(1, loader.processes))}"
