"""Counter-based numbers: a function of what they are for, never of the company they are drawn in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.counter_rng import generator, integer, text_hash, uniforms

IDS = arrays.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 2**62))


@given(IDS, st.integers(0, 2**32), st.integers(0, 10**6), st.randoms())
def test_a_samples_numbers_do_not_depend_on_its_batch(ids, seed, epoch, random):
    numbers = uniforms(seed, "augment", epoch, ids, 5)
    order = list(range(len(ids)))
    random.shuffle(order)
    some = np.array(order[: len(order) // 2], dtype=np.int64)
    np.testing.assert_array_equal(uniforms(seed, "augment", epoch, ids[some], 5), numbers[some])
    np.testing.assert_array_equal(uniforms(seed, "augment", epoch, ids, 2), numbers[:, :2])


@given(IDS, st.integers(0, 2**32), st.integers(0, 10**6), st.integers(0, 9))
def test_numbers_lie_in_the_half_open_unit_interval(ids, seed, epoch, columns):
    numbers = uniforms(seed, "augment", epoch, ids, columns)
    assert numbers.shape == (len(ids), columns)
    assert numbers.dtype == np.float64
    assert ((numbers >= 0) & (numbers < 1)).all()


def test_seed_purpose_epoch_sample_and_column_all_matter():
    ids = np.arange(100)
    base = uniforms(1, "augment", 1, ids, 4)
    for other in (
        uniforms(2, "augment", 1, ids, 4),
        uniforms(1, "caption", 1, ids, 4),
        uniforms(1, "augment", 2, ids, 4),
        uniforms(1, "augment", 1, ids + 1000, 4),
    ):
        assert not np.isin(other, base).any()
    assert len(np.unique(base)) == base.size


def test_numbers_of_neighbouring_samples_are_spread_evenly_and_unrelated():
    numbers = uniforms(0, "augment", 0, np.arange(20_000), 4)
    # 100 bins of 800: chi-square with 99 degrees of freedom is below 150 in 99.9% of all draws.
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((counts - 800) ** 2 / 800).sum() < 150
    # 20,000 pairs: a correlation's standard error is 0.007; 4.5 of them.
    columns = np.corrcoef(numbers.T) - np.eye(4)
    assert abs(columns).max() < 0.032
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.032


def test_numbers_are_the_same_for_ever():
    # A change here changes every run's augmentation and every key's meaning: raise the stages' versions.
    assert uniforms(7, "augment", 3, np.array([0, 12345]), 2).round(6).tolist() == [
        [0.720315, 0.927792],
        [0.889045, 0.29671],
    ]
    assert generator(7, "order", 3).permutation(8).tolist() == [6, 0, 5, 4, 2, 1, 3, 7]


def test_a_generator_is_drawn_again_from_its_place():
    assert generator(1, "order", 2, 3).integers(2**62) == generator(1, "order", 2, 3).integers(2**62)
    draws = {
        int(generator(*place).integers(2**62))
        for place in [
            (1, "a"),
            (2, "a"),
            (1, "b"),
            (1, "a", 0),
            (1, "a", 1),
            (1, "a", 0, 1),
            (1, "a", 1, 0),
            (1, "a", 10),
        ]
    }
    assert len(draws) == 8


@given(st.integers(0, 2**64), st.text(), st.lists(st.integers(0, 2**40), max_size=3))
def test_an_integer_is_the_first_of_its_generator(seed, purpose, counters):
    assert integer(seed, purpose, *counters) == int(generator(seed, purpose, *counters).integers(0, 2**63))


def test_the_three_forms_of_a_texts_hash_never_change():
    # Splits, orders, listings and ontologies that are stored somewhere were made with these numbers.
    assert text_hash("3/cat") == 0xDB7C2270BB1AC9A9
    assert text_hash("3/cat", digest_bytes=8) == 0x290F7B8C2DDC1AF9
    assert text_hash("3/cat", digest_bytes=8, byteorder="little") == 0xF91ADC2D8C7B0F29


def test_the_name_of_a_file_that_is_no_utf_8_has_a_hash():
    assert text_hash(b"caf\xe9.png".decode("utf-8", "surrogateescape")) != text_hash("caf.png")
