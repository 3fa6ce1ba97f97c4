"""`tutelage explain`: explanations of a model's predictions as PNG files, for images or for a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.image_files import image_bytes
from flows.preflight import open_store
from pipeline.errors import InputError
from pipeline.owners import temporary_folder
from pipeline.printable import printable
from pipeline.whole_files import written_whole

if TYPE_CHECKING:
    from pipeline.exported_model import ExportedModel

ARCHITECTURE = "architecture.json"


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
    """Draws an explanation of each image and prints the files' paths. Writes no file unless all images succeed.

    Raises:
        InputError: an image cannot be read, there is no such model, or the method does not fit it.
    """
    data = [image_bytes(image) for image in images]
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; name a folder")
    with _model(model_uri) as exported:
        from pipeline.explain.drawing import sheet
        from pipeline.explain.explanation import Request
        from pipeline.explain.explanations import explain, model_image

        request = Request(class_name=class_name, prompts=tuple(prompts), layer=_layer(layer), channels=channels)
        pixels = [model_image(exported, encoded, name=str(path)) for path, encoded in zip(images, data, strict=True)]
        explanations = explain(exported, pixels, method=method, request=request)
    files = [
        sheet(explanation.panels, heading=explanation.heading, caption=explanation.caption)
        for explanation in explanations
    ]
    paths = _paths(images, out, explanations[0].method)
    _write_all(paths, files)
    if as_json:
        rows = [
            {
                "image": str(image),
                "explanation": str(path),
                "method": explanation.method,
                "label": explanation.answer,
                "score": explanation.score,
            }
            for image, path, explanation in zip(images, paths, explanations, strict=True)
        ]
        print(json.dumps(rows, indent=1))
        return 0
    for path, explanation in zip(paths, explanations, strict=True):
        print(printable(f"{path}  {explanation.method}: {explanation.heading}"))
    return 0


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
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; name a folder")
    shards = open_store().resolve(data)
    with _model(model_uri) as exported:
        from pipeline.explain.data_set_channels import CAPTION, PATCHES, channel_panels, spread_evenly
        from pipeline.explain.drawing import sheet
        from pipeline.loading.reader import SampleReader
        from pipeline.sharding.format.index import SampleIndex

        index = SampleIndex.open(shards)
        rows = spread_evenly(index.rows(split), limit)
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
    _write_all([path], [sheet(panels, heading=heading, caption=CAPTION)])
    if as_json:
        print(json.dumps({"explanation": str(path), "method": "top-activations", "layer": layer_name}, indent=1))
    else:
        print(printable(f"{path}  top-activations: {heading}"))
    return 0


def _layer(text: str | None) -> int | str | None:
    """A number is an index into the sequence of layers, any other text a layer's name."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def _paths(images: Sequence[Path], out: Path, method: str) -> list[Path]:
    """cat.jpg becomes cat.grad-cam.png; images with the same name in several folders are numbered."""
    paths: list[Path] = []
    for image in images:
        path, number = out / f"{image.stem}.{method}.png", 1
        while path in paths:
            number += 1
            path = out / f"{image.stem}-{number}.{method}.png"
        paths.append(path)
    return paths


def _write_all(paths: Sequence[Path], files: Sequence[bytes]) -> None:
    """Writes the files into one folder; creates the folder if it is missing."""
    out = paths[0].parent
    try:
        for path, content in zip(paths, files, strict=True):
            with written_whole(path, durable=False) as aside:
                aside.write_bytes(content)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from None


@contextmanager
def _model(model_uri: str) -> Iterator[ExportedModel]:
    """The model in a folder, an artifact or a registered version."""
    folder = Path(model_uri)
    for candidate in (folder, folder / "model"):
        if (candidate / ARCHITECTURE).is_file():
            from pipeline.exported_model import ExportedModel

            yield ExportedModel.read(candidate)
            return
    if folder.exists():
        raise InputError(
            f"{model_uri}: no exported model ({ARCHITECTURE} is missing); name the folder that contains it"
        )
    if model_uri.startswith("models:"):
        from pipeline.registration.lookup import find_version

        registry, version = find_version(open_store(), model_uri)
        with temporary_folder() as name:
            yield registry.fetch(version, Path(name))
        return
    if "/" not in model_uri:
        raise InputError(
            f"{model_uri}: no model; give models:/NAME@ALIAS, an artifact STAGE/KEY, or the folder of an exported model"
        )
    artifact = open_store().resolve(model_uri)
    from pipeline.exported_model import ExportedModel

    yield ExportedModel.open(artifact)
