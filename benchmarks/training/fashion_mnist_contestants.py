"""Fashion-MNIST trained by Tutelage, a plain torchvision script, timm's loop and Lightning: one process for each.

    python benchmarks/training/fashion_mnist_contestants.py NAME SHARDS --model lenet5

fashion_mnist_epoch.py runs this, and says what is equal. A line of JSON for each epoch, after its evaluation: wall
seconds since the process started, CPU seconds of it and of its child processes, and the validation accuracy.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import create_model

BATCH, SMOOTHING, CLIP, WARMUP, DECAY, MEAN, STD = 256, 0.1, 1.0, 0.05, 0.05, 0.286, 0.353
AREA, FLIP, VAL_BATCH, LOG_EVERY, CLASSES = 0.8, 0.5, 256, 10, 10
RATIO = 4 / 3
MODELS: dict[str, dict[str, Any]] = {
    "lenet5": {"img_size": 28},
    "resnet_small": {"widths": [16, 32, 64, 128]},
}
LEARNING_RATE = {"lenet5": 2e-3, "resnet_small": 4e-3}
CPU = torch.device("cpu")
Loader = Any  # of (images, labels)


def new_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=CLASSES, in_chans=1, **MODELS[name]).to(memory_format=torch.channels_last)


def new_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def factor(step: int, total: int) -> float:
    """Of the learning rate: linear warm-up, then a cosine to zero."""
    warmup = math.ceil(WARMUP * total)
    return (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def report(epoch: int, accuracy: float) -> None:
    """Prints the line of an epoch."""
    children = sum(_cpu_seconds(child.pid) for child in multiprocessing.active_children())
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + ended.ru_utime + ended.ru_stime + children
    print(json.dumps({"epoch": epoch, "wall": _age(), "cpu": cpu, "accuracy": accuracy}), flush=True)


def _cpu_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _age() -> float:
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def ours(model: str, shards: Path, epochs: int) -> None:
    from pipeline.training.allocator import freed_memory_kept
    from pipeline.training.classification_config import ClassificationConfig
    from pipeline.training.reporter import NullReporter
    from pipeline.training.stage import ClassificationRecipe
    from pipeline.training.worker import CheckpointLocation, train_recipe

    class Reporter(NullReporter):
        epoch = 0

        def row(self, row: dict[str, Any]) -> None:
            if "val/accuracy" in row:
                self.epoch += 1
                report(self.epoch, row["val/accuracy"])

    config = ClassificationConfig.model_validate(
        {
            "model": {"name": model, "kwargs": {name: of for name, of in MODELS[model].items() if name != "img_size"}},
            "image_size": 28,
            "channels": 1,
            "mean": [MEAN],
            "std": [STD],
            "label_smoothing": SMOOTHING,
            "loader": {
                "augment": {
                    "crop_min_area": AREA,
                    "crop_max_ratio": RATIO,
                    "flip": FLIP,
                    "brightness": 0,
                    "contrast": 0,
                    "saturation": 0,
                }
            },
            "training": {
                "epochs": epochs,
                "global_batch": BATCH,
                "optimizer": {"kind": "adamw", "lr": LEARNING_RATE[model], "weight_decay": DECAY},
                "warmup": WARMUP,
                "final_lr": 0.0,
                "clip_norm": CLIP,
                "precision": "float32",
                "log_every_steps": LOG_EVERY,
            },
        }
    )
    store, name = shards.parents[2], f"{shards.parent.name}/{shards.name}"
    recipe = ClassificationRecipe(config, str(store), name)
    with tempfile.TemporaryDirectory(dir=store) as folder, freed_memory_kept():  # as a runner trains
        location = CheckpointLocation(folder, "checkpoints")
        train_recipe(recipe, CPU, 0, 1, location, Reporter())


def torchvision_sets(shards: Path) -> tuple[Any, Any]:
    """torchvision's data set in two parts, of as many images as our training and validation split."""
    from torchvision.datasets import FashionMNIST

    from pipeline.sharding.sources.fashion_mnist import DEBIAN_FOLDER

    counts = json.loads((shards / "data_card.json").read_text())["splits"]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in DEBIAN_FOLDER.glob("*.gz"):
            (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        train, val = FashionMNIST(folder), FashionMNIST(folder)
    for part, rows in ((train, slice(0, counts["train"])), (val, slice(counts["train"], None))):
        part.data, part.targets = part.data[rows], part.targets[rows]
    return train, val


def torchvision_loaders(shards: Path) -> tuple[Loader, Loader]:
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    normalise = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])]
    train, val = torchvision_sets(shards)
    train.transform = v2.Compose(
        [v2.RandomResizedCrop(28, (AREA, 1.0), (1 / RATIO, RATIO)), v2.RandomHorizontalFlip(FLIP), *normalise]
    )
    val.transform = v2.Compose(normalise)
    return (
        DataLoader(train, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True),
        DataLoader(val, VAL_BATCH, num_workers=2, persistent_workers=True),
    )


def timm_loaders(shards: Path) -> tuple[Loader, Loader]:
    from timm.data.loader import create_loader

    train, val = torchvision_sets(shards)
    options: dict[str, Any] = {
        "input_size": (1, 28, 28),
        "mean": (MEAN,),
        "std": (STD,),
        "num_workers": 2,
        "device": CPU,
        "interpolation": "bilinear",
        "persistent_workers": True,
    }
    return (
        create_loader(
            train,
            batch_size=BATCH,
            is_training=True,
            scale=(AREA, 1.0),
            ratio=(1 / RATIO, RATIO),
            hflip=FLIP,
            color_jitter=0.0,
            **options,
        ),
        create_loader(val, batch_size=VAL_BATCH, crop_pct=1.0, **options),
    )


def validation_accuracy(model: nn.Module, val: Loader) -> float:
    model.eval()
    right = total = 0
    with torch.inference_mode():
        for images, labels in val:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    model.train()
    return right / total


def plain(name: str, shards: Path, epochs: int) -> None:
    train, val = torchvision_loaders(shards)
    model, lr = new_model(name), LEARNING_RATE[name]
    optimizer = new_optimizer(model, lr)
    step, total, running = 0, epochs * len(train), 0.0
    for epoch in range(1, epochs + 1):
        for images, labels in train:
            for group in optimizer.param_groups:
                group["lr"] = lr * factor(step, total)
            loss = F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            running += loss.item()
            step += 1
        report(epoch, validation_accuracy(model, val))


def timm_loop(name: str, shards: Path, epochs: int) -> None:
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.utils.clip_grad import dispatch_clip_grad
    from timm.utils.metrics import AverageMeter

    train, val = timm_loaders(shards)
    model, lr = new_model(name), LEARNING_RATE[name]
    optimizer = new_optimizer(model, lr)
    total = epochs * len(train)
    schedule = CosineLRScheduler(
        optimizer, t_initial=total, t_in_epochs=False, warmup_t=math.ceil(WARMUP * total), warmup_lr_init=lr / 100
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    losses, step = AverageMeter(), 0
    model.train()
    for epoch in range(1, epochs + 1):
        for images, labels in train:
            loss = criterion(model(images), labels)
            loss.backward()
            dispatch_clip_grad(model.parameters(), CLIP, mode="norm")
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), images.size(0))
            step += 1
            schedule.step_update(num_updates=step, metric=losses.avg)
        report(epoch, validation_accuracy(model, val))


def lightning(name: str, shards: Path, epochs: int) -> None:
    import logging
    import warnings

    import lightning as lit

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train, val = torchvision_loaders(shards)
    total = epochs * len(train)

    class Module(lit.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model(name)
            self.right, self.rows = 0, 0

        def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
            images, labels = batch
            loss = F.cross_entropy(self.model(images), labels, label_smoothing=SMOOTHING)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
            images, labels = batch
            self.right += int((self.model(images).argmax(1) == labels).sum())
            self.rows += len(labels)

        def on_validation_epoch_end(self) -> None:
            report(self.current_epoch + 1, self.right / self.rows)
            self.right = self.rows = 0

        def configure_optimizers(self) -> Any:
            optimizer = new_optimizer(self, LEARNING_RATE[name])
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, total))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    lit.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=CLIP,
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Module(), train, val)


CONTESTANTS = {"ours": ours, "torchvision": plain, "timm": timm_loop, "Lightning": lightning}
PACKAGES = {"timm": "timm", "Lightning": "lightning"}


def read_lines(output: str) -> Iterator[dict[str, float]]:
    """The lines of `report` in what a contestant printed."""
    return (json.loads(line) for line in output.splitlines() if line.startswith('{"epoch"'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("shards", type=Path, help="folder of the artifact of `tutelage run shard-dataset`")
    parser.add_argument("--model", choices=MODELS, default="lenet5")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    CONTESTANTS[given.name](given.model, given.shards.resolve(), given.epochs)


if __name__ == "__main__":
    main()
