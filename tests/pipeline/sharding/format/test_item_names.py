"""The names of samples in their source are found for any rows, also in shards that a delta has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format.index import SampleIndex, content_hash
from pipeline.sharding.format.item_names import item_names
from pipeline.sharding.mixture.stage import MixDatasets, MixDatasetsConfig
from pipeline.stage import run_stage

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


def test_a_sample_of_a_mixture_is_named_by_its_data_set_and_file(
    add: Add, store: ArtifactStore, image_folder: Callable[[Mapping[str, int]], Path], picture: Callable[..., bytes]
) -> None:
    first = image_folder({"cat": 9, "dog": 9})
    pets = add(store, first)
    second = first.parent / "farm"
    for number in range(12):
        # The first four are also pets: one of the two data sets may hold them out.
        path = second / "cow" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shared = sorted(first.glob("cat/*"))[number].read_bytes() if number < 4 else picture(700 + number)
        path.write_bytes(shared)
    farm = add(store, second)
    mixture = run_stage(MixDatasets(), MixDatasetsConfig(), {"pets": pets, "farm": farm}, store=store)
    index = SampleIndex.open(mixture)
    names = item_names(mixture, range(len(index)))
    assert len(names) == len(index) > 20
    folders = {"pets": first, "farm": second}
    for id, name in names.items():
        data_set, _, file = name.partition("/")
        assert index.key(id).startswith(f"{data_set}/")
        assert index.content_hash(id) == content_hash((folders[data_set] / file).read_bytes())
    assert item_names(mixture, [5]) == {5: names[5]}
    store.remove(farm.name)
    assert set(item_names(mixture, range(len(index))).values()) == {
        name for name in names.values() if name.startswith("pets/")
    }
