"""Speed of training steps of our models against the same models of timm, torchvision and open_clip; cost of building.

    python benchmarks/models/forward_backward.py                       # all pairs, then building of all models
    python benchmarks/models/forward_backward.py resnet50 vit_small    # these pairs only

A step is forward, a loss and backward on one random batch in training mode, with new weights. The script checks that
both models of a pair have the same number of parameters. In each round both run, in alternating order; the table has
the medians over the rounds, and the ratio ours / theirs with its quartiles. Above 1.00 ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
import timm
import torch
import torchvision
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from model_defs import create_model, list_models
from model_defs.counting import count_parameters, on_meta

TEXT_TOKENS = 77
SLOW_S = 0.5


@dataclass(frozen=True)
class Pair:
    """One model, by us and by a peer.

    Attributes:
        size: side of the images in pixels.
        batch: images per step, multiplied by `--scale`.
    """

    name: str
    peer: str
    ours: Callable[[int], nn.Module]
    theirs: Callable[[int], nn.Module]
    size: int
    batch: int


def our_builder(name: str, **kwargs: Any) -> Callable[[int], nn.Module]:
    """Returns a function that builds our model for an image size."""
    return lambda size: create_model(name, img_size=size, **kwargs)


def torchvision_builder(name: str, **kwargs: Any) -> Callable[[int], nn.Module]:
    """Returns a function that builds torchvision's model, which needs no size."""
    return lambda size: torchvision.models.get_model(name, weights=None, **kwargs)


def timm_builder(name: str, sized: bool = False) -> Callable[[int], nn.Module]:
    """Returns a function that builds timm's model; with `sized`, for a transformer, it gets the image size."""
    return lambda size: timm.create_model(name, img_size=size) if sized else timm.create_model(name)


def distilled_of_timm(size: int) -> nn.Module:
    """timm's DeiT, which returns both heads separately in training, as ours does."""
    model: Any = timm.create_model("deit_small_distilled_patch16_224", img_size=size)
    model.set_distilled_training(True)
    return model


def our_clip(size: int) -> nn.Module:
    """Our CLIP with backbones of width 384."""
    return create_model(
        "clip",
        image_tower="vit",
        image_kwargs={
            "size": "small", "patch_size": 16, "img_size": size, "patch_bias": False, "pre_norm": True,
            "norm_eps": 1e-5,
        },
        text_kwargs={"width": 384, "depth": 12, "heads": 6, "context_length": TEXT_TOKENS},
        embed_dim=384,
    )  # fmt: skip


def open_clips_clip(size: int) -> nn.Module:
    """open_clip's CLIP with the same sizes."""
    return open_clip.CLIP(
        384,
        CLIPVisionCfg(layers=12, width=384, head_width=64, patch_size=16, image_size=size),
        CLIPTextCfg(width=384, heads=6, layers=12, context_length=TEXT_TOKENS),
    )


PAIRS = (
    Pair("vgg11_bn", "torchvision", our_builder("vgg11_bn"), torchvision_builder("vgg11_bn"), 128, 8),
    Pair("resnet50", "torchvision", our_builder("resnet50"), torchvision_builder("resnet50"), 128, 8),
    Pair("densenet121", "torchvision", our_builder("densenet121"), torchvision_builder("densenet121"), 128, 8),
    Pair("seresnet50", "timm", our_builder("seresnet50"), timm_builder("legacy_seresnet50"), 128, 8),
    Pair("inception_v3", "torchvision", our_builder("inception_v3"), torchvision_builder(
        "inception_v3", aux_logits=False, init_weights=False), 139, 8),
    Pair("inception_v4", "timm", our_builder("inception_v4"), timm_builder("inception_v4"), 139, 8),
    Pair("inception_resnet_v2", "timm", our_builder("inception_resnet_v2"), timm_builder(
        "inception_resnet_v2"), 139, 8),
    Pair("vit_small", "timm", our_builder("vit_small_patch16_224"), timm_builder(
        "vit_small_patch16_224", sized=True), 224, 8),
    Pair("deit_small_distilled", "timm", our_builder("deit_small_distilled_patch16_224"), distilled_of_timm, 224, 8),
    Pair("clip_small", "open_clip", our_clip, open_clips_clip, 224, 8),
)  # fmt: skip


def step_of(model: nn.Module, size: int, batch: int, device: str, bfloat16: bool) -> Callable[[], None]:
    """A function that runs one training step without an optimiser."""
    model = model.to(device).train()
    images = torch.randn(batch, 3, size, size, device=device)
    tokens = torch.randint(1, 49_000, (batch, TEXT_TOKENS), device=device)
    tokens[:, -1] = 49_407  # the end of text, which is pooled
    with_text = hasattr(model, "encode_text")

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            out = model(images, tokens) if with_text else model(images)
        outputs = [output for output in (out if isinstance(out, tuple) else (out,)) if isinstance(output, Tensor)]
        sum(output.float().square().mean() for output in outputs).backward()  # type: ignore[union-attr]
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    """Mean seconds per step over `steps` steps."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def compare(pair: Pair, arguments: argparse.Namespace) -> str:
    """Measures a pair; returns its row of the table."""
    size, batch = arguments.size or pair.size, pair.batch * arguments.scale
    models = [pair.ours(size), pair.theirs(size)]
    counts = [count_parameters(model) for model in models]
    if counts[0] != counts[1]:
        raise SystemExit(f"{pair.name}: {counts[0]:,} parameters here and {counts[1]:,} there: not the same model")
    steps = [step_of(model, size, batch, arguments.device, arguments.bfloat16) for model in models]
    for step in steps:
        step()  # warm-up: memory is allocated, algorithms are chosen
    taken: list[list[float]] = [[], []]
    for turn in range(arguments.rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[which].append(seconds(steps[which], arguments.steps))
    ratios = sorted(theirs / ours for ours, theirs in zip(*taken, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    rates = [batch / statistics.median(times) for times in taken]
    return (
        f"| {pair.name} | {pair.peer} | {size} | {batch} | {rates[0]:,.1f} | {rates[1]:,.1f} | {middle:.2f} "
        f"| {low:.2f} – {high:.2f} |"
    )


def building() -> str:
    """Measures listing all models, and building each on the meta device; returns two lines."""
    code = (
        "import sys, time; start = time.perf_counter(); import model_defs; names = model_defs.list_models();"
        "print(time.perf_counter() - start, 'torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    taken = []
    for name in list_models():
        on_meta(name)  # imports its file
        start = time.perf_counter()
        on_meta(name)
        taken.append((time.perf_counter() - start, name))
    slow = ", ".join(name for cost, name in taken if cost >= SLOW_S) or "none"
    slowest = ", ".join(f"{name} {cost:.2f} s" for cost, name in sorted(taken, reverse=True)[:3])
    median = statistics.median(cost for cost, _ in taken)
    return (
        f"list_models() of {len(taken)} models, in a new process: {1000 * float(answer[0]):.0f} ms, "
        f"torch or torchvision imported: {answer[1]}.\n"
        f"Building on meta: median {1000 * median:.0f} ms; the slowest: {slowest}; at {SLOW_S} s or more: {slow}."
    )


def main() -> None:
    """Prints a Markdown table, each row as soon as it is measured, and two lines on building."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help=", ".join(pair.name for pair in PAIRS))
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each pair, at least 2 (7)")
    parser.add_argument("--steps", type=int, default=2, help="steps of each model in a round (2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bfloat16", action="store_true", help="under autocast, as a GPU trains by default")
    parser.add_argument("--scale", type=int, default=1, help="factor on the batch sizes (1)")
    parser.add_argument("--size", type=int, help="side of the images, for all pairs")
    parser.add_argument("--no-building", action="store_true", help="do not measure building")
    arguments = parser.parse_args()
    unknown = set(arguments.pairs) - {pair.name for pair in PAIRS}
    if unknown:
        parser.error(f"no pair {', '.join(sorted(unknown))}; there are {', '.join(pair.name for pair in PAIRS)}")
    if arguments.rounds < 2:
        parser.error("--rounds: the quartiles need 2 at least")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {arguments.threads} threads"
    precision = "bfloat16" if arguments.bfloat16 else "float32"
    print(f"{versions}, open_clip {open_clip.__version__}; {where}, {precision}", flush=True)
    print(f"{arguments.rounds} rounds of {arguments.steps} steps\n")
    print("| model | peer | pixels | batch | ours, images/s | theirs, images/s | ratio | quartiles |")
    print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for pair in PAIRS:
        if not arguments.pairs or pair.name in arguments.pairs:
            print(compare(pair, arguments), flush=True)
    if not arguments.no_building:
        print(f"\n{building()}")


if __name__ == "__main__":
    main()
