"""Cost of a training step of our loop, of a bare PyTorch loop, of Lightning's Trainer and of timm's training loop.

    pip install lightning timm                       # into the environment of Tutelage; a missing peer is skipped
    python benchmarks/training/step.py               # all models
    python benchmarks/training/step.py lenet5 --rounds 9 --memory kept

All train the same model from the same weights on the same uint8 batches, which are in memory, in float32: normalise,
forward, cross-entropy with label smoothing, backward, clip, AdamW (fused, the same groups), a cosine schedule per step.
Ours is `fit` itself with the Classification task; the loader is replaced by batches in memory, as its decoding is
measured in benchmarks/loading. Beyond what the others do, ours measures accuracy, seeds each step, and checks each loss
and gradient norm. The bare loop reads its loss at each step; Lightning runs without logger, checkpoints, progress bar
and summary; timm's loop is written as in its train.py (AverageMeter, cosine scheduler of timm, clip of timm).

Each contestant is a process of its own, as its allocator's state counts. It matters more than any loop: glibc returns a
step's freed activations to the system, and gets them back page by page. A training of ours keeps them
(pipeline/training/allocator.py), the peers' do not. So all contestants are measured with glibc's own settings
("returned": the loops' own cost), and then all with ours ("kept").

In each round the contestants run one after the other, in rotating order. A step lasts from the request of its batch to
that of the next one. A round's time is the mean over the ten steps of a logging period of the fastest at each place in
it: it includes what logging costs, and little of what other processes do. CPU is the time of all threads of the
process. The table has medians over the rounds, and of the ratio ours / peer per round: below 1.00 ours is faster. The
last column is the same ratio of the wall time. The script checks that all losses after a round agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from resident_batches import Pair, ResidentSource
from torch import Tensor, nn

from model_defs import create_model
from pipeline.training.allocator import freed_memory_kept

CLASSES, SMOOTHING, LR, CLIP, RESIDENT, LOG_EVERY = 10, 0.1, 1e-3, 1.0, 8, 10
MEAN, STD = 0.45, 0.25
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A model, its batch and the number of steps of a round, after two steps of warm-up."""

    model: str
    size: int
    channels: int
    batch: int
    steps: int


CASES = (
    Case("lenet5", 28, 1, 256, 40),
    Case("resnet_small", 64, 3, 64, 10),
    Case("vit_micro", 64, 3, 64, 10),
    Case("resnet50", 128, 3, 8, 3),
)
WARM_UP = 2
MEMORY = ("returned", "kept")  # in this order, as glibc's settings cannot all be restored after "kept"
Clock = tuple[float, float]


class Timer:
    """Remembers the clocks at the request of the batch after the warm-up, and of the one after the last."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.marks: list[Clock] = []

    def batches(self, resident: list[Pair]) -> Iterator[tuple[int, Pair]]:
        """(step, batch); a mark at each request but those of the warm-up."""
        for step in range(self.case.steps + WARM_UP):
            if step >= WARM_UP:
                self.mark()
            yield step, resident[step % len(resident)]
        self.mark()

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> Clock:
        """Wall and CPU seconds per step."""
        steps = np.diff(np.array(self.marks), axis=0)  # [steps, 2]
        fastest = [steps[place::LOG_EVERY].min(axis=0) for place in range(min(LOG_EVERY, len(steps)))]
        wall, cpu = np.mean(fastest, axis=0)
        return float(wall), float(cpu)


def new_model(case: Case) -> nn.Module:
    torch.manual_seed(0)
    sized: dict[str, Any] = {} if case.model.startswith("resnet") else {"img_size": case.size}
    model = create_model(case.model, num_classes=CLASSES, in_chans=case.channels, **sized)
    return model.to(memory_format=torch.channels_last)


def resident_batches(case: Case) -> list[Pair]:
    draw = torch.Generator().manual_seed(0)
    shape = (case.batch, case.channels, case.size, case.size)
    return [
        (
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw).contiguous(
                memory_format=torch.channels_last
            ),
            torch.randint(0, CLASSES, (case.batch,), generator=draw),
        )
        for _ in range(RESIDENT)
    ]


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, fused=True)


def rate(step: int, total: int) -> float:
    return LR * (1 + math.cos(math.pi * step / total)) / 2


def constants(case: Case) -> Pair:
    shape = (case.channels, 1, 1)
    return torch.full(shape, 255 * MEAN), torch.full(shape, 255 * STD)


def bare(case: Case, resident: list[Pair], timer: Timer) -> float:
    model, (mean, std) = new_model(case), constants(case)
    optimizer = new_optimizer(model)
    model.train()
    total, running, loss_value = case.steps + WARM_UP, 0.0, math.nan
    for step, (images, labels) in timer.batches(resident):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, total)
        logits = model(images.float().sub_(mean).div_(std))
        loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        loss_value = loss.item()
        running += loss_value
        if (step + 1) % LOG_EVERY == 0:
            running = 0.0
    return loss_value


def ours(case: Case, resident: list[Pair], timer: Timer) -> float:
    from pipeline.preprocessing import Preprocessing, per_channel
    from pipeline.training.classification import Classification
    from pipeline.training.loop import fit
    from pipeline.training.task import TrainingObjects
    from pipeline.training.training_config import TrainingConfig

    training = TrainingConfig.model_validate(
        {
            "steps": case.steps + WARM_UP,
            "global_batch": case.batch,
            "optimizer": {"kind": "adamw", "lr": LR, "weight_decay": 0.05},
            "warmup": 0.0,
            "final_lr": 0.0,
            "clip_norm": CLIP,
            "precision": "float32",
            "log_every_steps": LOG_EVERY,
        }
    )
    pixels = per_channel(MEAN, case.channels), per_channel(STD, case.channels)
    task = Classification(Preprocessing(case.size, case.channels, *pixels), smoothing=SMOOTHING)
    source = ResidentSource(timer.batches(resident), case.batch, case.size)
    objects = TrainingObjects(new_model(case), task, source, epoch_samples=50_000)
    result = fit(objects, training, device=CPU)
    if len(timer.marks) > case.steps + 1:
        timer.marks.pop()
    return float(result.metric_rows[-1]["train/loss"])


def lightning(case: Case, resident: list[Pair], timer: Timer) -> float:
    import logging
    import warnings

    import lightning as lit

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    total = case.steps + WARM_UP

    class Module(lit.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, (self.mean, self.std) = new_model(case), constants(case)
            self.last: Tensor | None = None

        def training_step(self, batch: Pair, number: int) -> Tensor:
            images, labels = batch
            loss = F.cross_entropy(
                self.model(images.float().sub_(self.mean).div_(self.std)), labels, label_smoothing=SMOOTHING
            )
            self.log("train_loss", loss)
            self.last = loss.detach()
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = new_optimizer(self)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total) / LR)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Batches:
        def __iter__(self) -> Iterator[Pair]:
            return (pair for _, pair in timer.batches(resident))

    trainer = lit.Trainer(
        accelerator="cpu",
        max_steps=total,
        max_epochs=1,
        gradient_clip_val=CLIP,
        log_every_n_steps=LOG_EVERY,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, Batches())
    assert module.last is not None
    return module.last.item()


def timm_loop(case: Case, resident: list[Pair], timer: Timer) -> float:
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.utils.clip_grad import dispatch_clip_grad
    from timm.utils.metrics import AverageMeter

    model, (mean, std) = new_model(case), constants(case)
    optimizer = new_optimizer(model)
    total = case.steps + WARM_UP
    schedule = CosineLRScheduler(optimizer, t_initial=total, t_in_epochs=False)
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    losses, durations = AverageMeter(), AverageMeter()
    model.train()
    started = time.time()
    for step, (images, labels) in timer.batches(resident):
        pixels = images.to(torch.float32).sub_(mean).div_(std)
        loss = criterion(model(pixels), labels)
        loss.backward(create_graph=False)
        dispatch_clip_grad(model.parameters(), CLIP, mode="norm")
        optimizer.step()
        losses.update(loss.item(), pixels.size(0))
        optimizer.zero_grad()
        durations.update(time.time() - started)
        started = time.time()
        schedule.step_update(num_updates=step + 1, metric=losses.avg)
    return float(losses.val)


CONTESTANTS: dict[str, tuple[Callable[[Case, list[Pair], Timer], float], str | None]] = {
    "ours": (ours, None),
    "bare": (bare, None),
    "Lightning": (lightning, "lightning"),
    "timm": (timm_loop, "timm"),
}


def serve(name: str, threads: int, requests: Connection) -> None:
    """Runs a contestant's rounds in this process: receives (case, memory), answers (wall, cpu, last loss)."""
    torch.set_num_threads(threads)
    run, resident = CONTESTANTS[name][0], {}
    while (request := requests.recv()) is not None:
        case, memory = request
        if case not in resident:
            resident = {case: resident_batches(case)}
        timer = Timer(case)
        with freed_memory_kept() if memory == "kept" else nullcontext():
            loss = run(case, resident[case], timer)
        requests.send((*timer.seconds(), loss))


def compare(case: Case, memory: str, pipes: dict[str, Connection], rounds: int) -> list[str]:
    """Rows of the table for a model."""
    names = list(pipes)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    losses: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            pipes[name].send((case, memory))
            spent, worked, losses[name] = pipes[name].recv()
            if turn:  # the first round warms up the process
                wall[name].append(spent)
                cpu[name].append(worked)
    told = {name: loss for name, loss in losses.items() if name != "ours"}  # ours is a mean over the rows since a log
    if max(told.values()) - min(told.values()) > 1e-3:
        raise SystemExit(f"{case.model}: the losses differ: {told}")
    rows = []
    for name in names:
        ratios = sorted(one / other for one, other in zip(cpu["ours"], cpu[name], strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        wall_ratio = statistics.median(one / other for one, other in zip(wall["ours"], wall[name], strict=True))
        times = f"{1000 * statistics.median(cpu[name]):.2f} | {1000 * statistics.median(wall[name]):.2f}"
        ratio = f"{middle:.3f} | {low:.3f} – {high:.3f} | {wall_ratio:.3f}"
        rows.append(f"| {case.model} | {case.size} | {case.batch} | {memory} | {name} | {times} | {ratio} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(case.model for case in CASES))
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each model, at least 2 (7)")
    parser.add_argument("--memory", choices=MEMORY, help="one setting of the allocator only")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - {case.model for case in CASES}:
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(case.model for case in CASES)}")
    if arguments.rounds < 2:
        parser.error("--rounds: the quartiles need 2 at least")
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, (_, package) in CONTESTANTS.items():
        if package is not None and importlib.util.find_spec(package) is None:
            print(f"{name} is skipped: {package} is not installed")
            continue
        pipes[name], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, arguments.threads, end), daemon=True))
        processes[-1].start()
        end.close()
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.rounds} rounds; ms per step\n")
    print("| model | pixels | batch | memory | loop | CPU | wall | ours / it, CPU | quartiles | ours / it, wall |")
    print("|---|---:|---:|---|---|---:|---:|---:|---:|---:|", flush=True)
    cases = [case for case in CASES if not arguments.models or case.model in arguments.models]
    for memory in (arguments.memory,) if arguments.memory else MEMORY:
        for case in cases:
            print("\n".join(compare(case, memory, pipes, arguments.rounds)), flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
