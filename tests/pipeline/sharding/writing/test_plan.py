"""The plan is a pure function of what was read, and does what it says: checked against a plain Python reading of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED, DuplicatesConfig, without_duplicates
from pipeline.sharding.writing.equal_sets import EqualSets
from pipeline.sharding.writing.plan import CapsConfig, Plan, ShardSize, build_plan
from pipeline.sharding.writing.split_config import SplitConfig

TRAIN, VAL, TEST = range(3)
Image = dict[str, Any]
MakePlan = Callable[..., Plan]
IMAGES = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.integers(0, 25).map("key-{}".format),
            "content": st.integers(0, 25).map("bytes-{}".format),
            "label": st.integers(-1, 2),
            "caption": st.sampled_from(["", "a cat", "a dog"]),
            "look": st.integers(0, 15).map(lambda n: n * 0x1111111111111111 ^ (1 << n)),
            "group": st.one_of(st.none(), st.integers(0, 9).map("group-{}".format)),
            "path": st.sampled_from([(), ("a",), ("a", "b")]),
            "given": st.sampled_from(SPLITS),
            "stored": st.integers(1, 9).map(lambda n: 1024 * n),
        }
    ),
    max_size=60,
)
DUPLICATES = st.builds(
    DuplicatesConfig,
    exact=st.sampled_from(["remove", "keep"]),
    near=st.sampled_from(["remove", "keep"]),
    near_radius=st.integers(0, 3),
    conflicts=st.sampled_from(["keep", "first", "drop"]),
)
SIZES = st.builds(ShardSize, samples=st.integers(1, 9), bytes=st.one_of(st.none(), st.integers(1, 20_000)))


@pytest.fixture(scope="session")
def plan_of(columns_of: Callable[..., PlanColumns]) -> MakePlan:
    """plan_of(images, caps=..., ...): the plan of images whose splits are given."""

    def make(images: list[Image], **more: Any) -> Plan:
        settings = {
            "split": SplitConfig(rule="given"),
            "duplicates": DuplicatesConfig(exact="keep"),
            "caps": CapsConfig(),
            "size": ShardSize(1000),
            "label_names": ("cat", "dog", "bird"),
            **more,
        }
        return build_plan(columns_of(images), lambda row: str(images[row]["key"]), **settings)

    return make


def looks_alike(one: Image, other: Image, config: DuplicatesConfig) -> bool:
    return (one["look"] ^ other["look"]).bit_count() <= config.near_radius


def plainly_kept(images: list[Image], config: DuplicatesConfig) -> list[int]:
    """What `duplicates.py` promises, image by image: the split of each, or DROPPED."""
    split = [SPLITS.index(image["given"]) for image in images]
    same = {
        row: [r for r, o in enumerate(images) if o["content"] == images[row]["content"]] for row in range(len(images))
    }
    protected = {row: max(SPLITS.index(images[r]["given"]) for r in same[row]) for row in same}
    kept = [row for row in same if split[row] == protected[row]]
    if config.conflicts == "drop":
        kept = [row for row in kept if len({images[r]["label"] for r in same[row]}) == 1]
    elif config.conflicts == "first":
        first = {row: next(r for r in same[row] if r in kept) for row in kept}
        kept = [row for row in kept if images[row]["label"] == images[first[row]]["label"]]
    if config.exact == "remove":
        seen = set()
        for row in list(kept):
            meaning = (images[row]["content"], images[row]["label"], images[row]["caption"])
            if meaning in seen:
                kept.remove(row)
            seen.add(meaning)
    if config.near == "remove":
        if config.conflicts == "drop":
            kept = [
                row
                for row in kept
                if all(
                    images[r]["label"] == images[row]["label"]
                    for r in kept
                    if looks_alike(images[r], images[row], config)
                )
            ]
        stay: list[int] = []
        for row in sorted(kept, key=lambda row: (-split[row], row)):
            near = [r for r in stay if looks_alike(images[r], images[row], config)]
            if config.conflicts == "keep":
                near = [r for r in near if images[r]["label"] == images[row]["label"]]
            if not near:
                stay.append(row)
        kept = stay
    return [split[row] if row in kept else DROPPED for row in range(len(images))]


@given(IMAGES, DUPLICATES)
@settings(max_examples=40, deadline=None)
def test_duplicates_are_those_of_the_plain_reading(
    columns_of: Callable[..., PlanColumns], images: list[Image], config: DuplicatesConfig
) -> None:
    columns = columns_of(images)
    assignment = without_duplicates(
        columns.given_split,
        labels=columns.label,
        equal_sets=EqualSets.of_hashes(columns.hash_high, columns.hash_low),
        captions_hashes=columns.captions_hash,
        difference_hashes=columns.difference_hash,
        config=config,
    )
    assert assignment.splits.tolist() == plainly_kept(images, config)
    dropped = assignment.held_out_copies + assignment.repeats + assignment.conflicting + assignment.near_duplicates
    assert dropped == (assignment.splits == DROPPED).sum()
    contents = {image["content"] for image in images}
    assert assignment.equal_sets.copies == len(images) - len(contents)
    assert assignment.conflicting_sets == sum(
        len({image["label"] for image in images if image["content"] == content}) > 1 for content in contents
    )


@given(IMAGES, DUPLICATES, SIZES, st.one_of(st.none(), st.integers(1, 5)), st.one_of(st.none(), st.integers(1, 5)))
@settings(max_examples=50, deadline=None)
def test_shards_hold_every_kept_image_once_in_the_order_of_their_keys(
    plan_of: MakePlan,
    images: list[Image],
    duplicates: DuplicatesConfig,
    size: ShardSize,
    per_label: int | None,
    per_concept: int | None,
) -> None:
    caps = CapsConfig(per_label=per_label, per_concept=per_concept)
    plan = plan_of(images, duplicates=duplicates, size=size, caps=caps)
    left = sum(plan.capped.values())
    assert len(plan.rows) == len(set(plan.rows.tolist())) == (plan.assignment.splits != DROPPED).sum() - left
    assert (plan.splits == plan.assignment.splits[plan.rows]).all()

    keys = [f"{images[row]['key']}{suffix(plan, row)}" for row in plan.rows.tolist()]
    assert len(set(keys)) == len(keys)
    placed = [
        (int(split), hashlib.blake2b(key.encode()).digest()) for split, key in zip(plan.splits, keys, strict=True)
    ]
    assert placed == sorted(placed)

    assert plan.edges[0] == 0
    assert plan.edges[-1] == len(plan.rows)
    for number, name in enumerate(plan.shard_names):
        ids = range(plan.edges[number], plan.edges[number + 1])
        assert 1 <= len(ids) <= size.samples
        assert {SPLITS[plan.splits[id]] for id in ids} == {name.removeprefix("shards/").partition("-")[0]}
        stored = sum(images[plan.rows[id]]["stored"] for id in ids) + 1024
        assert size.bytes is None or stored <= size.bytes or len(ids) == 1
        after = ids.stop
        if after < len(plan.rows) and plan.splits[after] == plan.splits[ids.start]:
            more = stored + images[plan.rows[after]]["stored"]
            assert len(ids) == size.samples or (size.bytes is not None and more > size.bytes), "no shard ends early"


def suffix(plan: Plan, row: int) -> str:
    return f"-{plan.suffixes[row]}" if row in plan.suffixes else ""


@given(IMAGES, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_caps_leave_as_many_as_they_say_and_evaluation_whole(
    plan_of: MakePlan, images: list[Image], limit: int
) -> None:
    free, capped = plan_of(images), plan_of(images, caps=CapsConfig(per_label=limit))
    for label in range(3):
        counts = [
            sum(images[row]["label"] == label for row in plan.rows[plan.splits == TRAIN].tolist())
            for plan in (free, capped)
        ]
        assert counts[1] == min(counts[0], limit)
    assert (free.splits != TRAIN).sum() == (capped.splits != TRAIN).sum()
    without = [row for row in capped.rows.tolist() if images[row]["label"] == -1]
    assert len(without) == sum(images[row]["label"] == -1 for row in free.rows.tolist()), (
        "what has no label is not capped"
    )
    assert capped.capped["per_label"] == len(free.rows) - len(capped.rows)


def test_a_concept_is_capped_by_its_node(plan_of: MakePlan) -> None:
    images = [{"key": f"k{n}", "path": ("a", "b") if n % 2 else ("a",), "given": "train"} for n in range(20)]
    plan = plan_of(images, caps=CapsConfig(per_concept=3))
    assert len(plan.rows) == 6
    assert plan.capped == {"per_label": 0, "per_concept": 14}


def test_a_key_s_second_user_does_not_take_a_third_one_s(plan_of: MakePlan) -> None:
    images = [{"key": key, "given": "train"} for key in ("a", "a", "a-2", "a", "b")]
    plan = plan_of(images)
    keys = {row: f"{images[row]['key']}{suffix(plan, row)}" for row in plan.rows.tolist()}
    assert keys[0] == "a"
    assert keys[2] == "a-2"
    assert sorted(keys.values()) == ["a", "a-2", "a-3", "a-4", "b"]


def test_planning_takes_a_bounded_number_of_bytes_an_image() -> None:
    """76 bytes a row held, and no object an image: the peak is a few columns more."""
    import tracemalloc

    count = 300_000
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**63, (6, count)).astype(np.uint64)
    columns = PlanColumns(
        starts=np.array([0, count], dtype=np.int64),
        hash_high=numbers[0],
        hash_low=numbers[1],
        difference_hash=numbers[2],
        label=rng.integers(0, 100, count, dtype=np.int32),
        family=np.zeros(count, np.int16),
        node=np.zeros(count, np.int32),
        given_split=np.full(count, -1, np.int8),
        group_hash=numbers[3],
        has_named_group=np.zeros(count, np.int8),
        split_draw=rng.random(count),
        captions_hash=numbers[4],
        key_hash=numbers[5],
        sample_bytes=np.full(count, 4096, np.int64),
        family_names=("",),
        node_paths=((),),
    )
    assert columns.nbytes == 76 * count
    tracemalloc.start()
    plan = build_plan(
        columns,
        lambda row: pytest.fail("no key is asked for"),
        split=SplitConfig(),
        duplicates=DuplicatesConfig(),
        caps=CapsConfig(),
        size=ShardSize(10_000),
        label_names=[f"label {n}" for n in range(100)],
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.rows) == count
    assert peak < 80 * count
