"""After any history of a folder, a delta holds what a full run would."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.artifacts import Artifact, ArtifactStore

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "change", "duplicate", "copy to the other", "touch"]),
        st.sampled_from(["cat", "dog"]),
        st.integers(0, 30),
    ),
    max_size=12,
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(ACTIONS, min_size=1, max_size=3),
    conflicts=st.sampled_from(["keep", "first", "drop"]),
    cap=st.sampled_from([None, 6]),
)
def test_after_any_history_a_delta_holds_what_a_full_run_holds(
    tmp_path_factory: pytest.TempPathFactory,
    picture: Callable[..., bytes],
    add: Callable[..., Artifact],
    samples_of: Callable[[Artifact], dict[str, Any]],
    history: Any,
    conflicts: str,
    cap: int | None,
) -> None:
    root = tmp_path_factory.mktemp("history")
    store, folder = ArtifactStore.open(str(root / "store")), root / "pets"
    for label, start in (("cat", 0), ("dog", 100)):
        (folder / label).mkdir(parents=True)
        for number in range(9):
            (folder / label / f"{number:03d}.png").write_bytes(picture(start + number, size=(4, 4)))
    options: dict[str, Any] = {"duplicates": {"conflicts": conflicts}, "caps": {"per_label": cap}, "writers": 1}
    # Without held-out splits a class may shrink to nothing, and no split is filled: a full run draws as a delta does.
    options["split"] = {"val_share": 0.0, "test_share": 0.0}
    last = add(store, folder, **options)
    fresh = 1000
    for actions in history:
        for what, label, number in actions:
            names = sorted(path.name for path in (folder / label).iterdir())
            name = folder / label / names[number % len(names)]
            other = folder / ("dog" if label == "cat" else "cat") / f"c{fresh}.png"
            fresh += 1
            if what == "add":
                (folder / label / f"{fresh}.png").write_bytes(picture(fresh, size=(4, 4)))
            elif what == "remove" and len(names) > 1:
                name.unlink()
            elif what == "change":
                name.write_bytes(picture(fresh, size=(5, 5)))
            elif what == "duplicate":
                shutil.copyfile(name, folder / label / f"a{fresh}.png")
            elif what == "copy to the other":
                shutil.copyfile(name, other)
            elif what == "touch":
                os.utime(name, (1, fresh))
        delta = add(store, folder, last, **options)
        before, after, full = samples_of(last), samples_of(delta), samples_of(add(store, folder, **options))
        assert held(after) == held(full)
        for key in before.keys() & after.keys():
            assert after[key] == before[key]
        last = delta


def held(samples: dict[str, Any]) -> Counter[tuple[Any, ...]]:
    """Image, label, split, captions of every sample."""
    return Counter((sample[0], sample[1], sample[3], tuple(sample[4])) for sample in samples.values())
