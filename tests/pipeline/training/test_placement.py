"""What each worker takes."""

from __future__ import annotations

import pytest

from pipeline.errors import InputError
from pipeline.training.placement import RunnerConfig, worker_resources


def nodes(*shapes: tuple[int, int]) -> list[dict[str, float]]:
    return [{"CPU": float(cpus), "GPU": float(gpus)} for cpus, gpus in shapes]


@pytest.mark.parametrize(
    ("config", "cluster", "expected"),
    [
        ({"workers": 1}, nodes((2, 0)), {"CPU": 2.0}),
        ({"workers": 2}, nodes((2, 0)), {"CPU": 1.0}),
        # Two machines of eight: five each would leave room for two workers only.
        ({"workers": 3}, nodes((8, 0), (8, 0)), {"CPU": 4.0}),
        ({"workers": 4}, nodes((8, 2), (8, 2)), {"CPU": 4.0, "GPU": 1.0}),
        ({"workers": 4, "use_gpu": "no"}, nodes((8, 2), (8, 2)), {"CPU": 4.0}),
        ({"workers": 5}, nodes((8, 2), (8, 2)), {"CPU": 2.0}),
    ],
)
def test_workers_get_an_even_share_that_fits(
    config: dict[str, object], cluster: list[dict[str, float]], expected: dict[str, float]
) -> None:
    assert worker_resources(RunnerConfig.model_validate(config), cluster) == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"workers": 3}, "workers=3 with 1 CPU each do not fit in 2 CPUs on 1 machine"),
        ({"workers": 1, "cpus_per_worker": 4}, "workers=1 with 4 CPU each do not fit"),
        ({"workers": 1, "use_gpu": "yes"}, "there are 0 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        worker_resources(RunnerConfig.model_validate(config), nodes((2, 0)))
