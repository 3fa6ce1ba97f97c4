"""`tutelage explain`: explanations of a model's predictions as PNG files, for images or for a data set."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.image_files import ImageFile, image_files
from flows.cli.model_argument import exported_model
from flows.cli.progress_line import progress_line
from flows.preflight import open_store
from pipeline.atomic_files import atomic_write
from pipeline.counted import counted
from pipeline.errors import InputError, WorkError
from pipeline.printable import printable

if TYPE_CHECKING:
    from pipeline.explain.drawing import Panel
    from pipeline.explain.explanation import Explanation
    from pipeline.exported_model import ExportedModel


def explain(
    model_uri: str,
    images: Sequence[Path],
    *,
    method: str,
    out: Path,
    prompts: Sequence[str],
    class_name: str | None,
    layer: str | None,
    channels: int | None,
    as_json: bool,
) -> int:
    """Draws an explanation of each image and prints the files' paths; returns the exit code.

    A file that fails is reported on stderr (and as "error" in JSON), does not affect the others, and makes the
    exit code 1.

    Args:
        images: files, folders or patterns.
    Raises:
        InputError: no image can be read, there is no such model, or the method does not fit it.
    """
    files = image_files(images)
    if not any(file.problem is None and file.path.exists() for file in files):
        files[0].read()  # raises
    _refuse_file(out)
    explained: dict[ImageFile, Explanation] = {}
    errors: dict[ImageFile, str] = {}
    with progress_line("explain") as progress:
        progress(note="loading the model")
        with exported_model(model_uri) as exported:
            from pipeline.explain.explanation import ExplanationRequest
            from pipeline.explain.explanations import BATCH_SIZE, Explainer

            request = ExplanationRequest(
                class_name=class_name, prompts=tuple(prompts), layer=_layer(layer), channels=channels
            )
            explainer = Explainer(exported, method=method, request=request)
            paths = _paths(files, out, explainer.method)
            for start in range(0, len(files), BATCH_SIZE):
                progress(step=start, total=len(files), note=explainer.method)
                pixels = _pixels(exported, files[start : start + BATCH_SIZE], errors)
                for file, explanation in zip(pixels, explainer.explain(list(pixels.values())), strict=True):
                    _write_sheet(paths[file], explanation.panels, explanation.heading, explanation.caption)
                    explained[file] = replace(explanation, panels=())
    if not explained:
        raise InputError(f"{files[0].path}: {errors[files[0]]}")
    if as_json:
        print(json.dumps([_row(file, paths, explained.get(file), errors.get(file)) for file in files], indent=1))
    else:
        for file, explanation in explained.items():
            print(printable(f"{paths[file]}  {explanation.method}: {explanation.heading}"))
    for file, reason in errors.items():
        print(f"tutelage: {printable(f'{file.path}: {reason}')}", file=sys.stderr)
    return WorkError.exit_code if errors else 0


def _pixels(exported: ExportedModel, files: Sequence[ImageFile], errors: dict[ImageFile, str]) -> dict[ImageFile, Any]:
    """The images at the model's size; the reasons of those that cannot be read or decoded go to `errors`."""
    from pipeline.explain.explanations import model_image

    pixels = {}
    for file in files:
        try:
            pixels[file] = model_image(exported, file.read(), name=str(file.path))
        except InputError as error:
            errors[file] = file.reason(error)
    return pixels


def _row(
    file: ImageFile, paths: Mapping[ImageFile, Path], explanation: Explanation | None, error: str | None
) -> dict[str, Any]:
    if explanation is None:
        return {"image": str(file.path), "error": error}
    return {
        "image": str(file.path),
        "explanation": str(paths[file]),
        "method": explanation.method,
        "label": explanation.answer,
        "score": explanation.score,
    }


def explain_over_data(
    model_uri: str,
    data: str,
    *,
    split: str | None,
    limit: int,
    out: Path,
    layer: str | None,
    channels: int | None,
    as_json: bool,
) -> int:
    """Draws the images of shards that activate each channel most, and prints the file's path.

    Args:
        data: STAGE/KEY of shards.
        split: train, val or test; None: all.
        limit: the largest number of images to read, evenly spaced from the first to the last.
    Raises:
        InputError: there is no such model or data set, or the network is not a sequence of layers.
    """
    _refuse_file(out)
    shards = open_store().resolve(data)
    with progress_line("explain") as progress, exported_model(model_uri) as exported:
        progress(note="loading the model")
        from pipeline.explain.data_set_channels import CAPTION, PATCHES, channel_panels, spread_evenly
        from pipeline.loading.reader import SampleReader
        from pipeline.sharding.format.index import SampleIndex

        index = SampleIndex.open(shards)
        rows = spread_evenly(index.rows(split), limit)
        progress(note=f"reading {counted(len(rows), 'image')}")
        layer_name, panels = channel_panels(
            exported,
            SampleReader(shards, index),
            index,
            rows,
            layer=_layer(layer),
            channels=channels or PATCHES,
        )
        name = exported.architecture
    heading = f"{name}, layer {layer_name}: images that activate each channel most, of {len(rows):,}"
    path = out / f"{name}.top-activations.png"
    _write_sheet(path, panels, heading, CAPTION)
    if as_json:
        print(json.dumps({"explanation": str(path), "method": "top-activations", "layer": layer_name}, indent=1))
    else:
        print(printable(f"{path}  top-activations: {heading}"))
    return 0


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; name a folder")


def _layer(text: str | None) -> int | str | None:
    """A number is an index into the sequence of layers, any other text a layer's name."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def _paths(files: Sequence[ImageFile], out: Path, method: str) -> dict[ImageFile, Path]:
    """cat.jpg becomes cat.grad-cam.png; images with the same name in several folders are numbered."""
    paths: dict[ImageFile, Path] = {}
    taken: set[Path] = set()
    numbers: Counter[str] = Counter()
    for file in files:
        stem = file.path.stem
        path = out / f"{stem}.{method}.png"
        while path in taken:
            numbers[stem] += 1
            path = out / f"{stem}-{numbers[stem] + 1}.{method}.png"
        taken.add(path)
        paths[file] = path
    return paths


def _write_sheet(path: Path, panels: Sequence[Panel], heading: str, caption: str) -> None:
    """Draws panels into a PNG; creates its folder if it is missing."""
    from pipeline.explain.drawing import sheet

    try:
        with atomic_write(path, durable=False) as temporary:
            temporary.write_bytes(sheet(panels, heading=heading, caption=caption))
    except OSError as error:
        raise InputError(f"--out {path.parent}: cannot be written ({error.strerror}); name another folder") from None
