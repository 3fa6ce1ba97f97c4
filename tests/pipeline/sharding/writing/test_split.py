"""No group and no image is in two splits; what is held out stays held out; every class is in every split."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError, UnknownNameError
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED, DuplicatesConfig, SplitAssignment
from pipeline.sharding.writing.split import assign_splits, split_draw
from pipeline.sharding.writing.split_config import SplitConfig

TRAIN, VAL, TEST = range(3)
Sample = tuple[str, int, str, str]  # group, label, family, content
Split = Callable[..., SplitAssignment]


@pytest.fixture(scope="session")
def split(columns_of: Callable[..., PlanColumns]) -> Split:
    """split(samples, config): what becomes of samples of three classes."""

    def assigned(
        samples: list[Sample], config: SplitConfig, labels: int = 3, given: list[str | None] | None = None
    ) -> SplitAssignment:
        images = [
            {
                "group": group,
                "label": label,
                "family": family,
                "content": content,
                "given": given[row] if given else None,
                "place": split_draw(content if config.rule == "image" else group, config.seed),
            }
            for row, (group, label, family, content) in enumerate(samples)
        ]
        return assign_splits(
            columns_of(images), config, DuplicatesConfig(), [f"class-{number}" for number in range(labels)]
        )

    return assigned


SAMPLES = st.lists(
    st.tuples(
        st.integers(0, 40).map("group-{}".format),
        st.integers(-1, 2),
        st.sampled_from(["noto", "openmoji", "fluent"]),
        st.integers(0, 60).map("bytes-{}".format),
    ),
    max_size=120,
).map(
    # Enough of every class in every family that none is too small.
    lambda drawn: (
        drawn
        + [
            (f"own-{label}-{n}", label, ("openmoji", "fluent", "noto")[n % 3], f"own-{label}-{n}")
            for label in range(3)
            for n in range(12)
        ]
    )
)
SHARES = st.sampled_from([0.0, 0.1, 0.3, 0.45])


@given(SAMPLES, SHARES, SHARES, st.integers(0, 3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_groups_and_equal_images_never_cross_splits(
    split: Split, samples: list[Sample], val: float, test: float, seed: int
) -> None:
    splits = split(samples, SplitConfig(val_share=val, test_share=test, seed=seed)).splits
    for field in (0, 3):
        of: dict[str, set[int]] = {}
        for sample, number in zip(samples, splits, strict=True):
            if number != DROPPED:
                of.setdefault(str(sample[field]), set()).add(int(number))
        assert all(len(found) == 1 for found in of.values())


@given(SAMPLES, SHARES, st.integers(0, 3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_held_out_family_is_the_test_split_and_shares_no_image(
    split: Split, samples: list[Sample], val: float, seed: int
) -> None:
    splits = split(samples, SplitConfig(val_share=val, holdout_family="noto", seed=seed)).splits
    for (_, _, family, _), number in zip(samples, splits, strict=True):
        assert (number == TEST) == (family == "noto") or number == DROPPED
    held_out = {content for (*_, content), number in zip(samples, splits, strict=True) if number == TEST}
    learnt = {content for (*_, content), number in zip(samples, splits, strict=True) if number in (TRAIN, VAL)}
    assert not held_out & learnt
    of_train = {group for (group, *_), number in zip(samples, splits, strict=True) if number == TRAIN}
    of_val = {group for (group, *_), number in zip(samples, splits, strict=True) if number == VAL}
    assert not of_train & of_val


@given(st.integers(3, 30), st.integers(3, 30), SHARES, SHARES, st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_every_class_is_in_every_split(
    split: Split, first: int, second: int, val: float, test: float, seed: int
) -> None:
    samples = [(f"a{n}", 0, "", f"a{n}") for n in range(first)] + [(f"b{n}", 1, "", f"b{n}") for n in range(second)]
    splits = split(samples, SplitConfig(val_share=val, test_share=test, seed=seed), labels=2).splits
    wanted = {TRAIN} | ({VAL} if val else set()) | ({TEST} if test else set())
    for label in (0, 1):
        assert {int(number) for sample, number in zip(samples, splits, strict=True) if sample[1] == label} == wanted


@given(st.integers(200, 400), st.integers(0, 200), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_what_is_held_out_stays_held_out_when_data_are_added(split: Split, before: int, added: int, seed: int) -> None:
    samples = [(f"group-{n}", 0, "", f"{n}") for n in range(before + added)]
    config = SplitConfig(val_share=0.2, test_share=0.2, seed=seed)
    old = split(samples[:before], config, labels=1).splits
    new = split(samples, config, labels=1).splits
    assert (new[:before] == old).all()


def test_shares_come_out_as_asked(split: Split) -> None:
    samples = [(f"group-{n}", 0, "", f"{n}") for n in range(20_000)]
    splits = split(samples, SplitConfig(val_share=0.1, test_share=0.2), labels=1).splits
    # Three standard deviations of a binomial share.
    assert (splits == VAL).mean() == pytest.approx(0.1, abs=0.0065)
    assert (splits == TEST).mean() == pytest.approx(0.2, abs=0.0085)


def test_another_seed_holds_out_other_groups() -> None:
    assert split_draw("cat", 0) != split_draw("cat", 1)
    assert 0 <= split_draw("cat", 0) < 1


def test_a_copy_in_train_of_a_held_out_image_is_dropped_and_counted(split: Split) -> None:
    samples = [(f"g{n}", 0, "openmoji", f"g{n}") for n in range(20)]
    samples += [("other", 0, "openmoji", "same"), ("same", 0, "noto", "same")]
    result = split(samples, SplitConfig(holdout_family="noto", val_share=0.2), labels=1)
    assert result.splits[-2:].tolist() == [DROPPED, TEST]
    assert (result.equal_sets.copies, result.held_out_copies, result.repeats) == (1, 1, 0)


def test_a_repeat_is_dropped_and_a_conflict_is_kept_and_counted(split: Split) -> None:
    samples = [("same", 0, "", "same"), ("same", 0, "", "same"), ("same", 1, "", "same")]
    samples += [(f"{label}-{n}", label, "", f"{label}-{n}") for label in (0, 1) for n in range(9)]
    result = split(samples, SplitConfig(), labels=2)
    assert result.splits[0] == result.splits[2] != DROPPED
    assert result.splits[1] == DROPPED
    assert (result.equal_sets.copies, result.repeats, result.conflicting_sets) == (2, 1, 1)


def test_a_class_too_small_is_named_with_its_count(split: Split) -> None:
    samples = [(f"g{n}", 0, "", f"{n}") for n in range(9)] + [("a", 1, "", "a"), ("b", 1, "", "b")]
    with pytest.raises(InputError, match=r"class 'class-1' has 2 images, too few for 3 splits \(train, val, test\)"):
        split(samples, SplitConfig(), labels=2)
    with pytest.raises(InputError, match="class 'class-1' has 0 images"):
        split(samples[:9], SplitConfig(test_share=0), labels=2)


def test_a_class_of_copies_of_held_out_images_is_named(split: Split) -> None:
    samples = [(f"g{n}", 0, "openmoji", f"{n}") for n in range(9)] + [("x", 0, "noto", "x")]
    samples += [(f"c{n}", 1, "openmoji", "copied") for n in range(5)] + [("y", 1, "noto", "copied")]
    with pytest.raises(InputError, match=r"class 'class-1' has 5 images \(without copies of held-out ones, 0 content"):
        split(samples, SplitConfig(holdout_family="noto"), labels=2)


def test_variants_of_one_concept_count_once(split: Split) -> None:
    samples = [(f"g{n}", 0, "", f"{n}") for n in range(9)] + [("a", 1, "", f"a{n}") for n in range(5)]
    with pytest.raises(InputError, match="class 'class-1' has 5 images in 1 content group, too few for 2 splits"):
        split(samples, SplitConfig(test_share=0), labels=2)


def numbered(count: int) -> list[Sample]:
    return [(f"g{n}", 0, "", f"{n}") for n in range(count)]


def test_a_given_test_split_is_kept(split: Split) -> None:
    given: list[str | None] = ["train"] * 20 + ["test"] * 10
    splits = split(numbered(30), SplitConfig(val_share=0.3, test_share=0.3), labels=1, given=given).splits
    assert (splits[20:] == TEST).all()
    assert set(splits[:20].tolist()) == {TRAIN, VAL}


def test_where_the_val_split_is_given_no_other_image_goes_there(split: Split) -> None:
    given: list[str | None] = [None] * 20 + ["val"] * 10
    splits = split(numbered(30), SplitConfig(val_share=0.3, test_share=0.3), labels=1, given=given).splits
    assert (splits[20:] == VAL).all()
    assert set(splits[:20].tolist()) == {TRAIN, TEST}


def test_the_rule_given_takes_every_split_from_the_data_set(split: Split) -> None:
    given: list[str | None] = ["train", "val", "test", "train"]
    assert split(numbered(4), SplitConfig(rule="given"), labels=2, given=given).splits.tolist() == [0, 1, 2, 0]
    with pytest.raises(InputError, match="gives no split for 2 of 4 images"):
        split(numbered(4), SplitConfig(rule="given"), labels=1, given=["train", "val", None, None])
    with pytest.raises(ValueError, match="remove holdout_family"):
        SplitConfig(rule="given", holdout_family="noto")


def test_the_rule_image_splits_a_group(split: Split) -> None:
    samples = [("one concept", 0, "", f"{n}") for n in range(200)]
    splits = split(samples, SplitConfig(rule="image", val_share=0.3, test_share=0.2), labels=1).splits
    assert 30 < (splits == VAL).sum() < 90
    assert 15 < (splits == TEST).sum() < 70


def test_an_unknown_family_is_refused_with_the_near_ones(split: Split) -> None:
    with pytest.raises(UnknownNameError, match="did you mean noto"):
        split([("a", 0, "noto", "a")], SplitConfig(holdout_family="notto"), labels=1)


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing is left to train on"):
        SplitConfig(val_share=0.5, test_share=0.5)
