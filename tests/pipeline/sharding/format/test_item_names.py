"""The names of samples in their source are found for any rows, also in shards that a delta has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.item_names import item_names

Add = Callable[..., Artifact]


def test_every_stored_image_is_named_by_its_file(
    add: Add, store: ArtifactStore, image_folder: Callable[[Mapping[str, int]], Path], picture: Callable[..., bytes]
) -> None:
    folder = image_folder({"cat": 9, "dog": 9})
    base = add(store, folder)
    (folder / "cat" / "new one.png").write_bytes(picture(999))
    delta = add(store, folder, base=base)
    for artifact, count in ((base, 18), (delta, 19)):
        index = SampleIndex.open(artifact)
        names = item_names(artifact, range(len(index)))
        files = {str(path.relative_to(folder)) for path in folder.glob("*/*")} - (
            {"cat/new one.png"} if count == 18 else set()
        )
        assert set(names.values()) == files
        labels = {id: index.label_names[index.labels[id]] for id in names}
        assert all(name.startswith(f"{labels[id]}/") for id, name in names.items())
        assert item_names(artifact, [3, 7]) == {3: names[3], 7: names[7]}
        assert item_names(artifact, []) == {}
